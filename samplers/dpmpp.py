"""DPM-Solver++ multistep: Lu et al. 2022 (2211.01095), algorithm 2 (2M) and its third-order relative (3M).

The exact solution in λ = log(α/σ) is x' = (σ'/σ)x + σ' ∫ e^λ x0(λ) dλ; x0 is extrapolated from the calls before.
"""

from __future__ import annotations

import math

from samplers.levels import Level, NoiseLevels
from samplers.plan import Capabilities, Plan, Stage, first_order, is_lowered

SOLVER_TYPES = ("midpoint", "heun")


def capabilities(
    steps: int,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool | int = 15,
    exact: bool = False,
) -> Capabilities:
    return Capabilities(order=order if exact else min(order, 2), nfe=steps)


def plan(
    levels: NoiseLevels,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool | int = 15,
    exact: bool = False,
) -> Plan:
    """`lower_order_final`: lower the order in the last steps always, never, or in runs of fewer steps than this number.

    A step to σ = 0 is first order in any case: x becomes x0. `exact` gives order 3 the factor 2 that the published
    second difference lacks; without it 3M converges with order 2.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order} of dpmpp is not to be had; valid: 1, 2, 3")
    if solver_type not in SOLVER_TYPES:
        raise ValueError(f"solver_type={solver_type!r} of dpmpp is unknown; valid: {', '.join(SOLVER_TYPES)}")
    lowers = is_lowered(lower_order_final, levels.steps)
    stages = []
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        p = min(order, k + 1, levels.steps - k if lowers else order, 1 if then.sigma == 0 else order)
        past = [levels[k - j] for j in range(p)]
        a, b = first_order(now, then)
        x0 = (b,) if p == 1 else _second(past, then, solver_type) if p == 2 else _third(past, then, exact)
        stages.append(Stage(now, then, (a,), x0))
    declared = capabilities(levels.steps, order=order, exact=exact)
    return Plan(levels[0], tuple(stages), declared)


def _second(past: list[Level], then: Level, solver_type: str) -> tuple[float, ...]:
    """Eq. (4.2) of the paper: D0 + D1/2 (midpoint), or D1 weighted by its exact integral (heun)."""
    h, r = then.lam - past[0].lam, (past[0].lam - past[1].lam) / (then.lam - past[0].lam)
    zero = -math.expm1(-h)
    one = zero / 2 if solver_type == "midpoint" else 1 - zero / h
    return then.alpha * (zero + one / r), -then.alpha * one / r


def _third(past: list[Level], then: Level, exact: bool) -> tuple[float, ...]:
    """Divided differences D1, D2 of the last three x0; `exact` integrates the parabola through them."""
    h = then.lam - past[0].lam
    r0, r1 = (past[0].lam - past[1].lam) / h, (past[1].lam - past[2].lam) / h
    zero = -math.expm1(-h)
    one = 1 - zero / h
    two = (0.5 - (h - zero) / h**2) * (2 if exact else 1)
    # D1 = d0 + r0/(r0+r1)·(d0−d1), D2 = (d0−d1)/(r0+r1) with d0 = (m0−m1)/r0, d1 = (m1−m2)/r1
    on_d0 = one + (one * r0 + two) / (r0 + r1)
    on_d1 = -(one * r0 + two) / (r0 + r1)
    weights = (zero + on_d0 / r0, -on_d0 / r0 + on_d1 / r1, -on_d1 / r1)
    return tuple(then.alpha * w for w in weights)
