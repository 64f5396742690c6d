"""Linear multistep: Adams–Bashforth with variable steps on dx/dσ = ε, as k-diffusion's sample_lms.

The step integrates the polynomial in σ through the last ε exactly. k-diffusion and diffusers integrate it numerically
with a relative tolerance of 1e-4, where the integrand is a cubic at most and two Gauss points are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import adams, combined

MAX_ORDER = 4


@dataclass(frozen=True)
class LMS(Solver):
    """One call a step; the first steps have the orders 1, 2, … A step to σ = 0 extrapolates like any other."""

    order: int = 4

    def __post_init__(self) -> None:
        self._one_of("order", range(1, MAX_ORDER + 1))

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order, nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            then = levels[k + 1]
            calls = [levels[k - j] for j in range(min(self.order, k + 1)) if j == 0 or levels.alpha[k - j] > 0]
            weights = adams([call.ratio for call in calls], calls[0].ratio, then.ratio) if len(calls) > 1 else ()
            noise = {j: then.alpha * weight for j, weight in enumerate(weights) if j}
            stages.append(Stage(calls[0], then, *combined(then, calls, noise=noise)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = LMS
