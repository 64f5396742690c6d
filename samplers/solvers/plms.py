"""PLMS: linear multistep of PNDM, Liu et al. 2022 (2202.09778), on ε = (x − α·x0)/σ.

The transfer of eq. 9 from (α, σ) to (α', σ'), x' = (α'/α)x + (σ' − σα'/α)ε, is fed with Adams–Bashforth's combination
of the last four ε, as if the levels were evenly spaced in their clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import ADAMS, combined

WARMUPS = ("repeat", "prk")
PRK_STEPS = 3  # after which four-step Adams–Bashforth has its history


@dataclass(frozen=True)
class PLMS(Solver):
    """`warmup="repeat"`: the first step is done twice, the second time with the mean of the ε at its two ends (Heun);
    N+1 calls, as in Stable Diffusion. `"prk"`: the first three steps are pseudo Runge–Kutta (eq. 13), four calls each.
    """

    warmup: str = "repeat"

    def __post_init__(self) -> None:
        self._one_of("warmup", WARMUPS)

    def declares(self, steps: int) -> Capabilities:
        extra = 3 * min(steps - 1, PRK_STEPS) if self.warmup == "prk" else int(steps > 1)
        return Capabilities(order=2, nfe=steps + extra)

    def plan(self, levels: NoiseLevels) -> Plan:
        table = _Table()
        start = _prk if self.warmup == "prk" else _repeat
        done = start(table, levels)
        for k in range(done, levels.steps):
            table.call(levels[k])
            recent = table.history[-4:][::-1]
            table.move(levels[k], levels[k + 1], table.newest(), dict(zip(recent, ADAMS[len(recent) - 1], strict=True)))
        return Plan(levels[0], tuple(table.stages), self.declares(levels.steps))


class _Table:
    """Writes stages: calls have numbers, and a move says from which call's state and along which calls' ε it goes."""

    def __init__(self) -> None:
        self.levels: list[Level] = []  # the level of every call
        self.history: list[int] = []  # the calls that Adams–Bashforth uses
        self.stages: list[Stage] = []

    def newest(self) -> int:
        return len(self.levels) - 1

    def call(self, level: Level, remember: bool = True) -> int:
        self.levels.append(level)
        if remember:
            self.history.append(self.newest())
        return self.newest()

    def move(self, now: Level, then: Level, origin: int, weights: dict[int, float]) -> None:
        """From the state of call `origin` at `now` along Σ weight·ε of the calls; the weights add up to 1."""
        newest = self.newest()
        calls = self.levels[::-1]
        others = {newest - call: weight for call, weight in weights.items() if call != origin}
        along = then.sigma - now.sigma * (then.alpha / now.alpha) if others else 0.0
        noise = {ago: along * weight for ago, weight in others.items()}
        self.stages.append(Stage(calls[0], then, *combined(then, calls, noise=noise, base=newest - origin)))


def _repeat(table: _Table, levels: NoiseLevels) -> int:
    if levels.steps == 1 or levels.alpha[0] == 0:
        return 0
    first = table.call(levels[0])
    table.move(levels[0], levels[1], first, {first: 1.0})
    again = table.call(levels[1], remember=False)
    table.move(levels[0], levels[1], first, {first: 0.5, again: 0.5})
    return 1


def _prk(table: _Table, levels: NoiseLevels) -> int:
    steps = min(levels.steps - 1, PRK_STEPS)  # the last step may end at σ = 0, where ε is not defined
    for k in range(steps):
        now, then = levels[k], levels[k + 1]
        process = levels.process
        middle = process.level(float(process.ratio((now.time + then.time) / 2)))
        e1 = table.call(now)
        table.move(now, middle, e1, {e1: 1.0})
        e2 = table.call(middle, remember=False)
        table.move(now, middle, e1, {e2: 1.0})
        e3 = table.call(middle, remember=False)
        table.move(now, then, e1, {e3: 1.0})
        e4 = table.call(then, remember=False)
        table.move(now, then, e1, {e1: 1 / 6, e2: 1 / 3, e3: 1 / 3, e4: 1 / 6})
    return steps


SOLVER = PLMS
