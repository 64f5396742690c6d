"""HPS v2 (2306.09341): the human preference score, the cosine of a CLIP ViT-H/14 tuned on people's choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features import clip, own_weights
from harness.metrics.features.own_weights import ScoreMetric, Source

if TYPE_CHECKING:
    import torch

PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean and spread
SOURCE = Source(
    "xswu/HPSv2", ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt"), False
)


class HpsV2(ScoreMetric):
    name = "hps_v2"
    columns = (*bootstrap.columns("hps_v2"), "hps_v2_definition")
    image_columns = ("hps_v2",)

    @classmethod
    def found(cls, options: Options) -> Path:
        return SOURCE.find(cls.name, options["path"], options["allow_pickle"])

    def load(self, found: Path) -> Hps:
        net, tokenizer = clip.untrained(self.options["model"], self.context.device)
        net.load_state_dict(own_weights.state_dict(found))
        return Hps(net, tokenizer, own_weights.label(found), self.context.device)


class Hps:
    """The cosine itself, about 0.2 to 0.3; people quote it times 100. Resized as the authors' package does."""

    def __init__(self, net: Any, tokenizer: Any, label: str, device: str) -> None:
        self.net, self.tokenizer, self.device = net, tokenizer, device
        side = net.visual.image_size
        self.side = side if isinstance(side, int) else side[0]
        self.definition = f"cos (2306.09341), {label}, open_clip, torch-bicubic-pad to {self.side}x{self.side}"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            seen = self.net.encode_image(self._pixels(images), normalize=True).double()
            read = self.net.encode_text(self.tokenizer(list(prompts)).to(self.device), normalize=True).double()
        return (seen * read).sum(1).cpu().numpy()

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """The longer side at the network's, black bars beside the shorter one."""
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        pixels = images.float() / 255
        size = pixels.shape[-2:]
        if max(size) != self.side:
            inner = [round(length * self.side / max(size)) for length in size]
            pixels = F.resize(pixels, inner, InterpolationMode.BICUBIC, antialias=True)
            down, across = self.side - inner[0], self.side - inner[1]
            pixels = F.pad(pixels, [across // 2, down // 2, across - across // 2, down - down // 2])
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in PIXELS)
        return ((pixels - mean) / std).to(self.device)
