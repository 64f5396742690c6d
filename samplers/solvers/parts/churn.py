"""Churn: noise added before a call, Karras et al. 2022 (2206.00364), algorithm 2, lines 4 to 6."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.solver import Solver


@dataclass(frozen=True)
class Churned(Solver):
    """A solver with churn: where σ/α lies in [s_tmin, s_tmax] it is raised by γ = min(s_churn/N, √2−1), with noise of
    standard deviation s_noise. Without churn nothing is drawn."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        self._not_negative("s_churn", "s_tmin", "s_tmax", "s_noise")

    @property
    def churns(self) -> bool:
        """Whether it may draw noise."""
        return self.s_churn > 0 and self.s_noise > 0

    def raised(self, levels: NoiseLevels, k: int) -> tuple[Level, tuple[float, float]]:
        """The level σ̂ = σ(1+γ) and the churn that leads there, x̂/α̂ = x/α + √(σ̂² − σ²)·s_noise·n; else as it is."""
        now, gamma = levels[k], min(self.s_churn / levels.steps, math.sqrt(2) - 1)
        if not (gamma > 0 and now.alpha > 0 and self.s_tmin <= now.ratio <= self.s_tmax):
            return now, (1.0, 0.0)
        hat = levels.process.level(now.ratio * (1 + gamma))
        return hat, (hat.alpha / now.alpha, hat.alpha * self.s_noise * now.ratio * math.sqrt((1 + gamma) ** 2 - 1))
