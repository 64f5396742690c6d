"""Linear multistep: Adams–Bashforth with variable steps on dx/dσ = ε, as k-diffusion's sample_lms.

The step integrates the polynomial in σ through the last ε exactly. k-diffusion and diffusers integrate it numerically
with a relative tolerance of 1e-4, where the integrand is a cubic at most and two Gauss points are exact.
"""

from __future__ import annotations

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import adams, combined

MAX_ORDER = 4


def capabilities(steps: int, *, order: int = 4) -> Capabilities:
    return Capabilities(order=order, nfe=steps)


def plan(levels: NoiseLevels, *, order: int = 4) -> Plan:
    """One call a step; the first steps have the orders 1, 2, … A step to σ = 0 extrapolates like any other."""
    if isinstance(order, bool) or order not in range(1, MAX_ORDER + 1):
        raise ValueError(f"order={order} of lms is not to be had; valid: 1 to {MAX_ORDER}")
    stages = []
    for k in range(levels.steps):
        then = levels[k + 1]
        calls = [levels[k - j] for j in range(min(order, k + 1)) if j == 0 or levels.alpha[k - j] > 0]
        weights = adams([call.ratio for call in calls], calls[0].ratio, then.ratio) if len(calls) > 1 else ()
        noise = {j: then.alpha * weight for j, weight in enumerate(weights) if j}
        stages.append(Stage(calls[0], then, *combined(then, calls, noise=noise)))
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, order=order))
