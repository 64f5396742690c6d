"""What a loaded model makes of prompts and sources: remembered over the cells of a session, or anew for the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.models.base import Conditioning, Model

Text = tuple[Conditioning, Conditioning | None]  # a row a prompt, and one of the negative prompt where it is asked for


def text(model: Model, prompts: Sequence[str], negative: str, guided: bool) -> Text:
    """Encoded anew; the negative prompt, too, where it is what an image is `guided` away from."""
    if not guided:
        return model.encode_text(prompts), None
    own = model.encode_negative(negative)
    if own is not None:
        return model.encode_text(prompts), own
    both = model.encode_text([*prompts, negative])
    return both[:-1], both[-1:]


@dataclass
class Remembered:
    """What one loaded model was asked before: text by prompt, clean latents by task, data and image number, FLOPs."""

    rows: dict[str, Conditioning] = field(default_factory=dict)
    negatives: dict[str, Conditioning | None] = field(default_factory=dict)  # of models that encode them otherwise
    latents: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    # Text, call, decode; by whether there is classifier-free guidance, and guidance by a classifier.
    flops: dict[tuple[bool, bool], tuple[int, int, int]] = field(default_factory=dict)

    def text(self, model: Model, prompts: Sequence[str], negative: str, guided: bool) -> Text:
        """As `text` above; the negative prompt is encoded beside the others also where it is not `guided` by."""
        new = [prompt for prompt in dict.fromkeys([*prompts, negative]) if prompt not in self.rows]
        if new:
            self.rows.update(zip(new, model.encode_text(new), strict=True))
        cond = Conditioning.stack([self.rows[prompt] for prompt in prompts])
        if not guided:
            return cond, None
        if negative not in self.negatives:
            self.negatives[negative] = model.encode_negative(negative)
        return cond, self.negatives[negative] or self.rows[negative]

    def sources(self, model: Model, keys: Sequence[tuple[str, str, int]], images: Tensor) -> Tensor:
        """Clean latents of the images, whose keys are their task, data and number."""
        new = [k for k, key in enumerate(keys) if key not in self.latents]
        if new:
            self.latents.update(zip((keys[k] for k in new), model.encode_images(images[new]), strict=True))
        return torch.stack([self.latents[key] for key in keys])
