"""Euler steps of the probability-flow ODE with churn: Karras et al. 2022 (2206.00364), algorithm 2 without line 6.

The same method in every clock: on a rectified flow (2403.03206) it is the Euler step in t.
"""

from __future__ import annotations

import math

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.churn import Churn


def capabilities(
    steps: int, *, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Capabilities:
    return Capabilities(order=1, nfe=steps, stochastic=Churn(s_churn, s_tmin, s_tmax, s_noise).draws)


def plan(
    levels: NoiseLevels, *, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """One Euler step a level; where σ/α lies in [s_tmin, s_tmax] the noise is first raised by γ = min(s_churn/N, √2−1).

    The denoiser is called at the raised level, as the paper and k-diffusion do. No churn, no draw.
    """
    churning = Churn(s_churn, s_tmin, s_tmax, s_noise)
    stages = []
    for k in range(levels.steps):
        now, churn = churning.raised(levels, k)
        a, b = first_order(now, levels[k + 1])
        stages.append(Stage(now, levels[k + 1], (a,), (b,), churn=churn))
    knobs = {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, **knobs))
