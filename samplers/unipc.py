"""UniPC: Zhao et al. 2023 (2302.04867), in x0-prediction.

Predictor and corrector of one step start from the same state, so the corrected state differs from the predicted one by
denoiser outputs alone. This step's corrector and the next step's predictor therefore fold into one combination of the
predicted state and the history: one call and one stage a step, and a state that was blended on the way stays blended.
"""

from __future__ import annotations

import math

import numpy as np

from samplers.levels import Level, NoiseLevels
from samplers.plan import Capabilities, Plan, Stage, first_order, is_lowered

VARIANTS = ("bh1", "bh2", "vary_coeff")
MAX_ORDER = 5


def capabilities(
    steps: int,
    *,
    order: int = 2,
    variant: str = "bh2",
    corrector: bool = True,
    disable_corrector: int = 0,
    lower_order_final: bool | int = True,
) -> Capabilities:
    return Capabilities(order=order + bool(corrector), nfe=steps)


def plan(
    levels: NoiseLevels,
    *,
    order: int = 2,
    variant: str = "bh2",
    corrector: bool = True,
    disable_corrector: int = 0,
    lower_order_final: bool | int = True,
) -> Plan:
    """UniPC-`order`: UniP-p with UniC-p behind it, of order p+1.

    `variant`: B(h) = h (bh1) or e^h − 1 (bh2) where the paper fixes a coefficient at 1/2 (second-order predictor,
    first-order corrector), or the exact coefficient there (vary_coeff, "UniPC_v"; the authors' code leaves out terms
    of this corrector above order 1). Higher orders solve for the coefficients, and there the three agree.
    `disable_corrector`: so many first steps go uncorrected. `lower_order_final`: lower the order in the last steps
    always, never, or in runs of fewer steps than this number.
    """
    _check(order, variant, disable_corrector)
    lowers = is_lowered(lower_order_final, levels.steps)
    _check_end(levels, order, lowers)
    stages, correction = [], (0.0,)  # what corrects the present state: weights of the outputs, newest first
    for k in range(levels.steps):
        p = min(order, k + 1, levels.steps - k if lowers else order)
        past = [levels[k - j] for j in range(p)]
        now, then = levels[k], levels[k + 1]
        a, _ = first_order(now, then)
        predictor = _predictor(past, then, variant)
        stages.append(Stage(now, then, (a,), _add(predictor, tuple(a * c for c in correction))))
        corrected = corrector and k >= disable_corrector and k + 1 < levels.steps
        behind = _corrector(past, then, variant) if corrected else (0.0, *predictor)
        correction = _add(behind, (0.0, *(-b for b in predictor)))
    declared = capabilities(levels.steps, order=order, corrector=corrector)
    return Plan(levels[0], tuple(stages), declared)


def _check(order: int, variant: str, disable_corrector: int) -> None:
    if isinstance(order, bool) or order not in range(1, MAX_ORDER + 1):
        raise ValueError(f"order={order} of unipc is not to be had; valid: 1 to {MAX_ORDER}")
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} of unipc is unknown; valid: {', '.join(VARIANTS)}")
    if isinstance(disable_corrector, bool) or not isinstance(disable_corrector, int) or disable_corrector < 0:
        raise ValueError(f"disable_corrector={disable_corrector!r} of unipc must be a number of first steps")


def _check_end(levels: NoiseLevels, order: int, lowers: bool) -> None:
    if levels.sigma[-1] == 0 and min(order, levels.steps) > 1 and not lowers:
        raise ValueError(
            f"unipc of order {order} cannot step to sigma 0 without a lower final order (its coefficients are infinite "
            f"there, {levels.steps} steps): set lower_order_final=true or let the schedule end at sigma_min"
        )


def _predictor(past: list[Level], then: Level, variant: str) -> tuple[float, ...]:
    """UniP (eq. 3): weights of D_0, D_1, … in the predicted state."""
    if len(past) == 1:
        return (first_order(past[0], then)[1],)
    h = then.lam - past[0].lam
    r = [(level.lam - past[0].lam) / h for level in past[1:]]
    fixed = len(past) == 2 and variant != "vary_coeff"
    return _combined(past[0], then, r, [_scale(h, variant) / 2] if fixed else _solved(r, h))


def _corrector(past: list[Level], then: Level, variant: str) -> tuple[float, ...]:
    """UniC (eq. 5): weights of the output at the new level and of D_0, D_1, … in the corrected state."""
    h = then.lam - past[0].lam
    r = [*((level.lam - past[0].lam) / h for level in past[1:]), 1.0]
    fixed = len(past) == 1 and variant != "vary_coeff"
    *older, new = _differences(past[0], then, r, [_scale(h, variant) / 2] if fixed else _solved(r, h))
    return (new, first_order(past[0], then)[1] - new - sum(older), *older)


def _combined(now: Level, then: Level, r: list[float], rho: list[float]) -> tuple[float, ...]:
    older = _differences(now, then, r, rho)
    return (first_order(now, then)[1] - sum(older), *older)


def _differences(now: Level, then: Level, r: list[float], rho: list[float]) -> list[float]:
    """Weights of D_m in Σ_m α'·ρ_m·(D_m − D_0)/r_m; every D_m takes as much from D_0 as it adds."""
    return [then.alpha * weight / ratio for weight, ratio in zip(rho, r, strict=True)]


def _scale(h: float, variant: str) -> float:
    """−B(−h) of the paper in x0-prediction."""
    return h if variant == "bh1" else -math.expm1(-h)


def _solved(r: list[float], h: float) -> list[float]:
    """ρ for which Σ ρ_m·r_m^n = n-th moment of the exact integral, n = 0…: B(h) drops out."""
    moments = [h * math.factorial(n + 1) * _phi(n + 2, -h) for n in range(len(r))]
    return np.linalg.solve(np.vander(r, increasing=True).T, moments).tolist()


def _phi(n: int, z: float) -> float:
    """φ_n(z) = ∫₀¹ e^{(1−s)z} s^{n−1}/(n−1)! ds, by its series near 0 where the recursion cancels."""
    if abs(z) < 2:
        return sum(z**j / math.factorial(n + j) for j in range(30))
    value = math.expm1(z) / z
    for m in range(1, n):
        value = (value - 1 / math.factorial(m)) / z
    return value


def _add(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return tuple(v + (shorter[j] if j < len(shorter) else 0.0) for j, v in enumerate(longer))
