"""FD-DINOv2 (2306.04675): the Fréchet distance of DINOv2 features, which agrees with people better than Inception's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features import own_weights
from harness.metrics.features.moments import frechet_distance, gaussian_of
from harness.metrics.features.own_features import OwnFeatures
from harness.metrics.features.own_weights import Source
from harness.metrics.fid import influence, interval

if TYPE_CHECKING:
    import torch

SOURCE = Source("facebook/dinov2-large")
SIDE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FdDinoV2(OwnFeatures):
    name = "fd_dinov2"
    columns = (*bootstrap.columns("fd_dinov2"), "fd_dinov2_definition")
    image_influence = "fd_dinov2_influence"
    formula = "Fréchet distance (2306.04675)"

    @classmethod
    def found(cls, options: Options) -> Path:
        return SOURCE.find(cls.name, options["path"], options["allow_pickle"])

    def load(self, found: Path) -> DinoV2:
        return DinoV2(found, self.context.device, self.options["allow_pickle"])

    def distance(self, features: np.ndarray, reference: Any) -> tuple[float, float | None, float | None]:
        target = reference.gaussian
        value = frechet_distance(gaussian_of(features), target)
        self.moved = influence(features, target)
        return value, *interval(self.moved, value, self.options["resamples"], self.context.seed)


class DinoV2:
    """The class token behind the last norm, float32 (N, dim); images through Pillow's bicubic to 224x224."""

    kind = "dinov2"

    def __init__(self, folder: Path, device: str, allow_pickle: bool = False) -> None:
        from transformers import Dinov2Model

        pickled = {} if allow_pickle else {"use_safetensors": True}
        net = Dinov2Model.from_pretrained(folder, local_files_only=True, **pickled)
        self.net, self.device = net.eval().requires_grad_(False).to(device), device
        self.id, self.dim = f"dinov2-{own_weights.label(folder)}", net.config.hidden_size

    def resizer(self, size: tuple[int, int]) -> str:
        return "none" if tuple(size) == (SIDE, SIDE) else f"pil-bicubic-squash to {SIDE}x{SIDE}"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        import torch

        from harness.data.resize import resize

        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        found = []
        with torch.inference_mode():
            for part in images.split(64):
                pixels = (resize(part, (SIDE, SIDE)).float() / 255 - mean) / std
                found.append(self.net(pixel_values=pixels.to(self.device)).last_hidden_state[:, 0].float().cpu())
        return torch.cat(found).numpy()
