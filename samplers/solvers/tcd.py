"""Strategic stochastic sampling of trajectory consistency distillation: Zheng et al. 2024 (2402.19159), algorithm 4.

A step from t to t' goes along the trajectory to s = (1 − γ)·t', below t', and adds noise back up to t'. γ = 0 is DDIM;
γ = 1 goes to the model's lowest time each time, much as consistency sampling does. If the model's x0 leads exactly
along its trajectory to s, the result has the law of the data after any number of steps. On a model that is not
distilled the trajectory step is one Euler step, which for γ > 0 stays long however many steps there are: the law is
narrower than the data's, and more steps mend little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order

ROUNDINGS = ("none", "diffusers")


@dataclass(frozen=True)
class TCD(Solver):
    """`eta` is the paper's γ, from 0 to 1 (the field's code calls it eta). s is a time of the model, fractional or
    rounded down as diffusers does. A step to σ = 0 ends there and draws nothing.
    """

    eta: float = 0.3
    rounding: str = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} of tcd must lie between 0 (DDIM) and 1 (to the clean end in every step)")
        self._one_of("rounding", ROUNDINGS)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps, stochastic=self.eta > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            ratio = _below(levels, then, self.eta, self.rounding)
            down = Level(then.alpha, then.alpha * ratio, then.time)
            a, b = first_order(now, down)
            noise = then.alpha * math.sqrt(max(0.0, then.ratio**2 - ratio**2))
            stages.append(Stage(now, then, (a,), (b,), noise))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _below(levels: NoiseLevels, then: Level, eta: float, rounding: str) -> float:
    """σ/α at s."""
    if then.sigma == 0 or eta == 0:
        return then.ratio
    time = (1 - eta) * then.time
    time = math.floor(time) if rounding == "diffusers" else time
    return min(then.ratio, float(levels.process.ratio(time)))


SOLVER = TCD
