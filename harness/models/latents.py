"""Latents of the pipelines of diffusers: to and from a VAE's own scale, and packed as tokens of 2×2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def packed(latents: Tensor, patch: int) -> Tensor:
    """(N, C, [F,] h, w) to (N, [F·]h/p·w/p, C·p·p): tokens of p×p, as FLUX, Chroma, Qwen-Image and LTX hold them."""
    n, c, *frames, h, w = latents.shape
    tiles = latents.reshape(n, c, *frames, h // patch, patch, w // patch, patch)
    tiles = tiles.movedim((1, -3, -1), (-3, -2, -1))  # (N, [F,] h/p, w/p, C, p, p)
    return tiles.flatten(-3).flatten(1, -2)


def unpacked(tokens: Tensor, shape: tuple[int, ...], patch: int) -> Tensor:
    """What `packed` made, as (N, *shape) again."""
    c, *frames, h, w = shape
    tiles = tokens.reshape(len(tokens), *frames, h // patch, w // patch, c, patch, patch)
    return tiles.movedim((-3, -2, -1), (1, -3, -1)).reshape(len(tokens), *shape)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Clean states (N, C, [F,] h, w) to pixels float32 (N, 3, [frames,] H, W), about −1 to 1."""
    scale, shift = _scale(vae, latents)
    z = (latents / scale + shift).to(vae.dtype)
    more: dict[str, Any] = {}
    if _quantizes(vae):
        more["force_not_quantize"] = True
    if vae.config.get("timestep_conditioning"):  # LTX from 0.9.1 on: clean latents
        more["temb"] = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    if _is_of_video(vae) and latents.ndim == 4:
        return vae.decode(z.unsqueeze(2), return_dict=False)[0][:, :, 0].float()
    return vae.decode(z, return_dict=False, **more)[0].float()


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


def _quantizes(vae: Any) -> bool:
    return "num_vq_embeddings" in vae.config


def _scale(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """(scale, shift) of state = (z − shift)·scale: numbers, or one a channel."""
    config = vae.config
    if _quantizes(vae):  # MoVQ, whose pipelines take its latents as they are
        return 1.0, 0.0
    # LTX keeps them with its weights, the others in the configuration.
    kept = {**config, **dict(vae.named_buffers(recurse=False))}
    mean, std = kept.get("latents_mean"), kept.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (
            torch.as_tensor(one, dtype=like.dtype, device=like.device).view(1, -1, *(1,) * (like.ndim - 2))
            for one in (mean, std)
        )
        factor = 1.0 if _is_of_video(vae) else config.get("scaling_factor", 1.0)
        return factor / std, mean
    return config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
