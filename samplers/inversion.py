"""A plan run backwards: the noise from which it makes a given state.

Two ways. `rising` levels (samplers/core/levels.py) are planned and walked like any others: DDIM inversion (2105.05233,
appendix F; 2010.02502, section 4.3) for a method of order 1, and its relatives of higher order. The way up and the way
down then meet up to the method's own error. `invert` solves the equations of the way down itself for the states that it
started its steps from, so the round trip is exact up to rounding, whatever the order and the number of steps. Each step
is a fixed point (2309.04907, 2312.12540): what the step falls short of its known end is added to its beginning, scaled.
Where a method remembers outputs of earlier steps, which an inversion meets later, the sweep is repeated (2311.18387).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.conditions import boundaries
from samplers.core.integrate import integrate
from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Stage, first_order

Denoiser = Callable[[Tensor, Level], Tensor]
MOST_TRIES = 40  # at one step
MOST_SWEEPS = 100  # over all steps, of a method with a memory
MEMORY = 8  # earlier tries that Anderson's acceleration combines
ROUNDINGS = 32  # a state is found when what is left is this many roundings of it


@dataclass(frozen=True)
class Inversion:
    """What was found. `residual` is (N,): what the worst step of each image is off its end, over the end's norm."""

    states: list[Tensor]  # what each call of the plan is given, and the end: the first is the noise
    residual: Tensor

    @property
    def start(self) -> Tensor:
        return self.states[0]


@torch.no_grad()
def invert(plan: Plan, levels: NoiseLevels, denoise: Denoiser, end: Tensor) -> Inversion:
    """The state at `plan.start` from which the plan, made for `levels`, arrives at `end` (N, …), float32 or float64.

    Images are solved each by itself and set aside when they are found, so none depends on its batch. What does not
    settle (few steps, much guidance) is left at its best, and `residual` tells. ValueError for a plan that draws noise
    or ends clean.

    >>> from samplers import registry, schedules
    >>> from samplers.core.integrate import integrate
    >>> from samplers.core.levels import DiscreteVP
    >>> levels = schedules.build("karras", DiscreteVP.scaled_linear(), 10, end="sigma_min")
    >>> plan = registry.build_plan({"solver": "dpmpp"}, levels)
    >>> denoise = lambda x, level: torch.tanh(x / level.alpha) / (1 + level.sigma)
    >>> end = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    >>> found = invert(plan, levels, denoise, end)
    >>> (integrate(plan, denoise, found.start) - end).abs().max().item() < 1e-13
    True
    """
    plan.check_reversible()
    steps = [_Step(plan, first, stop) for first, stop in itertools.pairwise(boundaries(levels, plan))][::-1]
    run = _Run(denoise, *_guessed(plan, steps, denoise, end))
    if any(step.remembers for step in steps):
        residual = run.settle(steps, MOST_SWEEPS)
    else:
        residual = torch.stack([run.settle([step], MOST_TRIES) for step in steps]).amax(0)
    return Inversion(run.states, residual)


@torch.no_grad()
def risen(plan: Plan, denoise: Denoiser, end: Tensor) -> list[Tensor]:
    """The states of a plan that was made for rising levels, from `end` up to its last level, noisiest first."""
    states = [end]

    def keep(x: Tensor, level: Level) -> Tensor:
        states.append(x.clone())
        return x

    integrate(plan, denoise, end, after_stage=keep)
    return states[::-1]


class _Step:
    """The stages `first` … `stop` − 1, from a state that the method calls its result to the next such state."""

    def __init__(self, plan: Plan, first: int, stop: int) -> None:
        self.first, self.stop, self.stages = first, stop, plan.stages[first:stop]
        end = plan.stages[stop - 1].result
        self.scale, self.shift = first_order(self.stages[0].level, end)  # what the step does to the state, and to x0
        self.remembers = any(
            max(len(stage.states), len(stage.x0)) > 1 + k for k, stage in enumerate(self.stages)
        )  # outputs or states of earlier steps


class _Run:
    """The states and outputs of a run, by call, as they are known so far."""

    def __init__(self, denoise: Denoiser, states: list[Tensor], outputs: list[Tensor]) -> None:
        self.denoise, self.states, self.outputs = denoise, states, outputs
        self.size = states[-1].flatten(1).norm(dim=1).clamp(min=torch.finfo(states[-1].dtype).tiny)

    def settle(self, steps: list[_Step], most: int) -> Tensor:
        """Solve these steps together, the last first, in `most` tries; (N,) what the worst is off its end, relative."""
        settled = ROUNDINGS * torch.finfo(self.size.dtype).eps
        mixer, open_ = _Anderson(), torch.ones_like(self.size, dtype=torch.bool)
        least = torch.full_like(self.size, torch.inf)
        best = self._known(steps)
        for _ in range(most):
            before = self._known(steps)
            off = torch.stack([self._improve(step) for step in steps]).amax(0)
            best = _chosen(open_ & (off < least), before, best)
            least = torch.where(open_, torch.minimum(off, least), least)
            open_ = open_ & ~(off <= settled)
            if not open_.any():
                break
            self._know(steps, mixer.next(before, self._known(steps) - before))
        self._know(steps, best)
        return least

    def _improve(self, step: _Step) -> Tensor:
        """Walk the step from its beginning, to which what it falls short is added; (N,) that, relative."""
        states, outputs, result = self._walk(step, self.states[step.first])
        short = self.states[step.stop] - result
        self.states[step.first : step.stop] = [states[0] + short / step.scale, *states[1:]]
        self.outputs[step.first : step.stop] = outputs
        return short.flatten(1).norm(dim=1) / self.size

    def _known(self, steps: list[_Step]) -> Tensor:
        """States and outputs of the calls of these steps, (N, 2·calls, …)."""
        calls = [k for step in steps for k in range(step.first, step.stop)]
        return torch.stack([self.states[k] for k in calls] + [self.outputs[k] for k in calls], 1)

    def _know(self, steps: list[_Step], known: Tensor) -> None:
        calls = [k for step in steps for k in range(step.first, step.stop)]
        each = known.unbind(1)
        for k, state, output in zip(calls, each, each[len(calls) :], strict=False):
            self.states[k], self.outputs[k] = state, output

    def _walk(self, step: _Step, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The step from x: what its calls are given and answer, and where it ends."""
        states, outputs = self.states[: step.first], self.outputs[: step.first]
        for stage in step.stages:
            states.append(x)
            outputs.append(self.denoise(x, stage.level).to(x.dtype))
            x = _combined(stage, states, outputs)
        return states[step.first :], outputs[step.first :], x


def _combined(stage: Stage, states: list[Tensor], outputs: list[Tensor]) -> Tensor:
    x = torch.zeros_like(states[-1])
    for weights, past in ((stage.states, states), (stage.x0, outputs)):
        for weight, one in zip(weights, reversed(past), strict=False):
            if weight:
                x = x.add(one, alpha=weight)
    return x


def _guessed(plan: Plan, steps: list[_Step], denoise: Denoiser, end: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A first guess of every call's state and output: Euler's steps upwards, with the output at the lower level."""
    states, outputs = [end] * (plan.nfe + 1), [end] * plan.nfe
    level = plan.stages[-1].result
    for step in steps:
        x = states[step.stop]
        output = denoise(x, level).to(x.dtype)
        x = (x - step.shift * output) / step.scale
        for k in range(step.first, step.stop):
            states[k], outputs[k] = x, output
        level = step.stages[0].level
    return states, outputs


def _chosen(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`one` for the images of `rows` (N,), `other` for the rest."""
    return torch.where(rows.view(-1, *(1,) * (one.ndim - 1)), one, other)


class _Anderson:
    """x + f(x), with the last tries combined so that what is left would be least were f linear (Anderson 1965)."""

    def __init__(self) -> None:
        self.tried: list[tuple[Tensor, Tensor]] = []

    def next(self, x: Tensor, f: Tensor) -> Tensor:
        """The next try after x, at which f was found; both (N, …). Each image has its own weights."""
        self.tried = [*self.tried[-MEMORY:], (x.flatten(1).double(), f.flatten(1).double())]
        if len(self.tried) == 1:
            return x + f
        xs, fs = (torch.stack(each, 2) for each in zip(*self.tried, strict=True))  # (N, d, tries)
        dx, df = xs.diff(dim=2), fs.diff(dim=2)
        gram = df.transpose(1, 2) @ df
        ridge = 1e-13 * gram.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-300)
        gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram, df.transpose(1, 2) @ fs[:, :, -1:])
        step = fs[:, :, -1:] - (dx + df) @ weights
        return (xs[:, :, -1:] + step).view(x.shape).to(x.dtype)
