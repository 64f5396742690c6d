"""DPM-Solver-2 as k-diffusion has it: the midpoint method in σ with its middle in log σ.

After Lu et al. 2022 (2206.00927), algorithm 1, and Karras et al. 2022 (2206.00364), algorithm 2, whose churn it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.churn import Churned
from samplers.solvers.parts.coefficients import combined, only_first_order


@dataclass(frozen=True)
class DPM2(Churned):
    """Two calls a step, the second at σ^{1−r}·σ'^r; one (Euler) where the step ends at σ = 0 or begins at pure noise.

    x'/α' = x/α + (σ' − σ)·(ε₀ + (ε_r − ε₀)/(2r)): r = 1/2 is k-diffusion's, other r are diff-sampler's.
    """

    r: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.r <= 1:
            raise ValueError(f"r={self.r} of dpm2 must lie above 0 and at most at 1 (the end of the step)")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=2 * steps, stochastic=self.churns)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, churn = self.raised(levels, k)
            then = levels[k + 1]
            single = only_first_order(now, then)
            middle = then if single else levels.process.level(now.ratio ** (1 - self.r) * then.ratio**self.r)
            a, b = first_order(now, middle)
            stages.append(Stage(now, middle, (a,), (b,), churn=churn))
            if not single:
                weight = then.alpha * (then.ratio - now.ratio) / (2 * self.r)
                stages.append(Stage(middle, then, *combined(then, (middle, now), noise={0: weight}, base=1)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = DPM2
