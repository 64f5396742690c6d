"""One run by our code and the same run by a peer's: same levels, start, noise and denoiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from samplers import registry
from samplers.core.integrate import integrate
from samplers.core.levels import Level, NoiseLevels
from samplers.core.noise import NoiseStreams
from samplers.peers import load as peers
from samplers.peers.counterparts import Counterpart

INDICES, SHAPE = (0, 1), (4, 8, 8)
CHURN = {"s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}


def eps(x: Tensor, time: float) -> Tensor:
    """A nonlinear stand-in for a network that mixes positions and depends on the time it is told."""
    return torch.tanh(x * (1 + 0.3 * math.sin(time / 90)) + 0.2 * x.roll(1, -1) + 0.1 * math.cos(time / 40))


def denoiser(x: Tensor, level: Level) -> Tensor:
    if level.alpha == 0:
        return 0.5 * eps(x, level.time)
    return (x - level.sigma * eps(x, level.time)) / level.alpha


def start(levels: NoiseLevels, dtype: torch.dtype, count: int) -> Tensor:
    """The state at the first level: noise of its size."""
    noise = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (noise * math.hypot(levels[0].alpha, levels[0].sigma)).to(dtype)


def ours(asked: registry.Asked, levels: NoiseLevels, dtype: torch.dtype) -> Tensor:
    sampler = registry.sampler(asked)
    x = start(levels, dtype, 1 if sampler.adaptive else len(INDICES))
    noise = NoiseStreams(0, INDICES[: len(x)], SHAPE)
    if sampler.adaptive:
        return sampler.solve(levels, denoiser, x, noise)
    return integrate(sampler.plan(levels), denoiser, x, noise)


def theirs(
    peer: str, row: Counterpart | None, asked: registry.Asked, levels: NoiseLevels, dtype: torch.dtype
) -> Tensor:
    """By the peer's code; `row=None` lets it choose the counterpart as a sweep does."""
    sampler = registry.sampler(asked)
    x = start(levels, dtype, 1 if sampler.adaptive else len(INDICES))
    noise = NoiseStreams(0, INDICES[: len(x)], SHAPE)
    return peers.load(peer).run(sampler, levels, denoiser, x, noise, row=row)


def far(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value; infinite where anything is not finite."""
    value = float((one.double() - other.double()).abs().max() / other.double().abs().max())
    return value if math.isfinite(value) else math.inf
