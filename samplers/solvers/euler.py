"""Euler steps of the probability-flow ODE with churn: Karras et al. 2022 (2206.00364), algorithm 2 without line 6.

The same method in every clock: on a rectified flow (2403.03206) it is the Euler step in t.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.churn import Churned


@dataclass(frozen=True)
class Euler(Churned):
    """One Euler step a level; where σ/α lies in [s_tmin, s_tmax] the noise is first raised by γ = min(s_churn/N, √2−1).

    The denoiser is called at the raised level, as the paper and k-diffusion do. No churn, no draw.
    """

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps, stochastic=self.churns)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, churn = self.raised(levels, k)
            a, b = first_order(now, levels[k + 1])
            stages.append(Stage(now, levels[k + 1], (a,), (b,), churn=churn))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = Euler
