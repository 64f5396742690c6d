"""DPM-Solver++ SDE, single step: two calls a step, `sample_dpmpp_sde` of k-diffusion (after 2211.01095).

Both halves of a step see one Brownian path over σ/α: the middle the increment from σ to s, the end that from σ to σ'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts.coefficients import only_first_order
from samplers.solvers.parts.noise_split import split


@dataclass(frozen=True)
class DPMppSDE(Solver):
    """`r`, in (0, 1], says where in λ the second call of a step lies. `eta` is the η of ancestral sampling; η = 0 with
    r = 1/2 is DPM++ 2S. A step to σ = 0, or from pure noise (α = 0, no middle in λ), is first order.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.r <= 1:
            raise ValueError(f"r={self.r} of dpmpp_sde must lie above 0 and at most at 1 (the whole step)")
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=2, nfe=2 * steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def plan(self, levels: NoiseLevels) -> Plan:
        stages = []
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            if only_first_order(now, then):
                stages.append(_step(now, then, self.eta, self.s_noise))
            else:
                mid = then if self.r == 1 else levels.process.level(now.ratio * (then.ratio / now.ratio) ** self.r)
                half = _step(now, mid, self.eta, self.s_noise)
                stages += [half, _whole(half, then, self.eta, self.s_noise, self.r)]
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _step(now: Level, then: Level, eta: float, s_noise: float) -> Stage:
    """A first-order ancestral step."""
    down, up = split(now, then, eta)
    a, b = first_order(now, down)
    return Stage(now, then, (a,), (b,), up * s_noise)


def _whole(half: Stage, then: Level, eta: float, s_noise: float, r: float) -> Stage:
    """The step from the start of `half` along both x0. Its noise is √w·n1 + √(1−w)·n2, w being the share of σ − σ' that
    the first increment covers; n1 is what the middle state has beyond its own step's x and x0, so nothing is kept.
    """
    now, mid = half.level, half.result
    whole = _step(now, then, eta, s_noise)
    # First-order steps have one weight of each, or none of the state where η is so large that all noise is drawn anew.
    a, b, second = sum(whole.states), sum(whole.x0), 1 / (2 * r)
    share = fresh = 0.0
    if half.noise:
        seen = min(1.0, (now.ratio - mid.ratio) / (now.ratio - then.ratio))
        share, fresh = whole.noise * math.sqrt(seen) / half.noise, whole.noise * math.sqrt(1 - seen)
    states = (share, a - share * sum(half.states))
    x0 = (b * second, b * (1 - second) - share * sum(half.x0))
    return Stage(mid, then, states, x0, fresh)


SOLVER = DPMppSDE
