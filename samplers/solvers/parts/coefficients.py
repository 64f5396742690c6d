"""Numbers that solver families share: φ-functions, interpolation of past outputs, and stages along ε or x0.

Every consistent method is the first-order (DDIM) step plus weights times *differences* of outputs. `combined` builds
stages in that form, so a constant denoiser is integrated exactly whatever the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from samplers.core.levels import Level, Process
from samplers.core.stage import Stage, first_order

X0, EPS = -1, 1  # which output is interpolated: the sign in x' = a·x ∓ … ∫ e^{±λ} output dλ
SOLVER_TYPES = ("midpoint", "heun")
# Adams–Bashforth on equal steps, newest first
ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
_SERIES = 30  # terms of φ_n(z), |z| < 2: the rest is below 2^30/30!, far under rounding
_ROUNDING = 1e-12  # relative to what cancelled: a smaller residue is rounding, since no method has such coefficients
_GAUSS = (0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12))  # two points, exact for cubics


def phis(top: int, z: float) -> list[float]:
    """φ_1 … φ_top at z, φ_n(z) = ∫₀¹ e^{(1−s)z} s^{n−1}/(n−1)! ds; the recursion runs the way that does not cancel."""
    if abs(z) < 2:
        term = total = 1 / math.factorial(top)
        for j in range(1, _SERIES):
            term *= z / (top + j)
            total += term
        down = [total]
        for n in range(top - 1, 0, -1):
            down.append(z * down[-1] + 1 / math.factorial(n))
        return down[::-1]
    if math.isinf(z) and z < 0:
        return [0.0] * top
    up = [math.expm1(z) / z]
    for n in range(1, top):
        up.append((up[-1] - 1 / math.factorial(n)) / z)
    return up


def lagrange(nodes: Sequence[float] | np.ndarray, at: float | np.ndarray) -> list:
    """The value at `at` of each polynomial that is 1 at its own node and 0 at the others."""
    return [
        math.prod((at - other) / (node - other) for k, other in enumerate(nodes) if k != j)
        for j, node in enumerate(nodes)
    ]


def adams(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """∫ of the Lagrange polynomials of up to four nodes from `start` to `end`: Gauss–Legendre is exact for cubics."""
    low, high = (lagrange(nodes, start + (end - start) * g) for g in _GAUSS)
    return [(end - start) / 2 * (one + other) for one, other in zip(low, high, strict=True)]


def exponential(r: Sequence[float], h: float, sign: int) -> list[float]:
    """Weight of each (output_m − output_0) in h·∫₀¹ e^{∓h(1−s)} P(s) ds, P the polynomial through 0 and the nodes r_m.

    r_m = (λ_m − λ_0)/h. Times α' (x0) or −σ' (ε) this is the exact integral of the interpolated output: exponential
    Adams, UniP, DEIS in log ρ.
    """
    if not r:
        return []
    moments = [h * math.factorial(n) * value for n, value in enumerate(phis(len(r) + 1, sign * h)) if n]
    rho = np.linalg.solve(np.vander(r, increasing=True).T, moments)
    return (rho / np.asarray(r)).tolist()


def divided(r: Sequence[float], h: float, sign: int, solver_type: str, exact: bool) -> list[float]:
    """The same for one or two past outputs as DPM-Solver's multistep methods have it (2211.01095, appendix B).

    r are the last step lengths over h, newest first. `midpoint` takes half the zeroth integral for the first
    difference; the third order as published has half the second difference that it should, `exact` all of it.
    """
    phi = phis(len(r) + 1, sign * h)
    if len(r) == 1:
        return [-_first(h, phi, solver_type) / r[0]]
    one, two = h * phi[1], h * phi[2] * (2 if exact else 1)
    # D1 = d0 + r0/(r0+r1)·(d0−d1), D2 = (d0−d1)/(r0+r1) with d0 = (m0−m1)/r0, d1 = (m1−m2)/r1
    on_d1 = -(one * r[0] + two) / (r[0] + r[1])
    on_d0 = one - on_d1
    return [-on_d0 / r[0] + on_d1 / r[1], -on_d1 / r[1]]


def within(r: Sequence[float], h: float, sign: int, solver_type: str) -> dict[int, float]:
    """The same for outputs at fractions r of the step itself, newest first: DPM-Solver's single-step methods.

    The weights are numbered by calls ago. With two such outputs `midpoint` uses the newest alone (algorithm 3S) and
    `heun` uses both.
    """
    if len(r) == 2 and solver_type == "heun":
        return dict(enumerate(exponential(r, h, sign)))
    phi = phis(2, sign * h)
    return {0: (_first(h, phi, solver_type) if len(r) == 1 else h * phi[1]) / r[0]}


def _first(h: float, phi: Sequence[float], solver_type: str) -> float:
    return h * phi[0] / 2 if solver_type == "midpoint" else h * phi[1]


def only_first_order(now: Level, then: Level) -> bool:
    """Steps from pure noise (λ = −∞) and to a clean state (λ = ∞) have no middle in λ or σ/α: one call, first order."""
    return now.alpha == 0 or then.sigma == 0


def combined(
    then: Level,
    calls: Sequence[Level],
    noise: Mapping[int, float] | None = None,
    x0: Mapping[int, float] | None = None,
    base: int = 0,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(states, x0) of a stage to `then` whose step began `base` calls ago; `calls` are the levels, newest first.

    x' = first order from there + Σ noise[j]·(ε_j − ε_base) + Σ x0[j]·(D_j − D_base), with ε_j = (X_j − α_j·D_j)/σ_j.
    """
    states, outputs = [0.0] * len(calls), [0.0] * len(calls)
    states[base], outputs[base] = first_order(calls[base], then)
    least = _ROUNDING * abs(outputs[base])
    for j, weight in (noise or {}).items():
        for ago, amount in ((j, weight), (base, -weight)):
            states[ago] += amount / calls[ago].sigma
            outputs[ago] -= amount * calls[ago].alpha / calls[ago].sigma
    for j, weight in (x0 or {}).items():
        outputs[j] += weight
        outputs[base] -= weight
    if abs(outputs[base]) < least:  # the midpoint methods do not use the first output: say so exactly
        outputs[base] = 0.0
    return tuple(states), tuple(outputs)


def single_step(
    now: Level, then: Level, process: Process, order: int, sign: int, solver_type: str = "midpoint"
) -> list[Stage]:
    """The stages of one step of DPM-Solver (ε) or DPM-Solver++ (x0) with its inner calls evenly spaced in λ.

    Order 2: 2206.00927 algorithm 1, 2211.01095 algorithm 1; order 3: 2206.00927 algorithm 2 and its x0 form.
    """
    order = 1 if only_first_order(now, then) else order
    h = then.lam - now.lam
    ends = [process.level(math.exp(-(now.lam + h * i / order))) for i in range(1, order)] + [then]
    stages, calls = [], [now]
    for i, end in enumerate(ends):
        weights = {}
        if i:
            step = end.lam - now.lam
            r = [(call.lam - now.lam) / step for call in calls[:-1]]
            weights = within(r, step, sign, "heun" if order == 3 and i == 1 else solver_type)
        scale = end.alpha if sign == X0 else -end.sigma
        terms = {j: scale * weight for j, weight in weights.items()}
        kind = "x0" if sign == X0 else "noise"
        stages.append(Stage(calls[0], end, *combined(end, calls, base=i, **{kind: terms})))
        calls.insert(0, end)
    return stages
