"""Noise where a pipeline brings none of ours: from its generators, or from the start of every image."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from samplers.core.noise import NoiseStreams


class Drawn:
    """Noise from the pipeline's generators, in the state's type; drawn where they live, as diffusers draws it."""

    def __init__(self, like: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> None:
        self._like, self._generator = like, generator

    def draw(self, above: float | None = None, below: float | None = None) -> Tensor:
        like = self._like
        return randn_tensor(like.shape, generator=self._generator, device=like.device, dtype=like.dtype)


def by_start(state: Tensor) -> NoiseStreams:
    """Streams that depend on the signs of each image's first state alone: on its initial noise, not on its batch.

    This waits for the device, once a run. Signs, because a source image is not encoded to the same bits in every batch.
    """
    flat = state.flatten(1)
    bits = flat[:, :: max(1, flat.shape[1] // 32)][:, :32].signbit().tolist()
    indices = [sum(bit << k for k, bit in enumerate(row)) for row in bits]
    return NoiseStreams(0, indices, tuple(state.shape[1:]), state.device)
