"""Ancestral sampling of DDPM: Ho et al. 2020 (2006.11239), eq. 6 and 7, over any levels and scaling of the state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage

VARIANCES = ("fixed_small", "fixed_large")


@dataclass(frozen=True)
class DDPM(Solver):
    """x' = the posterior's mean given x and x0 + its noise; with r = σ/α, mean r'²/r²·x/α + (1 − r'²/r²)·x0, times α'.

    `variance`: that of the posterior, r'²(1 − r'²/r²) in units of α' (fixed_small, β̃), or that of one forward step of
    the variance-preserving process, β = 1 − ᾱ/ᾱ' (fixed_large), which is the upper bound of section 3.2. Learned
    variances are no plan. A step to σ = 0 draws nothing.
    """

    variance: str = "fixed_small"

    def __post_init__(self) -> None:
        self._one_of("variance", VARIANCES)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps, stochastic=True)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            fall = then.ratio / now.ratio
            noise = then.sigma * math.sqrt(1 - fall**2)
            a = then.sigma * fall / now.sigma
            if self.variance == "fixed_large" and then.sigma:
                noise = then.alpha * math.sqrt(_large(now.ratio, then.ratio))
            stages.append(Stage(now, then, (a,), (then.alpha - now.alpha * a,), noise))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _large(above: float, below: float) -> float:
    """β/ᾱ' of the variance-preserving process with these σ/α: (r² − r'²)(1 + r'²)/(1 + r²)."""
    left = 0.0 if math.isinf(above) else (1 + below**2) / (1 + above**2)  # ᾱ/ᾱ'
    return (1 - left) * (1 + below**2)


SOLVER = DDPM
