"""A list of prompts as data: no images, perhaps reference statistics and initial noise from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data import statistics
from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models import pickles


class PromptData:
    """Prompt i is the i-th of the list; with `cycle` it begins anew after the last. See conf/data/prompts.yaml."""

    name = "prompts"
    resizer = "none"
    reference_size = 0

    def __init__(self, spec: Mapping[str, Any], asked: list[str], size: tuple[int, int], fingerprint: str) -> None:
        self.asked, self.cycle, self.size, self.fingerprint = asked, spec["cycle"], size, fingerprint
        self.statistics = statistics.given(spec)
        self.latents = None if spec["latents"] is None else initial_noise(expanded(spec["latents"]))

    def __len__(self) -> int:
        return 1 << 30 if self.cycle else len(self.asked)

    def prompts(self, indices: Sequence[int]) -> list[str]:
        return [self.asked[index % len(self.asked)] for index in indices]

    def initial_noise(self, indices: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor | None:
        """What these images begin with, float32 (N, *shape), of unit variance; None: their own streams.

        A file with one latent has it for all images, as MLPerf's has.
        """
        if self.latents is None:
            return None
        if tuple(self.latents.shape[1:]) != tuple(shape):
            raise InputError(
                f"data.latents has latents of {tuple(self.latents.shape[1:])}, the model takes {tuple(shape)}"
            )
        if len(self.latents) == 1:
            return self.latents.expand(len(indices), *shape)
        if max(indices) >= len(self.latents):
            raise InputError(f"data.latents has {len(self.latents)} latents, image {max(indices)} was asked for")
        return self.latents[list(indices)]

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        raise InputError("data=prompts has no images: take data=folder")

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        return self.images(indices)

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        return self.images(indices)

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        return iter(())


def initial_noise(file: Path) -> torch.Tensor:
    """The one tensor of a file, float32 (1 or N, C, h, w)."""
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        found: Any = load_file(file)
    elif file.suffix == ".npy":
        found = torch.from_numpy(np.load(file, allow_pickle=False))
    else:
        with pickles.weights_only():
            found = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(found, dict) and len(found) == 1:
        (found,) = found.values()
    if not isinstance(found, torch.Tensor) or found.ndim < 2:
        raise InputError(f"data.latents={str(file)!r} holds no single tensor of latents, (N, channels, height, width)")
    return found.float()
