"""The only sampling loop: it executes any plan and never asks a solver its name.

Everything that must be remembered lies in one preallocated buffer, a row a tensor, so that the arithmetic of a stage is
one matrix–vector product of that buffer with the stage's coefficients. The state moves between the two ends of the
buffer, which keeps what is read and what is written apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplers.levels import Level
from samplers.noise import NoiseStreams
from samplers.plan import Plan

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
    program = _compile(plan)
    buffer = torch.zeros(program.rows + 2, x.numel(), dtype=x.dtype, device=x.device)
    ends = ((buffer[:-1].t(), buffer[-1]), (buffer[1:].t(), buffer[0]))  # what is read, where the new state goes
    views = [row.view(x.shape) for row in buffer]
    weights = torch.from_numpy(program.weights).to(x.device, x.dtype).unbind(0)
    state = views[0].copy_(x)
    for i, stage in enumerate(plan.stages):
        scale, amount = stage.churn
        if amount:
            state.mul_(scale).add_(noise.draw(), alpha=amount)
        if program.keep_state[i]:
            views[program.keep_state[i]].copy_(state)
        x0 = denoise(state, stage.level)
        if on_call is not None:
            on_call(i)
        if program.keep_x0[i]:
            views[program.keep_x0[i]].copy_(x0)
        source, target = ends[i % 2]
        torch.mv(source, weights[i], out=target)
        state = views[0] if i % 2 else views[-1]
        if stage.noise:
            state.add_(noise.draw(stage.level.ratio, stage.result.ratio), alpha=stage.noise)
        if after_stage is not None:
            blended = after_stage(state, stage.result)
            if blended is not state:
                state.copy_(blended)
    return state.clone()


class _Program(NamedTuple):
    """Where a plan keeps what: buffer rows 1…rows hold the past, 0 there means not kept."""

    rows: int
    keep_state: list[int]
    keep_x0: list[int]
    weights: np.ndarray  # (stages, rows + 1), in the order in which the buffer is read


def _compile(plan: Plan) -> _Program:
    """Give every past state and denoiser output that a later combination needs a row, for as long as it is needed."""
    last_use: dict[tuple[str, int], int] = {}
    for i, stage in enumerate(plan.stages):
        last_use |= {("state", i - j): i for j, a in enumerate(stage.states) if a and j}
        last_use |= {("x0", i - j): i for j, b in enumerate(stage.x0) if b}
    row: dict[tuple[str, int], int] = {}
    free: list[int] = []
    rows = 0
    uses = []  # of every stage: (row, coefficient)
    for i, stage in enumerate(plan.stages):
        for item in (("state", i), ("x0", i)):
            if item in last_use:
                rows += not free
                row[item] = free.pop() if free else rows
        used = [(row["state", i - j], a) for j, a in enumerate(stage.states) if a and j]
        uses.append(used + [(row["x0", i - j], b) for j, b in enumerate(stage.x0) if b])
        free += [row[item] for item, stop in last_use.items() if stop == i]
    weights = np.zeros((len(plan.stages), rows + 1))
    for i, stage in enumerate(plan.stages):
        moved = i % 2  # the state is then the last row that is read, not the first
        weights[i, -1 if moved else 0] = stage.states[0] if stage.states else 0.0
        for where, coefficient in uses[i]:
            weights[i, where - moved] = coefficient
    keep = [[row.get((kind, i), 0) for i in range(plan.nfe)] for kind in ("state", "x0")]
    return _Program(rows, *keep, weights)
