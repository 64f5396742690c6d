"""Single-step DPM-Solver++: Lu et al. 2022 (2211.01095), algorithm 1 (2S) and its third-order relative (3S).

A step of order p makes p calls, each from the state where the step began. `nodes` says where the calls between are
made: inside every step, or at the levels of the schedule, of which a step then takes p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import SOLVER_TYPES, X0, combined, single_step, within

NODES = ("inside", "levels")


@dataclass(frozen=True)
class DPMppSingle(Solver):
    """nodes="inside": `order` calls a step at 1/2, or 1/3 and 2/3, of it in λ (k-diffusion's 2S without noise, the
    authors' 3S); one call where the step ends at σ = 0 or begins at pure noise.

    nodes="levels": one call a level, as diffusers' DPMSolverSinglestepScheduler; levels left over at the end are one
    step of lower order, and `lower_order_final` (as in `is_lowered`) lowers the order there where none are left over.
    `solver_type`: midpoint or heun, how differences are weighted (`within`); the inner call of 3S inside is heun's.
    """

    order: int = 2
    solver_type: str = "midpoint"
    nodes: str = "inside"
    lower_order_final: bool | int | str = True

    def __post_init__(self) -> None:
        self._one_of("order", (2, 3))
        self._one_of("solver_type", SOLVER_TYPES)
        self._one_of("nodes", NODES)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order, nfe=steps * self.order if self.nodes == "inside" else steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        stages: list[Stage] = []
        if self.nodes == "inside":
            for k in range(levels.steps):
                stages += single_step(levels[k], levels[k + 1], levels.process, self.order, X0, self.solver_type)
        else:
            for k, ago in enumerate(_began(levels, self.order, lowers)):
                stages.append(_stage([levels[k - j] for j in range(ago + 1)], levels[k + 1], self.solver_type))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _began(levels: NoiseLevels, order: int, lowers: bool) -> list[int]:
    """For every call how many calls ago its step began: 0, 1, 2, 0, 1, 2, …"""
    alone = int(levels.alpha[0] == 0)  # a step from pure noise ends at the next level
    steps = levels.steps - alone
    ago = [0] * alone + [k % order for k in range(steps)]
    if levels.sigma[-1] == 0 or (lowers and steps % order == 0):
        ago[-1] = 0
    return ago


def _stage(calls: Sequence[Level], then: Level, solver_type: str) -> Stage:
    base = len(calls) - 1
    x0 = {}
    if base:
        h = then.lam - calls[base].lam
        r = [(call.lam - calls[base].lam) / h for call in calls[:base]]
        x0 = {j: then.alpha * weight for j, weight in within(r, h, X0, solver_type).items()}
    return Stage(calls[0], then, *combined(then, calls, x0=x0, base=base))


SOLVER = DPMppSingle
