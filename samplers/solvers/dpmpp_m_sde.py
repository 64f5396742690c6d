"""DPM-Solver++ multistep for the diffusion SDE: Lu et al. 2022 (2211.01095), section 5, with k-diffusion's η.

In y = x/α and λ = log(α/σ) the SDE dy = (1+η)·(x0 − y) dλ + e^{−λ}·√(2η) dW keeps the marginals for every η ≥ 0; x0 is
extrapolated from the calls before, the rest is solved exactly. η = 0 is DPM-Solver++ 2M or 3M.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import SOLVER_TYPES, X0, divided
from samplers.solvers.parts.noise_split import sde_step


@dataclass(frozen=True)
class DPMppMSDE(Solver):
    """x' = (σ'/σ)e^{−ηh}·x + α'·(weights of the last x0, which add up to 1 − e^{−(1+η)h}) + σ'·√(1 − e^{−2ηh})·n.

    `solver_type`: how the difference of the last two x0 is weighted in a second-order step, midpoint or heun (its exact
    integral, as 3M has it). `lower_order_final` as in dpmpp. `exact` gives order 3 the factor 2 that the published
    second difference lacks. A step to σ = 0 is first order and draws nothing: x becomes x0.
    """

    order: int = 2
    eta: float = 1.0
    s_noise: float = 1.0
    solver_type: str = "midpoint"
    lower_order_final: bool | int | str = False
    exact: bool = False

    def __post_init__(self) -> None:
        self._one_of("order", (1, 2, 3))
        self._one_of("solver_type", SOLVER_TYPES)
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        order = self.order if self.exact and self.eta == 0 else min(self.order, 2)
        return Capabilities(order, nfe=steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            p = min(self.order, k + 1, levels.steps - k if lowers else self.order, 1 if then.sigma == 0 else self.order)
            past = [levels[k - j] for j in range(p)]
            a, noise = sde_step(now, then, self.eta)
            x0 = [then.alpha - now.alpha * a]
            if p > 1:
                h = then.lam - now.lam
                r = [(newer.lam - older.lam) / h for newer, older in pairwise(past)]
                weights = divided(r, (1 + self.eta) * h, X0, self.solver_type, self.exact)
                older = [then.alpha * weight for weight in weights]
                x0 = [x0[0] - sum(older), *older]
            stages.append(Stage(now, then, (a,), tuple(x0), noise * self.s_noise))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = DPMppMSDE
