"""Noise streams, one an image: what an image gets does not depend on the batch it is in, the worker or the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_MASK = 0xFFFFFFFF


class NoiseStreams:
    """Standard normal noise, a function of (seed, image index, draw number) alone.

    The initial latent noise is the first draw. Drawn on the CPU so that devices agree, and moved without waiting.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"):
        self.seed, self.indices, self.shape = int(seed), [int(i) for i in indices], tuple(shape)
        self.device = torch.device(device)
        self.number = 0  # of the next draw
        self._generator = torch.Generator()

    def draw(self, above: float | None = None, below: float | None = None) -> torch.Tensor:
        """The next draw of every image: float32 (N, *shape) on the streams' device.

        `above` and `below` are the σ/α between which the noise is added: nothing to independent draws.
        """
        pinned = self.device.type == "cuda"
        out = torch.empty((len(self.indices), *self.shape), dtype=torch.float32, pin_memory=pinned)
        key = _mix64(_mix64(self.seed) + self.number)
        for row, index in zip(out, self.indices, strict=True):
            self._generator.manual_seed(_stream(key, index))
            torch.randn(self.shape, generator=self._generator, out=row)
        self.number += 1
        return out.to(self.device, non_blocking=True)


def _stream(key: int, index: int) -> int:
    """32 bits, all that a CPU generator keeps of its seed; one-to-one in the index, so no two images share a draw."""
    return _mix32(_mix32((index ^ key) & _MASK) + (key >> 32))


def _mix32(z: int) -> int:
    """Finaliser of MurmurHash3, a bijection of 32-bit numbers."""
    z &= _MASK
    z = ((z ^ z >> 16) * 0x85EBCA6B) & _MASK
    z = ((z ^ z >> 13) * 0xC2B2AE35) & _MASK
    return z ^ z >> 16


def _mix64(z: int) -> int:
    """Finaliser of SplitMix64."""
    mask = (1 << 64) - 1
    z = (z + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31
