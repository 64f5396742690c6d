"""The only sampling loop, turned inside out: a `Walk` is fed one denoiser output at a time and never calls anybody.

Everything that must be remembered lies in one preallocated buffer with one row per tensor (core/program.py says which).
The arithmetic of a stage is then one matrix–vector product of some of its rows with the stage's coefficients. Where
only the state and the newest output are combined, it is two passes over the state in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.core.levels import Level
from samplers.core.noise import Noise
from samplers.core.plan import Plan
from samplers.core.program import Program


class Walk:
    """Where a run of a plan stands. A turn is `churn`, a denoiser call by whoever drives the walk, and `advance`.

    `state` is a view of the walk's buffer, float32 or float64: whoever drives it may write into it between `advance`
    and the next `advance` (inpainting), and must not keep it. `index` counts the calls that were answered. A walk can
    be deep-copied at any point, and both go on. Nothing here waits for the device.
    """

    def __init__(self, plan: Plan, x: Tensor) -> None:
        """Stand at `plan.start` with the state `x` (float32 or float64), which is copied and never changed."""
        if x.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"the state must be float32 or float64, not {x.dtype}")
        program = plan.program
        self.plan, self.index = plan, 0
        self._buffer = x.new_zeros(program.rows + 2, x.numel())
        self._rows = [row.view(x.shape) for row in self._buffer]
        weights = _weights(program, x)
        self._turns = [*zip(plan.stages, program.steps, weights, strict=True)]
        self._columns: dict[tuple[int, int], Tensor] = {}
        self.state = self._rows[0].copy_(x)

    @property
    def over(self) -> bool:
        return self.index == len(self._turns)

    @property
    def level(self) -> Level:
        """The level of the next call, to which `churn` raises the state; at the end the level of the result."""
        return self.plan.stages[-1].result if self.over else self.plan.stages[self.index].level

    def churn(self, noise: Noise | None = None) -> Tensor:
        """The state that the next call evaluates, raised to its level by fresh noise where the plan churns: once a
        call, before it."""
        scale, amount = self._turns[self.index][0].churn
        if amount:
            return self.state.mul_(scale).add_(_given(noise).draw(), alpha=amount)
        if scale != 1:  # s_noise = 0: the level is raised all the same
            self.state.mul_(scale)
        return self.state

    def advance(self, x0: Tensor, noise: Noise | None = None) -> Tensor:
        """The next state, from the denoiser's answer `x0` (in the state's shape and of any type; it is not kept)."""
        stage, step, weight = self._turns[self.index]
        keep_state, keep_x0, mix, first, last, _, fresh, scales, target = step
        state, rows = self.state, self._rows
        if keep_state:
            rows[keep_state].copy_(state)
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
            read = self._columns.get((first, last))
            if read is None:
                read = self._columns[first, last] = self._buffer[first:last].t()
            torch.mv(read, weight, out=self._buffer[target])
            self.state = state = rows[target]
        if fresh:
            state.add_(x0, alpha=fresh)
        if stage.noise:
            state.add_(_given(noise).draw(stage.noise_from.ratio, stage.result.ratio), alpha=stage.noise)
        self.index += 1
        return state


def _given(noise: Noise | None) -> Noise:
    if noise is None:
        raise ValueError("this plan draws noise: give the walk what it draws from")
    return noise


def _weights(program: Program, x: Tensor) -> list[Tensor]:
    """Every stage's coefficients as a view of one tensor, moved once; a number where the state is scaled in place."""
    flat = torch.tensor([w for step in program.steps for w in step.weights], dtype=x.dtype, device=x.device)
    parts = flat.split([len(step.weights) for step in program.steps])
    return [part[0] if step.scales else part for part, step in zip(parts, program.steps, strict=True)]
