"""DDIM: Song et al. 2020 (2010.02502), eq. 12 with the variance of eq. 16, for any scaling of the state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage


@dataclass(frozen=True)
class DDIM(Solver):
    """x' = α'·x0 + √(σ'² − s²)·ε + s·n with s = η·σ'·√(1 − ρ²), ρ = (σ'/α')/(σ/α).

    η = 0 is deterministic, and Euler's method; η = 1 has the posterior variance of DDPM. No noise where s is 0.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} of ddim must lie between 0 (deterministic) and 1 (DDPM)")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps, stochastic=self.eta > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            fresh = math.sqrt(1 - (then.ratio / now.ratio) ** 2) if self.eta else 0.0  # none on levels that rise
            share = self.eta * fresh  # of the new noise, s/σ'
            along = then.sigma * math.sqrt(1 - share**2)  # along ε = (x − α·x0)/σ
            a = along / now.sigma
            stages.append(Stage(now, then, (a,), (then.alpha - now.alpha * a,), noise=share * then.sigma))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = DDIM
