"""Heun's method on the probability-flow ODE with churn: Karras et al. 2022 (2206.00364), algorithm 2.

The trapezoidal rule is not the same in every clock. The two here are those in which the path of a denoiser that never
changes its mind is a straight line, so Euler's step is the same in both and Heun's is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.churn import Churned
from samplers.solvers.parts.clock import CLOCKS, reading, scale
from samplers.solvers.parts.coefficients import combined, only_first_order


@dataclass(frozen=True)
class Heun(Churned):
    """Two calls a step, one where the step ends at σ = 0 (Euler) or, in the clock sigma, begins at pure noise.

    clock="sigma": d(x/α)/d(σ/α) = ε, as the paper, k-diffusion and EDM have it. clock="flow": with t = σ/(α+σ),
    d(x/(α+σ))/dt = ε − x0, the velocity of rectified flow, as diffusers' FlowMatchHeunDiscreteScheduler has it.
    """

    clock: str = "sigma"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("clock", CLOCKS)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=2 * steps, stochastic=self.churns)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, churn = self.raised(levels, k)
            then = levels[k + 1]
            a, b = first_order(now, then)
            stages.append(Stage(now, then, (a,), (b,), churn=churn))
            if then.sigma > 0 and (self.clock == "flow" or not only_first_order(now, then)):
                stages.append(Stage(then, then, *_corrected(now, then, self.clock)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _corrected(now: Level, then: Level, clock: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The step again with the mean of the slopes at its two ends, ε in σ/α and ε − x0 in the flow's t."""
    half = scale(then, clock) * (reading(then, clock) - reading(now, clock)) / 2
    return combined(then, (then, now), noise={0: half}, x0={} if clock == "sigma" else {0: -half}, base=1)


SOLVER = Heun
