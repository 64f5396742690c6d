"""SEEDS-2, Gonzalez et al. 2023 (2305.14267), on x0: two exponential stages a step on one Brownian path."""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities
from samplers.solvers.parts.coefficients import only_first_order
from samplers.solvers.parts.seeds import Step

SOLVER_TYPES = ("phi_1", "phi_2")


@dataclass(frozen=True)
class SEEDS2(Solver):
    """`r`: where in λ the second call lies, above 0 to 1. `solver_type`: the slope of x0 weighs half of a constant
    (phi_1, as DPM-Solver++ 2S) or its exact integral (phi_2). A step to σ = 0 or from pure noise is first order.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r: float = 0.5
    solver_type: str = "phi_1"

    def __post_init__(self) -> None:
        if not 0 < self.r <= 1:
            raise ValueError(f"r={self.r} of seeds_2 must lie above 0 and at most at 1 (the whole step)")
        self._one_of("solver_type", SOLVER_TYPES)
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=2 * steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            step = Step(now, self.eta, self.s_noise)
            if only_first_order(now, then):
                step.move(then)
            else:
                mid = then if self.r == 1 else levels.process.level(now.ratio * (then.ratio / now.ratio) ** self.r)
                step.move(mid)
                slope = step.whole(then) / 2 if self.solver_type == "phi_1" else step.slope(then)
                step.move(then, {0: slope / self.r})
            stages += step.stages
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = SEEDS2
