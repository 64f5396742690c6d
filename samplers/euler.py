"""Euler steps of the probability-flow ODE with churn: Karras et al. 2022 (2206.00364), algorithm 2 without line 6."""

from __future__ import annotations

import math

from samplers.levels import Level, NoiseLevels
from samplers.plan import Capabilities, Plan, Stage, first_order


def capabilities(
    steps: int, *, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Capabilities:
    return Capabilities(order=1, nfe=steps, stochastic=s_churn > 0 and s_noise > 0)


def plan(
    levels: NoiseLevels, *, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """One Euler step a level; where σ/α lies in [s_tmin, s_tmax] the noise is first raised by γ = min(s_churn/N, √2−1).

    The denoiser is called at the raised level, as the paper and k-diffusion do. No churn, no draw.
    """
    if min(s_churn, s_tmin, s_tmax, s_noise) < 0:
        raise ValueError("s_churn, s_tmin, s_tmax and s_noise of euler must not be negative")
    gamma = min(s_churn / levels.steps, math.sqrt(2) - 1)
    stages = []
    for k in range(levels.steps):
        now, then, churn = levels[k], levels[k + 1], (1.0, 0.0)
        if gamma > 0 and s_tmin <= now.ratio <= s_tmax:
            now, churn = _raised(now, gamma, s_noise, levels)
        a, b = first_order(now, then)
        stages.append(Stage(now, then, (a,), (b,), churn=churn))
    knobs = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, **knobs))


def _raised(now: Level, gamma: float, s_noise: float, levels: NoiseLevels) -> tuple[Level, tuple[float, float]]:
    """The level σ̂ = σ(1+γ) and the churn that leads there: x̂/α̂ = x/α + √(σ̂² − σ²)·s_noise·n."""
    hat = levels.process.level(now.ratio * (1 + gamma))
    return hat, (hat.alpha / now.alpha, hat.alpha * s_noise * now.ratio * math.sqrt((1 + gamma) ** 2 - 1))
