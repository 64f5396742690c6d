"""Gradient estimation: Permenter & Yuan 2023 (2306.04848), algorithm 2, as ComfyUI has it.

Denoising is read as gradient descent on the distance to the data; γ·ε₀ + (1 − γ)·ε₁ is the estimate of its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import combined


@dataclass(frozen=True)
class GradientEstimation(Solver):
    """x'/α' = x/α + (σ' − σ)·(ε₀ + (γ − 1)(ε₀ − ε₁)), σ here σ/α; the first step and one to σ = 0 are Euler's.

    γ = 1 is Euler, γ = 3/2 is iPNDM of order 2; every other γ is of order 1.
    """

    gamma: float = 2.0

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            calls = [now] if k == 0 or then.sigma == 0 else [now, levels[k - 1]]
            noise = {1: then.alpha * (then.ratio - now.ratio) * (1 - self.gamma)} if len(calls) > 1 else {}
            stages.append(Stage(now, then, *combined(then, calls, noise=noise)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = GradientEstimation
