"""iPNDM: Adams–Bashforth of up to four ε with the weights of equal steps, Zhang & Chen 2022 (2204.13902), appendix.

As diff-sampler and ComfyUI have it: in σ, with orders 1, 2, 3 at the start. On steps that are not equal the weights
miss the first moment by O(h²), so beyond max_order = 1 the order is 2 whatever max_order, unless σ is evenly spaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import ADAMS, combined

MAX_ORDER = 4


@dataclass(frozen=True)
class IPNDM(Solver):
    """x'/α' = x/α + (σ' − σ)·Σ w_j·ε_j, σ here σ/α; a step to σ = 0 takes x0."""

    max_order: int = 4

    def __post_init__(self) -> None:
        self._one_of("max_order", range(1, MAX_ORDER + 1))

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=min(self.max_order, 2), nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            p = 1 if then.sigma == 0 else min(self.max_order, k + 1)
            calls = [levels[k - j] for j in range(p)]
            along = then.alpha * (then.ratio - now.ratio) if p > 1 else 0.0
            noise = {j: along * weight for j, weight in enumerate(ADAMS[p - 1]) if j}
            stages.append(Stage(now, then, *combined(then, calls, noise=noise)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = IPNDM
