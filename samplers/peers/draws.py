"""Noise for a peer: from our streams, exactly where our own plan draws, and nothing where it does not.

Peers draw more than they use (k-diffusion's Euler 20 times without churn, diffusers' Euler a once for the step to
σ = 0). An idle draw is answered with zeros and leaves the stream where it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplers.core.noise import NoiseStreams


class Draws:
    """Standard normal noise for the states of one run, in their type; `on=False` answers everything with zeros."""

    def __init__(self, streams: NoiseStreams | None, like: Tensor, ratios: Sequence[float], on: bool) -> None:
        if on and streams is None:
            raise ValueError("this sampler draws noise: give run() the noise streams of the images")
        self._streams, self._like = streams if on else None, like
        self._ratios = np.array(sorted({float(r) for r in ratios}))
        self._last: tuple[float, float, Tensor] | None = None

    def idle(self) -> Tensor:
        return torch.zeros_like(self._like)

    def churn(self) -> Tensor:
        return self.idle() if self._streams is None else self._streams.draw().to(self._like.dtype)

    def between(self, above, below) -> Tensor:
        """The normalised increment of the noise between two σ/α.

        A peer that asks for the increment to a nearer level first and then for the whole one gets two values of one
        path, as it would from a Brownian tree: the whole is made of the part it had and one new draw.
        """
        above, below = self._known(above), self._known(below)
        if self._streams is None or below == 0:
            return self.idle()
        if self._last is not None and self._last[0] == above and self._last[1] > below:
            _, middle, first = self._last
            second = self._streams.draw(middle, below).to(self._like.dtype)
            part = (above - middle) / (above - below)
            drawn = math.sqrt(part) * first + math.sqrt(1 - part) * second
        else:
            drawn = self._streams.draw(above, below).to(self._like.dtype)
        self._last = (above, below, drawn)
        return drawn

    def _known(self, ratio) -> float:
        """A level of the run, where the peer's rounding has only just missed it."""
        ratio = float(ratio)
        nearest = self._ratios[np.abs(self._ratios - ratio).argmin()] if len(self._ratios) else ratio
        return float(nearest) if abs(nearest - ratio) <= 1e-5 * ratio else ratio
