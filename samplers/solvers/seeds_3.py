"""SEEDS-3, Gonzalez et al. 2023 (2305.14267), on x0: three exponential stages a step on one Brownian path."""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities
from samplers.solvers.parts.coefficients import only_first_order
from samplers.solvers.parts.seeds import Step


@dataclass(frozen=True)
class SEEDS3(Solver):
    """`r_1` < `r_2`: where in λ the second and third call of a step lie, above 0 to 1. η = 0 is DPM-Solver++ 3S.

    A step to σ = 0 or from pure noise is first order.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r_1: float = 1 / 3
    r_2: float = 2 / 3

    def __post_init__(self) -> None:
        if not 0 < self.r_1 < self.r_2 <= 1:
            raise ValueError(
                f"r_1={self.r_1} and r_2={self.r_2} of seeds_3 must grow, above 0 and at most to 1 (the whole step)"
            )
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        noisy = self.eta > 0 and self.s_noise > 0
        return Capabilities(order=3 if self.eta == 0 else 2, nfe=3 * steps, stochastic=noisy)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            step = Step(now, self.eta, self.s_noise)
            if only_first_order(now, then):
                step.move(then)
            else:
                fall = then.ratio / now.ratio
                one = levels.process.level(now.ratio * fall**self.r_1)
                two = then if self.r_2 == 1 else levels.process.level(now.ratio * fall**self.r_2)
                step.move(one)
                step.move(two, {0: step.slope(two) * self.r_2 / self.r_1})
                step.move(then, {0: step.slope(then) / self.r_2})
            stages += step.stages
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = SEEDS3
