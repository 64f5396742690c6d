"""DPM-Solver-2 as k-diffusion has it: the midpoint method in σ with its middle in log σ.

After Lu et al. 2022 (2206.00927), algorithm 1, and Karras et al. 2022 (2206.00364), algorithm 2, whose churn it has.
"""

from __future__ import annotations

import math

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.churn import Churn
from samplers.solvers.parts.coefficients import combined, only_first_order


def capabilities(
    steps: int,
    *,
    r: float = 0.5,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Capabilities:
    return Capabilities(order=2, nfe=2 * steps, stochastic=Churn(s_churn, s_tmin, s_tmax, s_noise).draws)


def plan(
    levels: NoiseLevels,
    *,
    r: float = 0.5,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Plan:
    """Two calls a step, the second at σ^{1−r}·σ'^r; one (Euler) where the step ends at σ = 0 or begins at pure noise.

    x'/α' = x/α + (σ' − σ)·(ε₀ + (ε_r − ε₀)/(2r)): r = 1/2 is k-diffusion's, other r are diff-sampler's.
    """
    if not 0 < r <= 1:
        raise ValueError(f"r={r} of dpm2 must lie above 0 and at most at 1 (the end of the step)")
    churning = Churn(s_churn, s_tmin, s_tmax, s_noise)
    stages = []
    for k in range(levels.steps):
        now, churn = churning.raised(levels, k)
        then = levels[k + 1]
        single = only_first_order(now, then)
        middle = then if single else levels.process.level(now.ratio ** (1 - r) * then.ratio**r)
        a, b = first_order(now, middle)
        stages.append(Stage(now, middle, (a,), (b,), churn=churn))
        if not single:
            weight = then.alpha * (then.ratio - now.ratio) / (2 * r)
            stages.append(Stage(middle, then, *combined(then, (middle, now), noise={0: weight}, base=1)))
    knobs = {"r": r, "s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, **knobs))
