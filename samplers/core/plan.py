"""What a solver is: a table of coefficients.

Nearly every diffusion sampler does two things in turn: it evaluates the denoiser at a known level, and it replaces the
state by a linear combination of states, denoiser outputs and fresh noise, with coefficients that depend on the levels
alone. A `Stage` is one such turn; a `Plan` is all of them. Plans are float64 and know no tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from samplers.core.levels import Level
from samplers.core.program import Program, compiled
from samplers.core.stage import Capabilities, Stage


@dataclass(frozen=True)
class Plan:
    """A whole run. Two plans are equal when they do the same arithmetic, whatever their solver calls itself."""

    start: Level
    stages: tuple[Stage, ...]
    capabilities: Capabilities = field(compare=False)

    def __post_init__(self) -> None:
        for i, stage in enumerate(self.stages):
            numbers = (*stage.states, *stage.x0, stage.noise, *stage.churn)
            if not all(map(math.isfinite, numbers)):
                raise ValueError(f"stage {i} of the plan has a coefficient that is not finite: {stage}")
            if max(len(stage.states), len(stage.x0)) > i + 1:
                raise ValueError(f"stage {i} of the plan reaches back before the first denoiser call: {stage}")

    @property
    def nfe(self) -> int:
        return len(self.stages)

    @property
    def draws(self) -> int:
        """Draws of noise after the initial one."""
        return sum(stage.draws for stage in self.stages)

    @cached_property
    def program(self) -> Program:
        """The plan as the loop executes it: what is kept in which row of its buffer."""
        return compiled(self.stages)

    def influence(self) -> np.ndarray:
        """The plan with all bookkeeping expanded: what each state owes to the initial state, every D and every draw.

        Row i < nfe is the state that call i evaluates, and the last row is the result. The columns are the initial
        state, the nfe denoiser outputs and the draws. Two ways to write one method have the same influence.

        >>> pure, clean = Level(0.0, 1.0, 1000), Level(1.0, 0.0, 0)  # from pure noise to a clean state in one step
        >>> Plan(pure, (Stage(pure, clean, (0.0,), (1.0,)),), Capabilities(order=1, nfe=1)).influence()
        array([[1., 0.],
               [0., 1.]])
        """
        n = self.nfe
        rows = np.zeros((n + 1, 1 + n + self.draws))
        rows[0, 0] = 1
        draw = 1 + n
        for i, stage in enumerate(self.stages):
            rows[i] *= stage.churn[0]
            if stage.churn[1]:
                rows[i, draw] = stage.churn[1]
                draw += 1
            for j, a in enumerate(stage.states):
                rows[i + 1] += a * rows[i - j]
            for j, b in enumerate(stage.x0):
                rows[i + 1, 1 + i - j] += b
            if stage.noise:
                rows[i + 1, draw] = stage.noise
                draw += 1
        return rows

    def check_reversible(self) -> None:
        """ValueError where there is no way back from the end of the plan to its start (samplers/inversion.py)."""
        if self.draws:
            raise ValueError("it draws noise on the way, so there is no way back: set its eta, churn or tau to 0")
        if self.stages[-1].result.sigma == 0:
            raise ValueError("its last step is to a clean state, from which there is no way back: end at sigma_min")

    def same_method(self, other: Plan, tolerance: float = 1e-12) -> bool:
        """True when both evaluate at the same levels and their influence agrees to `tolerance`."""
        if self.nfe != other.nfe or self.draws != other.draws:
            return False
        levels = [np.array([stage.level for stage in plan.stages]) for plan in (self, other)]
        return np.allclose(*levels, rtol=tolerance, atol=tolerance) and np.allclose(
            self.influence(), other.influence(), rtol=tolerance, atol=tolerance
        )

    def __str__(self) -> str:
        lines = [f"{'call':>4} {'time':>9} {'sigma/alpha':>12}  new state"]
        for i, stage in enumerate(self.stages):
            terms = [f"{a:+.6g} x{_ago(j)}" for j, a in enumerate(stage.states) if a]
            terms += [f"{b:+.6g} D{_ago(j)}" for j, b in enumerate(stage.x0) if b]
            terms += [f"{stage.noise:+.6g} n"] if stage.noise else []
            churn = f"[x = {stage.churn[0]:.6g} x {stage.churn[1]:+.6g} n]  " if stage.churn != (1, 0) else ""
            lines.append(f"{i:>4} {stage.level.time:>9.3f} {stage.level.ratio:>12.6g}  {churn}{'  '.join(terms)}")
        return "\n".join(lines)


def _ago(j: int) -> str:
    return f"[-{j}]" if j else ""
