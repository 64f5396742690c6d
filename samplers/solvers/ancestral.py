"""Ancestral sampling: a deterministic step to below the next level, and fresh noise back up to it.

Euler a, DPM2 a and DPM++ 2S a as k-diffusion has them. With r = σ/α, a step from r to r' goes down to r↓ and adds noise
of r↑, where r↓² + r↑² = r'². With Euler's step, η = 1 is the posterior of DDPM (2006.11239, eq. 6 and 7); η = 0 is the
deterministic method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.clock import CLOCKS, level_at, reading, scale
from samplers.solvers.parts.noise_split import split

METHODS = ("euler", "dpm2", "dpmpp_2s")


@dataclass(frozen=True)
class Ancestral(Solver):
    """`method` goes down: Euler, DPM-Solver-2 (midpoint rule, middle of log clock) or DPM-Solver++(2S).

    `clock="sigma"` (k-diffusion): r↑ = η·r'·√(1 − (r'/r)²), at most r'. `"flow"` (ComfyUI on rectified flows), with
    t = σ/(α+σ): t↓ = t'·(1 − η·(1 − t'/t)), and dpm2 integrates in t. `s_noise` multiplies the noise. No noise and one
    call for a step to σ = 0; one call, Euler's, where the middle of the step has no level (from α = 0 in λ or r).
    """

    method: str = "euler"
    eta: float = 1.0
    s_noise: float = 1.0
    clock: str = "sigma"

    def __post_init__(self) -> None:
        self._one_of("method", METHODS)
        self._not_negative("eta", "s_noise")
        self._one_of("clock", CLOCKS)

    def declares(self, steps: int) -> Capabilities:
        order = 1 if self.method == "euler" else 2  # in law too: the noise is exact, the step down is the method's
        return Capabilities(order, nfe=order * steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            down, up = split(now, then, self.eta, self.clock)
            noise = up * self.s_noise
            middle = "sigma" if self.method == "dpmpp_2s" else self.clock  # 2S halves the step in λ
            if self.method == "euler" or down.sigma == 0 or math.isinf(reading(now, middle)):
                a, b = first_order(now, down)
                stages.append(Stage(now, then, (a,), (b,), noise))
                continue
            mid = level_at(levels, math.sqrt(reading(now, middle) * reading(down, middle)), middle)
            a, b = first_order(now, mid)
            stages.append(Stage(now, mid, (a,), (b,)))
            states, x0 = _dpm2(now, mid, down, self.clock) if self.method == "dpm2" else _dpmpp_2s(now, down)
            stages.append(Stage(mid, then, states, x0, noise, since=now if noise else None))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _dpm2(now: Level, mid: Level, down: Level, clock: str) -> tuple[tuple[float, float], tuple[float]]:
    """z↓ = z + (c↓ − c)·(z_mid − D_mid)/c_mid."""
    reach = (reading(down, clock) - reading(now, clock)) / reading(mid, clock)
    to = scale(down, clock)
    return (to * reach / scale(mid, clock), to / scale(now, clock)), (-to * reach,)


def _dpmpp_2s(now: Level, down: Level) -> tuple[tuple[float, float], tuple[float]]:
    """2211.01095, algorithm 1 with r = 1/2: the whole step along the x0 of its middle."""
    a, b = first_order(now, down)
    return (0.0, a), (b,)


SOLVER = Ancestral
