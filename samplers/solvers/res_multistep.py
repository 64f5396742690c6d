"""Second-order multistep residual solver: Zhang et al. 2023 (2308.02157), eq. 8, as ComfyUI's res_multistep.

At eta = 0 it is DPM-Solver++(2M) with solver_type=heun; eta takes ancestral steps instead (res_multistep_ancestral).
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import X0, combined, divided, only_first_order
from samplers.solvers.parts.noise_split import split


@dataclass(frozen=True)
class ResMultistep(Solver):
    """One call a step. With eta a step goes down to σ_down and up again by noise; the line through the last two x0 is
    anchored where the step before ended before its noise, as ComfyUI has it. A step to σ = 0 takes x0.
    """

    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        anchor = levels[0]
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            target, up = split(now, then, self.eta)
            x0 = {}
            if k > 0 and not only_first_order(levels[k - 1], target):
                h = target.lam - now.lam
                (weight,) = divided([(anchor.lam - levels[k - 1].lam) / h], h, X0, "heun", exact=False)
                x0 = {1: then.alpha * weight}
            calls = (now, levels[k - 1]) if x0 else (now,)
            noise = up * self.s_noise
            stages.append(Stage(now, then, *combined(target, calls, x0=x0), noise=noise))
            anchor = target
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = ResMultistep
