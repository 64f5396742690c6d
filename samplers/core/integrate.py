"""A plan run from its first level to its last with a denoiser that can be called. It never asks a solver its name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplers.core.levels import Level
from samplers.core.noise import NoiseStreams
from samplers.core.plan import Plan
from samplers.core.walk import Walk

Denoiser = Callable[[Tensor, Level], Tensor]


@torch.no_grad()
def integrate(
    plan: Plan,
    denoise: Denoiser,
    x: Tensor,
    noise: NoiseStreams | None = None,
    after_stage: Callable[[Tensor, Level], Tensor] | None = None,
    on_call: Callable[[int], None] | None = None,
) -> Tensor:
    """Run the plan from the state `x` at `plan.start` (float32 or float64, never changed) and return the last state.

    `denoise(x, level) -> x0` must not keep or change the x it is given: it is a view of the walk's buffer.
    `after_stage(x, level) -> x` may replace every new state (inpainting); `on_call(i)` follows every denoiser call.
    Nothing here waits for the device.

    >>> from samplers import registry, schedules
    >>> from samplers.core.levels import DiscreteVE
    >>> plan = registry.build_plan({"solver": "unipc"}, schedules.build("karras", DiscreteVE.edm(), 50))
    >>> unit_normal = lambda x, level: x / (1 + level.sigma**2)  # E[x0 | x] of data that are N(0, 1)
    >>> start = torch.tensor([[80.0, -40.0, 8.0]], dtype=torch.float64)
    >>> integrate(plan, unit_normal, start)
    tensor([[ 1.0013, -0.5007,  0.1001]], dtype=torch.float64)
    >>> start / 6401**0.5  # where the exact solution ends, x/√(1 + σ²)
    tensor([[ 0.9999, -0.5000,  0.1000]], dtype=torch.float64)
    """
    if plan.draws and noise is None:
        raise ValueError("this plan draws noise: give integrate() the noise streams of the images")
    walk = Walk(plan, x)
    for i, stage in enumerate(plan.stages):
        state = walk.churn(noise)
        x0 = denoise(state, stage.level)
        if on_call is not None:
            on_call(i)
        state = walk.advance(x0, noise)
        if after_stage is not None:
            blended = after_stage(state, stage.result)
            if blended is not state:
                state.copy_(blended)
    return walk.state.clone()
