"""Exponential Adams–Bashforth methods on x0 in λ for unequal steps, and their hybrids with calls inside the step.

Nørsett 1969; Hochbruck & Ostermann 2010, Acta Numerica 19, section 2.7; with calls inside the step exponential general
linear methods (Ostermann, Thalhammer, Wright 2006, BIT 46). `inner: [1.0]` is predict–evaluate–correct–evaluate; to
correct without a second call is UniPC (`sampler=unipc sampler.variant=vary_coeff`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.coefficients import X0, combined, exponential, only_first_order

MOST_ORDER = 6
MOST_INNER = 4


@dataclass(frozen=True)
class ABNorsett(Solver):
    """x' = the exact integral of the polynomial in λ through the last `order` x0 (one a step) and those of this step.

    `inner`: where in λ the calls inside a step lie, growing, above 0 to 1; each is reached by the polynomial that is
    known before it. The order grows over the first steps. A step to σ = 0 takes x0 after one call, one from pure noise
    is first order.
    """

    order: int = 3
    inner: Sequence[float] = ()

    def __post_init__(self) -> None:
        self._one_of("order", range(1, MOST_ORDER + 1))
        numbers = isinstance(self.inner, Sequence) and all(
            isinstance(c, int | float) and not isinstance(c, bool) and 0 < c <= 1 for c in self.inner
        )
        if not numbers or len(self.inner) > MOST_INNER or any(a >= b for a, b in itertools.pairwise(self.inner)):
            raise ValueError(
                f"inner={self.inner!r} of abnorsett must be a list of at most {MOST_INNER} growing numbers above 0 and "
                "at most 1, such as [0.5] or [1.0]"
            )

    def declares(self, steps: int) -> Capabilities:
        """A call inside the step adds an order, since the polynomial has a node more. Further ones add none, since the
        first was reached without it."""
        return Capabilities(order=self.order + bool(self.inner), nfe=steps * (1 + len(self.inner)))

    def plan(self, levels: NoiseLevels) -> Plan:
        found: list[Stage] = []
        starts: list[tuple[int, Level]] = []  # the calls at levels of the schedule: their number and level
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            first = len(found)
            if only_first_order(now, then):
                a, b = first_order(now, then)
                found.append(Stage(now, then, (a,), (b,)))
            else:
                known = [(first, now), *starts[-1 : -self.order : -1]]  # this step's first, then the history
                ends = [_between(levels, now, then, c) for c in self.inner] + [then]
                for i, end in enumerate(ends):
                    found.append(_stage(found, known, end, ends[i - 1] if i else now))
                    known.append((first + i + 1, end))
            if now.alpha:
                starts.append((first, now))
        return Plan(levels[0], tuple(found), self.declares(levels.steps))


def _stage(found: Sequence[Stage], known: Sequence[tuple[int, Level]], end: Level, level: Level) -> Stage:
    """From the step's first state, known[0], to `end` by the polynomial through what is known; called at `level`."""
    (base, now), others = known[0], known[1:]
    newest = len(found)
    h = end.lam - now.lam
    weights = exponential([(other.lam - now.lam) / h for _, other in others], h, X0)
    x0 = {newest - call: end.alpha * w for (call, _), w in zip(others, weights, strict=True)}
    oldest = min(call for call, _ in known)
    calls = [level, *(stage.level for stage in reversed(found[oldest:]))]
    return Stage(level, end, *combined(end, calls, x0=x0, base=newest - base))


def _between(levels: NoiseLevels, now: Level, then: Level, c: float) -> Level:
    return then if c == 1 else levels.process.level(math.exp(-(now.lam + c * (then.lam - now.lam))))


SOLVER = ABNorsett
