"""SEEDS-2, Gonzalez et al. 2023 (2305.14267), on x0: two exponential stages a step on one Brownian path."""

from __future__ import annotations

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities
from samplers.solvers.parts.coefficients import only_first_order
from samplers.solvers.parts.seeds import Step, check

SOLVER_TYPES = ("phi_1", "phi_2")


def capabilities(
    steps: int, *, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5, solver_type: str = "phi_1"
) -> Capabilities:
    return Capabilities(order=2, nfe=2 * steps, stochastic=eta > 0 and s_noise > 0)


def plan(
    levels: NoiseLevels, *, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5, solver_type: str = "phi_1"
) -> Plan:
    """`r`: where in λ the second call lies, above 0 to 1. `solver_type`: the slope of x0 weighs half of a constant
    (phi_1, as DPM-Solver++ 2S) or its exact integral (phi_2). A step to σ = 0 or from pure noise is first order.
    """
    if not 0 < r <= 1:
        raise ValueError(f"r={r} of seeds_2 must lie above 0 and at most at 1 (the whole step)")
    if solver_type not in SOLVER_TYPES:
        raise ValueError(f"solver_type={solver_type!r} of seeds_2 is unknown; valid: {', '.join(SOLVER_TYPES)}")
    check(eta, s_noise, "seeds_2")
    stages = []
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        step = Step(now, eta, s_noise)
        if only_first_order(now, then):
            step.move(then)
        else:
            mid = then if r == 1 else levels.process.level(now.ratio * (then.ratio / now.ratio) ** r)
            step.move(mid)
            step.move(then, {0: (step.whole(then) / 2 if solver_type == "phi_1" else step.slope(then)) / r})
        stages += step.stages
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, eta=eta, s_noise=s_noise))
