"""Exponential Heun in x0 and log SNR: SEEDS-2 of Gonzalez et al. 2023 (2305.14267) without noise, with r = 1.

ComfyUI's exp_heun_2_x0; of the single-step residual solvers of 2308.02157 the one with its second node at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.coefficients import X0, combined, only_first_order, within

SOLVER_TYPES = {"phi_1": "midpoint", "phi_2": "heun"}


@dataclass(frozen=True)
class ExpHeun(Solver):
    """Two calls a step, one where the step ends at σ = 0 or begins at pure noise.

    phi_2 integrates the line through x0 at both ends of the step, phi_1 the mean of the two.
    """

    solver_type: str = "phi_2"

    def __post_init__(self) -> None:
        self._one_of("solver_type", SOLVER_TYPES)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=2 * steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            a, b = first_order(now, then)
            stages.append(Stage(now, then, (a,), (b,)))
            if not only_first_order(now, then):
                weights = within([1.0], then.lam - now.lam, X0, SOLVER_TYPES[self.solver_type])
                x0 = {j: then.alpha * weight for j, weight in weights.items()}
                stages.append(Stage(then, then, *combined(then, (then, now), x0=x0, base=1)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = ExpHeun
