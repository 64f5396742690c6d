"""What SEEDS-2 and SEEDS-3 share: Gonzalez et al. 2023 (2305.14267), exponential stages that see one Brownian path.

In y = x/α and λ = log(α/σ) the SDE dy = (1+η)·(x0 − y) dλ + e^{−λ}·√(2η) dW is solved exactly but for x0, which the
stages of a step sample. A stage's noise is the noise of the stage before, faded, and a fresh draw over the interval
between the two.
"""

from __future__ import annotations

from samplers.core.levels import Level
from samplers.core.stage import Stage
from samplers.solvers.parts.coefficients import phis
from samplers.solvers.parts.noise_split import sde_step


class Step:
    """Writes the stages of one step; each starts from x, the step's first state, and goes along the step's calls."""

    def __init__(self, now: Level, eta: float, s_noise: float) -> None:
        self.now, self.eta, self.s_noise = now, eta, s_noise
        self.stages: list[Stage] = []
        self.states, self.x0 = (0.0,), (0.0,)  # the newest state without its noise as weights, newest call first

    def move(self, then: Level, slopes: dict[int, float] | None = None) -> None:
        """`slopes`: weights of D_j − (the step's first D), j calls ago."""
        level = self.stages[-1].result if self.stages else self.now
        kept, _ = sde_step(self.now, then, self.eta)
        faded, noise = sde_step(level, then, self.eta)
        count = len(self.stages)
        states, x0 = [0.0] * count + [kept], [0.0] * count + [self.whole(then)]
        for j, weight in (slopes or {}).items():
            x0[j] += weight
            x0[-1] -= weight
        drift = tuple(states), tuple(x0)
        if count and self.eta * self.s_noise:
            # what the newest state has beyond its drift is the path's noise so far
            states[0] += faded
            states[1:] = [new - faded * old for new, old in zip(states[1:], self.states, strict=True)]
            x0[1:] = [new - faded * old for new, old in zip(x0[1:], self.x0, strict=True)]
        self.stages.append(Stage(level, then, tuple(states), tuple(x0), noise * self.s_noise))
        self.states, self.x0 = drift

    def whole(self, then: Level) -> float:
        """Weight of an x0 that is held from the start of the step."""
        return then.alpha - self.now.alpha * sde_step(self.now, then, self.eta)[0]

    def slope(self, then: Level) -> float:
        """Weight of an x0 that has grown from 0 to 1 over the way from the start of the step: its exact integral."""
        grown = (1 + self.eta) * (then.lam - self.now.lam)
        return then.alpha * grown * phis(2, -grown)[1]
