"""iPNDM with variable steps, as diff-sampler and ComfyUI publish it, and as Adams–Bashforth should be.

The published weights hold for equal steps only up to order 3, and not even there at order 4: in the weight of the
second difference a bracket is misplaced, 1 − (h/3a)·(ha/…) for (1 − h/3a)·(ha/…); in that of the third a sign is
turned; and the third's share of the oldest ε has h₁/h₂ for h₂/h₃, so that the weights add up to 1 on equal or geometric
steps alone. The method converges with order 2. `exact` mends all three, which makes it LMS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import adams, combined

MAX_ORDER = 4


@dataclass(frozen=True)
class IPNDMv(Solver):
    """x'/α' = x/α + Σ w_j·ε_j over the last `max_order` ε, σ here σ/α; a step to σ = 0 takes x0."""

    max_order: int = 4
    exact: bool = False

    def __post_init__(self) -> None:
        self._one_of("max_order", range(1, MAX_ORDER + 1))

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2 if self.max_order == 4 and not self.exact else self.max_order, nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            then = levels[k + 1]
            p = 1 if then.sigma == 0 else min(self.max_order, k + 1)
            calls = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
            ratios = [call.ratio for call in calls]
            weights = (adams if self.exact else _published)(ratios, ratios[0], then.ratio) if len(calls) > 1 else ()
            noise = {j: then.alpha * weight for j, weight in enumerate(weights) if j}
            states, x0 = combined(then, calls, noise=noise)
            if weights and not self.exact:  # what the published weights add up to beyond the step
                extra = then.alpha * (math.fsum(weights) - (then.ratio - ratios[0])) / calls[0].sigma
                states, x0 = (states[0] + extra, *states[1:]), (x0[0] - extra * calls[0].alpha, *x0[1:])
            stages.append(Stage(calls[0], then, states, x0))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _published(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Newton's form: the weights of the first to third difference, spread over the outputs they are made of."""
    h = end - start
    past = [newer - older for newer, older in pairwise(nodes)]  # step lengths, newest first
    first = h / past[0] / 2
    weights = [1 + first, -first]
    if len(past) > 1:
        h1, h2 = past[:2]
        a = h + h1
        second = (1 - h / (3 * a) * (h * a) / (h1 * (h1 + h2))) / 2
        weights = _add(weights, [second, -second * (1 + h1 / h2), second * h1 / h2])
        if len(past) > 2:
            h3 = past[2]
            b = a + h2
            third = (1 - h / (3 * a)) / 2 + (1 - h / (2 * a)) * h / (6 * b)
            third *= h * a * b / (h1 * (h1 + h2) * (h1 + h2 + h3))
            q = h1 * (h1 + h2) / (h2 * (h2 + h3))
            spread = [1.0, -(1 + h1 / h2 + q), h1 / h2 + q * (1 + h2 / h3), -q * h1 / h2]
            weights = _add(weights, [third * share for share in spread])
    return [h * weight for weight in weights]


def _add(weights: list[float], more: list[float]) -> list[float]:
    return [weight + (weights[j] if j < len(weights) else 0.0) for j, weight in enumerate(more)]


SOLVER = IPNDMv
