"""Write a sampler in ten lines and see its order: `python examples/write_a_sampler.py`. It needs no model."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samplers import conditions, schedules
from samplers.core.levels import DiscreteVP, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import combined


@dataclass(frozen=True)
class AdamsBashforth(Solver):
    """Euler's step plus the change of ε since the last call, times `share` of h²/(2h₁); h in σ/α."""

    share: float = 1.0

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2 if self.share == 1 else 1, nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = [Stage(levels[0], levels[1], *combined(levels[1], [levels[0]]))]
        for k in range(1, levels.steps):
            before, now, then = levels[k - 1], levels[k], levels[k + 1]
            h, h1 = then.ratio - now.ratio, now.ratio - before.ratio
            change = {1: -then.alpha * self.share * h * h / (2 * h1)}
            stages.append(Stage(now, then, *combined(then, [now, before], noise=change)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def levels(steps: int) -> NoiseLevels:
    return schedules.build("karras", DiscreteVP.scaled_linear(), steps, end="sigma_min")


if __name__ == "__main__":
    print(AdamsBashforth().plan(levels(4)))
    for solver in (AdamsBashforth(), AdamsBashforth(share=0.0)):
        found = conditions.convergence(lambda steps, solver=solver: (levels(steps), solver.plan(levels(steps))))
        print(f"{solver}: order {found.order:.2f}, declared {solver.declares(4).order}")
