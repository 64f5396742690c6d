"""A CLIP model in transformers' folder layout with its own processor: embeddings of unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics.features import own_weights

if TYPE_CHECKING:
    import torch


class TransformersClip:
    def __init__(self, folder: Path, device: str, allow_pickle: bool = False) -> None:
        from transformers import AutoProcessor, CLIPModel

        given = {"local_files_only": True}
        pickled = {} if allow_pickle else {"use_safetensors": True}
        self.net = CLIPModel.from_pretrained(folder, **given, **pickled).eval().requires_grad_(False).to(device)
        self.processor = AutoProcessor.from_pretrained(folder, **given)
        self.device, self.label = device, own_weights.label(folder)
        self._texts: dict[str, torch.Tensor] = {}

    @property
    def size(self) -> int:
        """Side of the images that the network takes, pixels."""
        return self.net.config.vision_config.image_size

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 RGB (N, 3, H, W) -> float32 (N, dim), through the processor's own resizing."""
        pixels = self.processor(images=own_weights.pictures(images), return_tensors="pt")["pixel_values"]
        return self.embed(pixels.to(self.device))

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Of images that are resized and normalised already."""
        import torch

        with torch.inference_mode():
            found = self.net.visual_projection(self.net.vision_model(pixel_values=pixels).pooler_output)
            return found / found.norm(dim=-1, keepdim=True)

    def read(self, prompts: Sequence[str]) -> torch.Tensor:
        """(N, dim); a prompt is embedded once a worker, as cells share them."""
        import torch

        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            asked = self.processor(
                text=new, padding=True, truncation=True, max_length=77, return_tensors="pt"
            ).to(self.device)  # fmt: skip
            asked = {name: asked[name] for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                found = self.net.text_projection(self.net.text_model(**asked).pooler_output)
                self._texts.update(zip(new, found / found.norm(dim=-1, keepdim=True), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])


class ClipFeatures:
    """A feature extractor (harness/metrics/base.py): the images' embeddings, resized as CMMD's authors do."""

    kind = "clip"

    def __init__(self, clip: TransformersClip) -> None:
        self.clip, self.id, self.dim = clip, f"clip-{clip.label}", clip.net.config.projection_dim

    def resizer(self, size: tuple[int, int]) -> str:
        side = self.clip.size
        return "none" if tuple(size) == (side, side) else f"torch-bicubic to {side}x{side}"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        import torch

        processor = self.clip.processor.image_processor
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
        found = []
        for part in images.split(64):
            pixels = part.float() / 255
            if tuple(pixels.shape[-2:]) != (self.clip.size, self.clip.size):
                pixels = torch.nn.functional.interpolate(pixels, (self.clip.size, self.clip.size), mode="bicubic")
            found.append(self.clip.embed(((pixels - mean) / std).to(self.clip.device)).float().cpu())
        return torch.cat(found).numpy()
