"""Noise streams, one per image: an image's noise does not depend on its batch, the worker or the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

_MASK = 0xFFFFFFFF
_PATH = 0x62726F776E69616E  # "brownian": keeps the paths apart from the draws of the same seed


class Noise(Protocol):
    """Whatever a walk draws its noise from: our streams, or a host's own generators."""

    def draw(self, above: float | None = None, below: float | None = None) -> torch.Tensor:
        """Standard normal noise shaped as the state, for what is added between two σ/α (None: between none)."""
        ...


class NoiseStreams:
    """Standard normal noise, a function of (seed, image index, draw number) alone.

    The initial latent noise is the first draw, or `first` (N, *shape) where it is given from outside. Noise is drawn on
    the CPU, so that devices agree, and moved to the device without waiting for it.

    >>> together, alone = NoiseStreams(0, [7, 8], (4,)), NoiseStreams(0, [8], (4,))
    >>> torch.equal(together.draw()[1:], alone.draw())
    True
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"):
        self.seed, self.indices, self.shape = int(seed), [int(i) for i in indices], tuple(shape)
        self.device = torch.device(device)
        self.number = 0  # which draw comes next
        self.first: torch.Tensor | None = None
        self._generator = torch.Generator()

    def draw(self, above: float | None = None, below: float | None = None) -> torch.Tensor:
        """The next draw of every image: float32 (N, *shape) on the streams' device.

        `above` and `below` are the σ/α between which the noise is added; independent draws do not depend on them.
        """
        if self.first is not None and self.number == 0:
            self.number += 1
            return self.first.to(self.device, torch.float32, copy=True)
        pinned = self.device.type == "cuda"
        out = torch.empty((len(self.indices), *self.shape), dtype=torch.float32, pin_memory=pinned)
        key = _mix64(_mix64(self.seed) + self.number)
        for row, index in zip(out, self.indices, strict=True):
            self._generator.manual_seed(_stream(key, index))
            torch.randn(self.shape, generator=self._generator, out=row)
        self.number += 1
        return out.to(self.device, non_blocking=True)

    def only(self, row: int) -> NoiseStreams:
        """The streams of one image of the batch, at the same draw."""
        streams = type(self)(self.seed, [self.indices[row]], self.shape, self.device)
        streams.number = self.number
        streams.first = None if self.first is None else self.first[row : row + 1]
        return streams


class BrownianStreams(NoiseStreams):
    """Noise added between two levels is the increment of one Brownian path an image, over σ/α.

    The path is a function of (seed, image index) alone, so the increments of a fine grid add up to those of a coarse
    one, and runs with more and more steps approach one image. What is added between no two levels (the initial noise,
    churn, Restart's way up) and what is added over an empty interval or from pure noise (σ/α = ∞, whose increments
    are independent of every finite part of the path) is drawn as NoiseStreams draws it. Every interval of one path has
    one increment: a plan that adds noise over the same levels twice gets the same noise again, so one that goes up
    must do it by a churn.

    The path is a torchsde tree an octave of σ/α, so its resolution, 1e-6 of σ/α, is the same at every level.
    """

    _RESOLUTION = 1e-6
    _LOWEST = 2.0**-40  # the path begins here: far below any trained level

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"):
        super().__init__(seed, indices, shape, device)
        self._trees: dict[tuple[int, int], Any] = {}  # Brownian paths, an image and octave each

    def draw(self, above: float | None = None, below: float | None = None) -> torch.Tensor:
        """The path's increment from `above` down to `below` (σ/α), over √(above − below): standard normal, float32."""
        if (
            above is None
            or below is None
            or math.isinf(above)
            or not above * (1 - self._RESOLUTION) > max(below, self._LOWEST)
        ):
            return super().draw()
        out = torch.empty((len(self.indices), *self.shape), dtype=torch.float32)
        parts = _octaves(max(below, self._LOWEST), above)
        for row, index in zip(out, self.indices, strict=True):
            pieces = [2 ** (octave / 2) * self._tree(index, octave)(start, stop) for octave, start, stop in parts]
            row.copy_(sum(pieces, torch.zeros(())) / math.sqrt(above - below))
        lowest = parts[0][0]  # sampling goes down: what lies above is not asked for again
        self._trees = {key: tree for key, tree in self._trees.items() if key[1] <= lowest}
        return out.to(self.device)

    def _tree(self, index: int, octave: int) -> Callable[[float, float], torch.Tensor]:
        if (index, octave) not in self._trees:
            from torchsde import BrownianInterval  # not at the top: it loads scipy, and most runs want no path

            entropy = _mix64(_mix64(_mix64(self.seed ^ _PATH) + index) + octave)
            self._trees[index, octave] = BrownianInterval(
                t0=0.0,
                t1=1.0,
                size=self.shape,
                dtype=torch.float32,
                entropy=entropy,
                tol=self._RESOLUTION,
                halfway_tree=True,
                cache_size=24,  # a path down the tree; the default of 45 is twice the memory at the same speed
            )
        return self._trees[index, octave]


def _octaves(low: float, high: float) -> list[tuple[int, float, float]]:
    """[low, high] cut at powers of 2: (octave, where the piece begins and ends in it, 0 to 1), lowest first."""
    first, last = (math.frexp(value)[1] - 1 for value in (low, high))
    pieces = (
        (octave, max(low / 2.0**octave - 1, 0.0), min(high / 2.0**octave - 1, 1.0)) for octave in range(first, last + 1)
    )
    return [piece for piece in pieces if piece[1] < piece[2]]


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


KINDS = {"independent": NoiseStreams, "brownian": BrownianStreams}
