"""What DPM-Solver and DPM-Solver++ share as multistep methods: Lu et al. 2022 (2211.01095), algorithm 2 and appendix B.

Both extrapolate an output of the calls before, ε or x0, in λ = log(α/σ), and differ in which one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import SOLVER_TYPES, X0, combined, divided


@dataclass(frozen=True)
class Multistep(Solver):
    """`lower_order_final` as in `is_lowered`: lower the order in the last steps always, never, in runs of fewer steps
    than this number, or where the run ends at σ = 0.

    A step to σ = 0 is first order in any case: x becomes x0. `exact` gives order 3 the factor 2 that the published
    second difference lacks; without it order 3 converges with order 2.
    """

    extrapolated: ClassVar[int]  # X0 or EPS

    order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool | int | str = 15
    exact: bool = False

    def __post_init__(self) -> None:
        self._one_of("order", (1, 2, 3))
        self._one_of("solver_type", SOLVER_TYPES)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order if self.exact else min(self.order, 2), nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            p = min(self.order, k + 1, levels.steps - k if lowers else self.order, 1 if then.sigma == 0 else self.order)
            calls = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
            stages.append(Stage(now, then, *self._step(then, calls)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))

    def _step(self, then: Level, calls: Sequence[Level]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(states, x0) of the step to `then`; `calls` are the levels that it looks back on, newest first."""
        past: Mapping[int, float] = {}
        if len(calls) > 1:
            h = then.lam - calls[0].lam
            r = [(newer.lam - older.lam) / h for newer, older in pairwise(calls)]
            weights = divided(r, h, self.extrapolated, self.solver_type, self.exact)
            factor = then.alpha if self.extrapolated == X0 else -then.sigma
            past = {j: factor * weight for j, weight in enumerate(weights, 1)}
        return combined(then, calls, x0=past) if self.extrapolated == X0 else combined(then, calls, noise=past)
