"""Latents of the pipelines of diffusers: to and from a VAE's own scale, and packed as tokens of 2×2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def packed(latents: Tensor) -> Tensor:
    """(N, C, h, w) to (N, h/2·w/2, 4·C), as FLUX, Chroma and Qwen-Image hold it."""
    n, c, h, w = latents.shape
    tiles = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(n, (h // 2) * (w // 2), c * 4)


def unpacked(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What `packed` made, as (N, *shape) again."""
    c, h, w = shape
    tiles = tokens.view(len(tokens), h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(len(tokens), c, h, w)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Clean states (N, C, h, w) to pixels float32 (N, 3, H, W), about −1 to 1."""
    scale, shift = _scale(vae, latents)
    z = (latents / scale + shift).to(vae.dtype)
    if _is_of_video(vae):
        return vae.decode(z.unsqueeze(2), return_dict=False)[0][:, :, 0].float()
    return vae.decode(z, return_dict=False)[0].float()


def clean_of(vae: Any, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """The mode of what the VAE says of pixels float32 (N, 3, H, W) in [−1, 1], as clean states of `dtype`."""
    pixels = pixels.to(vae.dtype)
    found = vae.encode(pixels.unsqueeze(2) if _is_of_video(vae) else pixels)
    if hasattr(found, "latent_dist"):
        z = found.latent_dist.mode()
    else:
        z = found.latent if hasattr(found, "latent") else found.latents
    z = (z[:, :, 0] if _is_of_video(vae) else z).to(dtype)
    scale, shift = _scale(vae, z)
    return (z - shift) * scale


def _is_of_video(vae: Any) -> bool:
    return "z_dim" in vae.config


def _scale(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """(scale, shift) of state = (z − shift)·scale: numbers, or one a channel."""
    config = vae.config
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (
            torch.tensor(config[name], dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
        factor = 1.0 if _is_of_video(vae) else config.get("scaling_factor", 1.0)
        return factor / std, mean
    return config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
