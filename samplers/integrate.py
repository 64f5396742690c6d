"""The only sampling loop: it executes any plan and never asks a solver its name.

Everything that must be remembered lies in one preallocated buffer, a row a tensor (samplers/program.py says which), so
that the arithmetic of a stage is one matrix–vector product of some of its rows with the stage's coefficients, or, where
only the state and the newest output are combined, two passes over the state in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplers.levels import Level
from samplers.noise import NoiseStreams
from samplers.plan import Plan
from samplers.program import Program

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

    `denoise(x, level) -> x0` must not keep or change the x it is given: it is a view of the loop's buffer.
    `after_stage(x, level) -> x` may replace every new state (inpainting); `on_call(i)` follows every denoiser call.
    Nothing here waits for the device.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the state must be float32 or float64, not {x.dtype}")
    if plan.draws and noise is None:
        raise ValueError("this plan draws noise: give integrate() the noise streams of the images")
    program = plan.program
    buffer = x.new_zeros(program.rows + 2, x.numel())
    rows = [row.view(x.shape) for row in buffer]
    weights = _weights(program, x)
    columns: dict[tuple[int, int], Tensor] = {}
    state = rows[0].copy_(x)
    for i, (stage, step, weight) in enumerate(zip(plan.stages, program.steps, weights, strict=True)):
        keep_state, keep_x0, mix, first, last, _, fresh, scales, target = step
        scale, amount = stage.churn
        if amount:
            state.mul_(scale).add_(noise.draw(), alpha=amount)
        elif scale != 1:  # s_noise = 0: the level is raised all the same
            state.mul_(scale)
        if keep_state:
            rows[keep_state].copy_(state)
        x0 = denoise(state, stage.level)
        if on_call is not None:
            on_call(i)
        if keep_x0:
            if mix:
                torch.add(x0, state, alpha=mix, out=rows[keep_x0])
            else:
                rows[keep_x0].copy_(x0)
        if scales:
            if x0.data_ptr() == state.data_ptr():  # a denoiser may answer with the very state
                x0 = x0.clone()
            state.mul_(weight)
        else:
            read = columns.get((first, last))
            if read is None:
                read = columns[first, last] = buffer[first:last].t()
            torch.mv(read, weight, out=buffer[target])
            state = rows[target]
        if fresh:
            state.add_(x0, alpha=fresh)
        if stage.noise:
            state.add_(noise.draw(stage.level.ratio, stage.result.ratio), alpha=stage.noise)
        if after_stage is not None:
            blended = after_stage(state, stage.result)
            if blended is not state:
                state.copy_(blended)
    return state.clone()


def _weights(program: Program, x: Tensor) -> list[Tensor]:
    """Every stage's coefficients as a view of one tensor, moved once; a number where the state is scaled in place."""
    flat = torch.tensor([w for step in program.steps for w in step.weights], dtype=x.dtype, device=x.device)
    parts = flat.split([len(step.weights) for step in program.steps])
    return [part[0] if step.scales else part for part, step in zip(parts, program.steps, strict=True)]
