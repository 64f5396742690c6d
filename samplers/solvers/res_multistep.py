"""Second-order multistep residual solver: Zhang et al. 2023 (2308.02157), eq. 8, as ComfyUI's res_multistep.

At eta = 0 it is DPM-Solver++(2M) with solver_type=heun; eta takes ancestral steps instead (res_multistep_ancestral).
"""

from __future__ import annotations

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.parts.coefficients import X0, combined, divided, only_first_order
from samplers.solvers.parts.noise_split import split


def capabilities(steps: int, *, eta: float = 0.0, s_noise: float = 1.0) -> Capabilities:
    return Capabilities(order=2, nfe=steps, stochastic=eta > 0 and s_noise > 0)


def plan(levels: NoiseLevels, *, eta: float = 0.0, s_noise: float = 1.0) -> Plan:
    """One call a step. With eta a step goes down to σ_down and up again by noise; the line through the last two x0 is
    anchored where the step before ended before its noise, as ComfyUI has it. A step to σ = 0 takes x0.
    """
    if eta < 0 or s_noise < 0:
        raise ValueError(f"eta={eta} and s_noise={s_noise} of res_multistep must not be negative")
    stages = []
    anchor = levels[0]
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        target, up = split(now, then, eta)
        x0 = {}
        if k > 0 and not only_first_order(levels[k - 1], target):
            h = target.lam - now.lam
            (weight,) = divided([(anchor.lam - levels[k - 1].lam) / h], h, X0, "heun", exact=False)
            x0 = {1: then.alpha * weight}
        calls = (now, levels[k - 1]) if x0 else (now,)
        noise = up * s_noise
        stages.append(Stage(now, then, *combined(target, calls, x0=x0), noise=noise))
        anchor = target
    return Plan(levels[0], tuple(stages), capabilities(levels.steps, eta=eta, s_noise=s_noise))
