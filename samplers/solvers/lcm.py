"""Multistep consistency sampling: Song et al. 2023 (2303.01469), algorithm 1, with the boundary condition of latent
consistency models, Luo et al. 2023 (2310.04378), eq. 9.

A consistency model f(x, t) gives the clean end of the trajectory through x; each step takes it there and adds noise of
the next level. If f is the model's exact consistency function, the result has the law of the data after any number of
steps. An ordinary model gives the mean E[x0 | x] instead: one step is then the mean of all data, more steps sharpen
but never reach the law, because each step forgets the noise that x held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage


@dataclass(frozen=True)
class LCM(Solver):
    """x' = α'·(c_out·D + c_skip·x) + σ'·n, with τ = timestep_scaling·time, c_skip = σ_data²/(τ² + σ_data²), c_out =
    τ/√(τ² + σ_data²), x scaled to unit variance. At time 0 that is x itself, whatever the model says.

    `sigma_data=0` leaves the boundary condition to the model. A level with σ = 0 gets no noise.
    """

    sigma_data: float = 0.5
    timestep_scaling: float = 10.0

    def __post_init__(self) -> None:
        if self.sigma_data < 0 or not self.timestep_scaling > 0:
            raise ValueError(
                f"sigma_data={self.sigma_data} of lcm must not be negative, "
                f"timestep_scaling={self.timestep_scaling} must be above 0"
            )

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=1, nfe=steps, stochastic=True)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            skip, out = boundary(now, self.sigma_data, self.timestep_scaling)
            states = (then.alpha * skip / math.hypot(now.alpha, now.sigma),)
            stages.append(Stage(now, then, states, (then.alpha * out,), then.sigma))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def boundary(level: Level, sigma_data: float, timestep_scaling: float) -> tuple[float, float]:
    """(c_skip, c_out) at the level's time."""
    if sigma_data == 0:
        return 0.0, 1.0
    scaled = level.time * timestep_scaling
    return sigma_data**2 / (scaled**2 + sigma_data**2), scaled / math.hypot(scaled, sigma_data)


SOLVER = LCM
