"""Order conditions, checked on a plan itself: no model, no tensor, float64.

Write z = x/α and λ = log(α/σ). The probability-flow ODE is then semilinear with one fixed linear part,

    dz/dλ = −z + D(z, λ),                                                                      D the denoiser.

A smooth solution z₀(λ) fixes D along it, D₀ = z₀ + z₀', and a denoiser near it is D = D₀(λ) + J(λ)·(z − z₀) + …, with
any Jacobian J. Put the solution into a plan and each stage leaves a defect, what it misses when everything it reads is
exact; the error of the run is what becomes of the defects. Expanded in powers of J it is a sum over trees, the B-series
of an exponential method (Hochbruck & Ostermann 2010, Acta Numerica 19, section 2.3 and 2.4; 2005, SINUM 43):

* no J, "quadrature": Σ of the defects of the steps. It vanishes for a D polynomial in λ up to some degree (their
  ψ_j = 0), and every bushy tree is in it, since D₀ holds all derivatives along the solution;
* J once, "J": Σ b_i·J·(error of the state that call i was given), their Σ b_i J ψ_{j,i} = 0;
* J twice and three times, the tall trees above it. Products of errors come only with order 5.

All of it is linear in z₀, so Chebyshev polynomials of each degree are put in, and errors over N, 2N, 4N, … steps give
the order: exactly what the method's coefficients are worth, on any levels. The first and the last quarter of the steps
are left out, and the run begins with an exact past, so that a start-up and a lowered end do not hide the method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan

CONDITIONS = ("quadrature", "J", "JJ", "JJJ")
DEGREES = 6
NOTHING = 1e-11  # below this the error of a solution of size 1 is rounding
Build = Callable[[int], tuple[NoiseLevels, Plan]]


@dataclass(frozen=True)
class Convergence:
    """Orders per condition (inf where it holds exactly), the errors they were fitted to, and the smallest: the order.

    `errors` (steps, condition, degree) are those of z over the middle half, for Chebyshev polynomials z₀ of degree 1,
    2, ….
    """

    steps: tuple[int, ...]
    errors: np.ndarray
    by_condition: dict[str, float]

    @property
    def order(self) -> float:
        return min(self.by_condition.values())


def convergence(build: Build, steps: tuple[int, ...] = (96, 192, 384, 768)) -> Convergence:
    """The order of the method that `build(N)` plans for N steps, from its coefficients alone.

    Raises ValueError for plans that draw noise: ask for the order of the plan without it.

    >>> from samplers import registry, schedules
    >>> from samplers.core.levels import DiscreteVP
    >>> def heun(steps):
    ...     levels = schedules.build("exponential", DiscreteVP.scaled_linear().ve(), steps, end="sigma_min")
    ...     return levels, registry.build_plan({"solver": "heun"}, levels)
    >>> round(convergence(heun, steps=(48, 96)).order, 1)
    2.0
    """
    errors = np.stack([_window_errors(*build(n)) for n in steps])
    sizes = np.linalg.norm(errors, axis=2)  # over the degrees, as the error of one may pass through 0
    orders = {name: _order(steps, sizes[:, k]) for k, name in enumerate(CONDITIONS)}
    return Convergence(steps, errors, orders)


def residuals(levels: NoiseLevels, plan: Plan, clock: str = "lambda") -> np.ndarray:
    """What each step misses when all it reads is exact: (steps, degrees), relative to z₀ of size 1; NaN at λ = ±∞.

    Column q−1 is for a z₀ of degree q, the Chebyshev polynomial over the clock's finite range. It shows which steps are
    of lower order: a start-up, a lowered end. Where a step's correction is folded into the next one (UniPC), what is
    shown is the predicted state.
    """
    _check(plan)
    steps = list(itertools.pairwise(boundaries(levels, plan)))
    ends = [(plan.stages[first].level, plan.stages[stop - 1].result) for first, stop in steps]
    finite = [k for k, pair in enumerate(ends) if all(math.isfinite(level.lam) for level in pair)]
    found = np.full((len(steps), DEGREES), np.nan)
    if finite:
        solution = _Solution(clock, ends[finite[0]][0], ends[finite[-1]][1])
        for k in (k for k in finite if _oldest(plan, *steps[k]) >= steps[finite[0]][0]):
            found[k] = np.abs(_errors(plan, *steps[k], solution, heights=1)[-1, 0])
    return found


def exact_degree(levels: NoiseLevels, plan: Plan, clock: str = "lambda") -> int:
    """The degree up to which the plan is exact, to rounding, between its first and last quarter: −1 for not at all.

    `clock="lambda"` asks this for x0 as a polynomial in λ (DPM-Solver++), `"ratio"` for ε as a polynomial in σ/α (the
    Adams–Bashforth of k-diffusion's LMS).
    """
    missed = _window_errors(levels, plan, clock)[0]
    degree = int(np.argmax(np.append(missed, 1) > NOTHING))
    return degree if clock == "lambda" else degree - 1


class _Solution:
    """z₀ = T₁, T₂, … of a clock scaled to [−1, 1] between two levels, and the D₀ = z₀ + dz₀/dλ that belongs to it."""

    def __init__(self, clock: str, above: Level, below: Level) -> None:
        if clock not in ("lambda", "ratio"):
            raise ValueError(f"clock={clock!r} is unknown; valid: lambda, ratio")
        self.in_lambda = clock == "lambda"
        ends = (above.lam, below.lam) if self.in_lambda else (above.ratio, below.ratio)
        self.middle, self.half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
        self.z_series = np.eye(DEGREES + 1)[1:].T  # a column a polynomial
        self.slope_series = chebyshev.chebder(self.z_series)

    def place(self, level: Level) -> float:
        return ((level.lam if self.in_lambda else level.ratio) - self.middle) / self.half

    def z(self, level: Level) -> np.ndarray:
        return np.asarray(chebyshev.chebval(self.place(level), self.z_series))

    def x0(self, level: Level) -> np.ndarray:
        slope = chebyshev.chebval(self.place(level), self.slope_series) / self.half
        return self.z(level) + slope * (1.0 if self.in_lambda else -level.ratio)

    def jacobian(self, level: Level) -> float:
        return 1 + self.place(level) / 2


def _errors(plan: Plan, first: int, stop: int, solution: _Solution, heights: int = len(CONDITIONS)) -> np.ndarray:
    """Errors of z after each of the stages first … stop−1, all calls before exact: (stages, power of J, degrees)."""
    calls = range(_oldest(plan, first, stop), stop)
    exact_x = {i: plan.stages[i].level.alpha * solution.z(plan.stages[i].level) for i in calls}
    exact_x0 = {i: solution.x0(plan.stages[i].level) for i in calls}
    nothing = np.zeros((heights, DEGREES))
    state = dict.fromkeys(calls, nothing)  # errors of x that each call was given
    answer = dict.fromkeys(calls, nothing)  # errors of D: J times that of z, one power of J higher
    errors = []
    error = nothing
    for i in range(first, stop):
        stage = plan.stages[i]
        state[i] = error
        answer[i] = np.vstack([nothing[:1], solution.jacobian(stage.level) / stage.level.alpha * error[:-1]])
        error = np.zeros_like(nothing)
        for j, a in enumerate(stage.states):
            error += a * state[i - j]
            error[0] += a * exact_x[i - j]
        for j, b in enumerate(stage.x0):
            error += b * answer[i - j]
            error[0] += b * exact_x0[i - j]
        error[0] -= stage.result.alpha * solution.z(stage.result)
        errors.append(error / stage.result.alpha)
    return np.stack(errors)


def _oldest(plan: Plan, first: int, stop: int) -> int:
    """The oldest call that stages first … stop−1 reach back to."""
    return min(i - max(len(s.states), len(s.x0), 1) + 1 for i, s in enumerate(plan.stages[first:stop], first))


def _window_errors(levels: NoiseLevels, plan: Plan, clock: str = "lambda") -> np.ndarray:
    """Root mean square over the steps of the middle half: an error that changes its sign there does not look small."""
    _check(plan)
    inside = [i for i in boundaries(levels, plan) if plan.nfe // 4 <= i <= 3 * plan.nfe // 4]
    if len(inside) < 2:
        raise ValueError(f"a plan of {plan.nfe} calls is too short for its middle half to be looked at")
    solution = _Solution(clock, plan.stages[inside[0]].level, plan.stages[inside[-1] - 1].result)
    errors = _errors(plan, inside[0], inside[-1], solution)
    after = [i - 1 - inside[0] for i in inside[1:]]
    return np.sqrt(np.mean(errors[after] ** 2, axis=0))


def boundaries(levels: NoiseLevels, plan: Plan) -> list[int]:
    """The stages that begin a step, and the number of stages: there the state is the method's result at its level.

    That is the last call at a level of the schedule; or, where a method chooses its own levels, a call before which
    nothing later reaches.
    """
    last_call = {stage.level: i for i, stage in enumerate(plan.stages)}
    begin = {last_call[levels[k]] for k in range(levels.steps) if levels[k] in last_call}
    reach = plan.nfe
    for i in reversed(range(plan.nfe)):
        reach = min(reach, _oldest(plan, i, i + 1))
        if reach == i:
            begin.add(i)
    return [*sorted(begin), plan.nfe]


def _order(steps: tuple[int, ...], sizes: np.ndarray) -> float:
    """The slope over the last two numbers of steps before rounding takes over; inf where there is only rounding."""
    above = np.flatnonzero(sizes > NOTHING)
    if len(above) < 2:
        return math.inf
    one, two = above[-2:]
    return float(np.log(sizes[one] / sizes[two]) / np.log(steps[two] / steps[one]))


def _check(plan: Plan) -> None:
    if plan.draws:
        raise ValueError("a plan that draws noise has no order of this kind: set its eta, churn or tau to 0")
