"""The order that a tableau shows: error against steps on a denoiser that is known, in numpy.

The data are five Gaussians in the plane (the mixture of the tests). Their probability-flow ODE is solved from σ/α =
14.6 to 0.029 over levels uniform in log SNR. The reference is an order-9 method with enough steps to be exact to
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from samplers import registry, schedules
from samplers.core.levels import DiscreteVE, DiscreteVP, Level, NoiseLevels
from samplers.core.plan import Plan

_MEANS = np.array([[1.2, 0.3], [-0.9, 1.0], [-0.4, -1.3], [0.8, -0.9], [0.0, 0.2]])
_VARIANCES = np.array([0.35, 0.45, 0.30, 0.40, 0.50]) ** 2
_WEIGHTS = np.array([0.25, 0.20, 0.20, 0.20, 0.15])
_STARTS = 16
_REFERENCE = ({"solver": "rk", "tableau": "verner_efficient9", "clock": "lambda"}, 700)
STEPS = tuple(round(10 * 2 ** (k / 2)) for k in range(17))  # 10 … 2560
_FLOOR = 1e-12  # relative errors settle at 1.5e-14, and at ten times that where coefficients are in the hundreds
_MOST_CALLS = 1600


def denoise(x: np.ndarray, level: Level) -> np.ndarray:
    """E[x0 | x] of the mixture, (N, 2).

    >>> from samplers.core.levels import DiscreteVP
    >>> noisy, clean = DiscreteVP.scaled_linear().ve().level(1e6), DiscreteVP.scaled_linear().ve().level(1e-6)
    >>> denoise(np.array([[0.7, 0.3]]), noisy).round(4)  # says nothing of x: the mean of the data
    array([[ 0.2  , -0.135]])
    >>> denoise(np.array([[0.7, 0.3]]), clean).round(4)
    array([[0.7, 0.3]])
    """
    z, noise = x / level.alpha, level.ratio**2
    total = _VARIANCES + noise
    offset = z[:, None, :] - _MEANS
    log = np.log(_WEIGHTS) - np.log(total) - (offset**2).sum(-1) / (2 * total)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return (weight[..., None] * (_MEANS + (_VARIANCES / total)[:, None] * offset)).sum(axis=1)


def run(plan: Plan, x: np.ndarray, answer: Callable[[np.ndarray, Level], np.ndarray] = denoise) -> np.ndarray:
    """Run the plan without its noise, on numpy arrays in float64.

    A denoiser with a constant answer is followed exactly:

    >>> levels = schedules.build("karras", DiscreteVP.scaled_linear(), 20)
    >>> plan = registry.build_plan({"solver": "dpmpp"}, levels)
    >>> run(plan, np.array([[14.0, -3.0]]), lambda x, level: np.full_like(x, 0.5)).round(12)
    array([[0.5, 0.5]])
    """
    states: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    for stage in plan.stages:
        states.insert(0, x)
        outputs.insert(0, answer(x, stage.level))
        none = np.zeros_like(x)
        x = sum((a * s for a, s in zip(stage.states, states, strict=False) if a), none) + sum(
            (b * d for b, d in zip(stage.x0, outputs, strict=False) if b), none
        )
        del states[64:], outputs[64:]
    return x


def slope(asked: registry.Asked, halvings: int = 0) -> tuple[float, float, int]:
    """(the order shown over the last doubling of the steps above rounding, the error there, its steps).

    `halvings` cuts the first step in half so many times, for methods that begin with steps of lower order: what such a
    start leaves behind, h² of its first step, would hide the order.
    """
    sampler = registry.sampler(asked)
    calls = sampler.declares(1).nfe or 1
    found: list[tuple[int, float]] = []
    for steps in STEPS:
        if steps * calls > _MOST_CALLS and len(found) > 3:
            break
        found.append((steps, error(sampler, steps, halvings)))
        if found[-1][1] < _FLOOR:
            break
    clean = [pair for pair in found if _FLOOR < pair[1] < 1] or found
    (few, coarse), (many, fine) = clean[max(0, len(clean) - 3)], clean[-1]
    return math.log(coarse / fine) / math.log(many / few) if many > few else math.nan, fine, many


def error(sampler: registry.Asked, steps: int, halvings: int = 0) -> float:
    """RMS distance of the run's end from the exact one, over the RMS of the exact one."""
    exact = _exact()
    found = run(registry.build_plan(sampler, _levels(steps, halvings)), _begin())
    return float(np.sqrt(((found - exact) ** 2).sum() / (exact**2).sum()))


@lru_cache(maxsize=1)
def _process() -> DiscreteVE:
    return DiscreteVP.scaled_linear().ve()


def _levels(steps: int, halvings: int = 0) -> NoiseLevels:
    levels = schedules.build("exponential", _process(), steps, end="sigma_min")
    log = np.log(levels.ratio)
    more = log[0] + (log[1] - log[0]) * 2.0 ** np.arange(-halvings, 0)
    return NoiseLevels.from_ratios(levels.process, np.exp(np.concatenate([log[:1], more, log[1:]])))


def _begin() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_STARTS, 2)) * _process().ratio_max


@lru_cache(maxsize=1)
def _exact() -> np.ndarray:
    sampler, steps = _REFERENCE
    return run(registry.build_plan(sampler, _levels(steps)), _begin())
