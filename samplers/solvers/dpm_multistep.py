"""DPM-Solver multistep on ε: Lu et al. 2022 (2206.00927), in the multistep form of 2211.01095, appendix B.

The exact solution in λ = log(α/σ) is x' = (α'/α)x − α' ∫ e^{−λ} ε(λ) dλ; ε is extrapolated from the calls before.
"""

from __future__ import annotations

from itertools import pairwise

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import EPS, SOLVER_TYPES, combined, divided


def capabilities(
    steps: int,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool | int | str = 15,
    exact: bool = False,
) -> Capabilities:
    return Capabilities(order=order if exact else min(order, 2), nfe=steps)


def plan(
    levels: NoiseLevels,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool | int | str = 15,
    exact: bool = False,
) -> Plan:
    """`lower_order_final` as in `is_lowered`; a step to σ = 0 is first order in any case: x becomes x0.

    `exact` gives order 3 the factor 2 that the published second difference lacks.
    """
    if isinstance(order, bool) or order not in (1, 2, 3):
        raise ValueError(f"order={order} of dpm_multistep is not to be had; valid: 1, 2, 3")
    if solver_type not in SOLVER_TYPES:
        raise ValueError(f"solver_type={solver_type!r} of dpm_multistep is unknown; valid: {', '.join(SOLVER_TYPES)}")
    lowers = is_lowered(lower_order_final, levels)
    stages = []
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        p = min(order, k + 1, levels.steps - k if lowers else order, 1 if then.sigma == 0 else order)
        calls = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
        noise = {}
        if len(calls) > 1:
            h = then.lam - now.lam
            r = [(newer.lam - older.lam) / h for newer, older in pairwise(calls)]
            weights = divided(r, h, EPS, solver_type, exact)
            noise = {j: -then.sigma * weight for j, weight in enumerate(weights, 1)}
        stages.append(Stage(now, then, *combined(then, calls, noise=noise)))
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, order=order, exact=exact))
