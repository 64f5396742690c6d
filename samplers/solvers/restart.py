"""Restart sampling: Xu et al. 2023 (2306.14878), algorithm 1: now and then back up to more noise, and down again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.euler import Euler
from samplers.solvers.heun import Heun
from samplers.solvers.parts.clock import CLOCKS

METHODS = ("heun", "euler")
INTERVALS = ((4, 1, 0.1, 0.3),)
Intervals = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Restart(Solver):
    """`intervals`: [N, K, t_min, t_max] each, as the authors write them. Where the level nearest to t_min (in σ/α) is
    reached, the state goes up to t_max by fresh noise and down again by N Karras levels (N − 1 steps, `rho`), K times.

    `method`: heun, in `clock` (see heun), or euler. t_max is lowered to the first level where that is lower (img2img),
    and an interval that is empty then is left out. A level with σ = 0 never counts as the nearest to t_min. Going up is
    a churn: its draws are independent of any Brownian path.
    """

    method: str = "heun"
    intervals: Intervals = INTERVALS
    rho: float = 7.0
    s_noise: float = 1.0
    clock: str = "sigma"

    def __post_init__(self) -> None:
        self._one_of("method", METHODS)
        self._one_of("clock", CLOCKS)
        if self.s_noise < 0 or not self.rho > 0:
            raise ValueError(f"s_noise={self.s_noise} of restart must not be negative, rho={self.rho} must be above 0")
        self._loops()

    def declares(self, steps: int) -> Capabilities:
        loops = self._loops()
        order = 2 if self.method == "heun" else 1
        steps += sum(times * (count - 1) for count, times, _, _ in loops)
        noisy = self.s_noise > 0 and any(times for _, times, _, _ in loops)
        return Capabilities(order, nfe=order * steps, stochastic=noisy)

    def plan(self, levels: NoiseLevels) -> Plan:
        ladders = _ladders(levels, self._loops(), self.rho)
        stages, done = [], 0
        for k in sorted({*ladders, levels.steps}):
            stages += self._down(_between(levels, done, k))
            for ladder in ladders.get(k, []):
                low, high = ladder[-1], ladder[0]
                up = (high.alpha / low.alpha, high.alpha * self.s_noise * math.sqrt(high.ratio**2 - low.ratio**2))
                first, *rest = self._down(ladder)
                stages += [replace(first, churn=up), *rest]
            done = k
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))

    def _loops(self) -> list[tuple[int, int, float, float]]:
        return [_checked(interval) for interval in self.intervals]

    def _down(self, levels: NoiseLevels) -> tuple[Stage, ...]:
        """The stages of a deterministic single-step method, which remember nothing from before these levels."""
        return (Heun(clock=self.clock) if self.method == "heun" else Euler()).plan(levels).stages


def _between(levels: NoiseLevels, start: int, stop: int) -> NoiseLevels:
    part = slice(start, stop + 1)
    return replace(levels, alpha=levels.alpha[part], sigma=levels.sigma[part], time=levels.time[part])


def _ladders(levels: NoiseLevels, intervals: list, rho: float) -> dict[int, list[NoiseLevels]]:
    """By level number: the levels, t_max first, that are climbed down when it is reached."""
    ladders: dict[int, list[NoiseLevels]] = {}
    inside = [k for k in range(1, len(levels)) if levels[k].sigma > 0]
    for count, times, low, high in intervals:
        if not inside:
            break
        k = min(inside, key=lambda k: abs(levels[k].ratio - low))
        bottom, top = levels[k].ratio, min(high, levels[0].ratio)
        if top > bottom:
            u = np.linspace(0, 1, count)
            ratios = (top ** (1 / rho) * (1 - u) + bottom ** (1 / rho) * u) ** rho
            ladders.setdefault(k, []).extend([NoiseLevels.from_ratios(levels.process, ratios)] * times)
    return ladders


def _checked(interval: Sequence[float]) -> tuple[int, int, float, float]:
    try:
        count, times, low, high = interval
        sound = count == int(count) >= 2 and times == int(times) >= 0 and 0 < low < high < math.inf
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(
            "an interval of restart is [N, K, t_min, t_max] with N of at least 2 levels, K of at least 0 times and "
            f"0 < t_min < t_max in sigma/alpha, not {interval!r}"
        )
    return int(count), int(times), float(low), float(high)


SOLVER = Restart
