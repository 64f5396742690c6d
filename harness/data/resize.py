"""The one resizer of the project: Pillow's bicubic, which is antialiased and the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

FITS = ("crop", "squash", "pad")


def name(fit: str) -> str:
    """How a record calls it."""
    return f"pil-bicubic-{fit}"


def fit_image(image: Image, size: tuple[int, int], fit: str, nearest: bool = False) -> Image:
    """`image` at `size` (H, W): crop = short side, then centre; squash = ignore the aspect; pad = black bars."""
    from PIL import Image as pil

    height, width = size
    resample = pil.Resampling.NEAREST if nearest else pil.Resampling.BICUBIC
    if image.size == (width, height):
        return image
    if fit == "squash":
        return image.resize((width, height), resample)
    pick = max if fit == "crop" else min
    scale = pick(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    scaled = image.resize(inner, resample)
    left, top = (inner[0] - width) // 2, (inner[1] - height) // 2
    return scaled.crop((left, top, left + width, top + height))  # outside of the image, crop fills with 0


def resize(images: torch.Tensor, size: tuple[int, int], fit: str = "squash") -> torch.Tensor:
    """uint8 (N, 3, h, w) to (N, 3, H, W); images that have the size come back as they are."""
    import torch
    from PIL import Image as pil

    if tuple(images.shape[-2:]) == tuple(size):
        return images
    out = [np.asarray(fit_image(pil.fromarray(x.permute(1, 2, 0).numpy()), size, fit)) for x in images.cpu()]
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()
