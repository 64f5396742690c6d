"""DPM-Solver-fast: Lu et al. 2022 (2206.00927), appendix D.3, on ε, as k-diffusion's sample_dpm_fast.

As many calls as the schedule has steps, in single steps of order 3 with one or two of lower order at the end. Evenly
spaced steps in log SNR are part of the method: it takes the ends of the schedule and none of the levels between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.coefficients import EPS, single_step
from samplers.solvers.parts.noise_split import split


@dataclass(frozen=True)
class DPMFast(Solver):
    """`eta` > 0 goes further down in every step but the last and adds noise (ancestral).

    λ is finite between the last level above σ = 0 and the first with some signal. A schedule that ends at σ = 0 spends
    its last call on a step of first order from the level before; one that begins at pure noise its first call on a step
    to the noisiest level of the process.
    """

    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        """A last step of order 1 has an error of h², so the order is 2 unless the steps leave a remainder of 2 by 3."""
        return Capabilities(order=3 if steps % 3 == 2 else 2, nfe=steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        start, stop, calls = levels[0], levels[-1], levels.steps
        stages: list[Stage] = []
        if start.alpha == 0:
            top = levels.process.level(levels.process.ratio_max) if calls > 1 else stop
            stages.append(_euler(start, top))
            start, calls = top, calls - 1
        to_zero = stop.sigma == 0 and calls > 0
        if to_zero:
            stop, calls = levels[-2] if calls > 1 else start, calls - 1
        stages += _steps(start, stop, levels.process, calls, self.eta, self.s_noise)
        if to_zero:
            stages.append(_euler(stop, levels[-1]))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _steps(start: Level, stop: Level, process: Process, calls: int, eta: float, s_noise: float) -> list[Stage]:
    orders = _orders(calls)
    h = (stop.lam - start.lam) / max(len(orders), 1)
    inner = [process.level(math.exp(-(start.lam + h * i))) for i in range(1, len(orders))]
    levels, stages = [start, *inner, stop], []
    for i, order in enumerate(orders):
        now, then = levels[i], levels[i + 1]
        target, up = split(now, then, eta)
        if eta and target.ratio < stop.ratio:  # no further down than the end
            target = Level(then.alpha, then.alpha * stop.ratio, then.time)
            up = then.alpha * math.sqrt(then.ratio**2 - stop.ratio**2)
        *inside, last = single_step(now, target, process, order, EPS)
        noise = up * s_noise
        since = now if noise and inside else None
        stages += [*inside, Stage(last.level, then, last.states, last.x0, noise=noise, since=since)]
    return stages


def _orders(calls: int) -> list[int]:
    if calls == 0:
        return []
    if calls % 3 == 0:
        return [3] * (calls // 3 - 1) + [2, 1]
    return [3] * (calls // 3) + [calls % 3]


def _euler(now: Level, then: Level) -> Stage:
    a, b = first_order(now, then)
    return Stage(now, then, (a,), (b,))


SOLVER = DPMFast
