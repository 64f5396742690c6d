"""What samplers and decoders do to an image: each flaw with a strength, on float RGB (N, 3, H, W) in [0, 255].

The extractor is trained to tell them and the ruler's test asks whether FID sees them. A strength is an (N,) tensor, 0
leaves an image as it is; random flaws draw from torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Flaw = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian of standard deviation `sigma` in pixels, edges repeated."""
    n, channels = images.shape[:2]
    reach = max(1, int(3 * float(sigma.max()) + 0.999))
    at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3).view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).unsqueeze(1)
    rows = F.pad(images.reshape(1, n * channels, *images.shape[2:]), (reach,) * 4, mode="replicate")
    rows = F.conv2d(rows, kernel.unsqueeze(2), groups=n * channels)
    return F.conv2d(rows, kernel.unsqueeze(3), groups=n * channels).view_as(images)


def noise(images: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """White noise of standard deviation `deviation` in levels of 255."""
    return images + _each(deviation) * torch.randn_like(images)


def blotches(images: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Coloured noise a few pixels wide: what noise left in latents becomes in the image."""
    coarse = torch.randn(*images.shape[:2], images.shape[2] // 4, images.shape[3] // 4, device=images.device)
    return images + _each(deviation) * F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=False)


def ringing(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Edges overshot: `amount` times what a blur of 1 pixel takes away is added."""
    return images + _each(amount) * (images - blur(images, torch.ones_like(amount)))


def contrast(images: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Distance from mid grey times 1 + `change`, which may be negative."""
    return 127.5 + (1 + _each(change)) * (images - 127.5)


def smoothing(images: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Texture lost, edges kept: detail finer than 1 pixel is shrunk by `levels` of 255 and ends at 0."""
    base = blur(images, torch.ones_like(levels))
    detail = images - base
    return base + detail.sign() * (detail.abs() - _each(levels)).clamp(min=0)


def _each(strength: torch.Tensor) -> torch.Tensor:
    return strength.view(-1, 1, 1, 1)


# The strength that a network sees as half of everything, and the largest that it is shown.
FLAWS: dict[str, tuple[Flaw, float, float]] = {
    "blur": (blur, 0.5, 1.6),
    "noise": (noise, 3.0, 16.0),
    "blotches": (blotches, 5.0, 24.0),
    "ringing": (ringing, 0.3, 1.5),
    "contrast": (contrast, 0.1, 0.35),
    "smoothing": (smoothing, 4.0, 24.0),
}


def spoil(images: torch.Tensor, share: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """A `share` of the images with one flaw each, clamped to [0, 255], and how much of which: (N, flaws) in (-1, 1).

    Strengths are log-uniform over a factor of 16, so that slight flaws are as frequent as grave ones; the answer is
    s / (|s| + half), which tells slight ones apart.
    """
    n, device = len(images), images.device
    which = torch.where(torch.rand(n, device=device) < share, torch.randint(len(FLAWS), (n,), device=device), -1)
    out, answer = images.clone(), torch.zeros(n, len(FLAWS), device=device)
    for code, (name, (flaw, half, most)) in enumerate(FLAWS.items()):
        rows = (which == code).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        strength = most * 16.0 ** -torch.rand(len(rows), device=device)
        if name == "contrast":
            strength = strength * (2 * torch.randint(2, (len(rows),), device=device) - 1)
        out[rows] = flaw(images[rows], strength)
        answer[rows, code] = strength / (strength.abs() + half)
    return out.clamp(0, 255), answer
