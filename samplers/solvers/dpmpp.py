"""DPM-Solver++ multistep: Lu et al. 2022 (2211.01095), algorithm 2 (2M) and its third-order relative (3M).

The exact solution in λ = log(α/σ) is x' = (σ'/σ)x + σ' ∫ e^λ x0(λ) dλ; x0 is extrapolated from the calls before.
"""

from __future__ import annotations

from itertools import pairwise

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import SOLVER_TYPES, X0, combined, divided


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
    """`lower_order_final` as in `is_lowered`: lower the order in the last steps always, never, in runs of fewer steps
    than this number, or where the run ends at σ = 0.

    A step to σ = 0 is first order in any case: x becomes x0. `exact` gives order 3 the factor 2 that the published
    second difference lacks; without it 3M converges with order 2.
    """
    if isinstance(order, bool) or order not in (1, 2, 3):
        raise ValueError(f"order={order} of dpmpp is not to be had; valid: 1, 2, 3")
    if solver_type not in SOLVER_TYPES:
        raise ValueError(f"solver_type={solver_type!r} of dpmpp is unknown; valid: {', '.join(SOLVER_TYPES)}")
    lowers = is_lowered(lower_order_final, levels)
    stages = []
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        p = min(order, k + 1, levels.steps - k if lowers else order, 1 if then.sigma == 0 else order)
        calls = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
        x0 = {}
        if len(calls) > 1:
            h = then.lam - now.lam
            r = [(newer.lam - older.lam) / h for newer, older in pairwise(calls)]
            x0 = {j: then.alpha * weight for j, weight in enumerate(divided(r, h, X0, solver_type, exact), 1)}
        stages.append(Stage(now, then, *combined(then, calls, x0=x0)))
    declared = capabilities(levels.steps, order=order, exact=exact)
    return Plan(levels[0], tuple(stages), declared)
