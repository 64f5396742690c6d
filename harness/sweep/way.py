"""How many steps a cell runs, tried on its model's own noise levels before a model is loaded. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from harness.axes import AXIS
from harness.bounds import MOST_STEPS
from harness.errors import InputError
from harness.models.base import Kind
from harness.specs import ModelSpec, ScheduleSpec
from harness.tasks.base import Task
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.peers import load as peers
from samplers.registry import Sampler

ENDS = 2  # steps of a schedule that only gives an adaptive solver its two ends: the second call is its lowest level
TRAINED = 1500  # timesteps, at least, that models are trained at: 1,000 of nearly all


class Way(NamedTuple):
    """Steps of the schedule, and whether noise is added between levels."""

    steps: int
    stochastic: bool


class Tried(NamedTuple):
    """What so many steps come to: the levels that run (None where nothing does) and the plan over them."""

    steps: int
    levels: NoiseLevels | None
    plan: Plan | None


@dataclass(frozen=True)
class Walk:
    """What decides the noise levels of a cell, and who walks them."""

    task: Task
    kind: Kind
    model: ModelSpec
    sampler: Sampler
    schedule: ScheduleSpec
    strength: float | None
    keep_steps: bool
    implementation: str

    def way(self, steps: Any, nfe: Any) -> Way:
        """The steps of the cell: `steps`, what `nfe` calls pay for, or its file's. InputError for what cannot be."""
        if self.sampler.adaptive:
            return self._adaptive(steps)
        if self.schedule.name == "file":
            tried = self._try(self._of_file())
        elif nfe is not None:
            tried = self._affordable(AXIS["nfe"].valid(nfe))
        else:
            tried = self._try(AXIS["steps"].valid(steps))
        self._check_implementation(tried.levels)
        if tried.plan is not None and tried.levels is not None:
            try:
                self.task.check_plan(tried.plan, tried.levels)
            except ValueError as error:
                raise InputError(f"task={self.task.name} with sampler={self.sampler.name}: {error}") from error
        return Way(tried.steps, tried.plan is not None and any(stage.noise for stage in tried.plan.stages))

    def _adaptive(self, given: Any) -> Way:
        """The solver chooses its steps itself. `steps` says where a strength enters, and nothing without one."""
        if self.task.inverts:
            raise InputError(f"sampler={self.sampler.name} chooses its own steps: not with task={self.task.name}")
        if self.task.name == "inpaint":
            raise InputError(f"sampler={self.sampler.name} chooses its own steps and cannot blend: not with inpaint")
        steps = ENDS if self.strength is None else AXIS["steps"].valid(given)
        levels = self._levels(steps)
        try:
            stochastic = self.sampler.declares(steps).stochastic
        except ValueError as error:
            raise self._cannot(error) from error
        self._check_implementation(levels)
        return Way(steps, stochastic)

    def _of_file(self) -> int:
        """The steps of a file are its own; a strength takes its share of them."""
        try:
            return self._schedule(1).steps
        except ValueError as error:
            raise self._cannot(error) from error

    def _affordable(self, nfe: int) -> Tried:
        if self.strength == 0:  # nothing runs, whatever the steps
            return Tried(nfe, None, None)
        share = 1.0 if self.strength is None or self.keep_steps else self.strength
        run = min(nfe, MOST_STEPS)
        while run >= 1:
            most = min((run + 1) / share, MOST_STEPS + 1)
            steps = math.ceil(most - 1e-9) - 1  # the most of which a strength runs so many
            try:
                tried = self._try(steps)
            except InputError:
                if run == 1:
                    raise
                tried = Tried(steps, None, None)
            if tried.plan is not None and tried.plan.nfe <= nfe:
                return tried
            run -= _too_many(run, nfe, tried.plan)
        raise InputError(f"nfe={nfe} does not pay for one step of sampler={self.sampler.name}: give more")

    def _try(self, steps: int) -> Tried:
        """So many steps: their levels and plan, built once."""
        levels = self._levels(steps)
        try:
            with _strict():
                return Tried(steps, levels, None if levels is None else self.sampler.plan(levels))
        except InputError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise self._cannot(error) from error

    def _levels(self, steps: int) -> NoiseLevels | None:
        try:
            with _strict():
                return self.task.levels(self._schedule, steps, self.strength, self.keep_steps)[0]
        except InputError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise self._cannot(error) from error

    def _schedule(self, steps: int) -> NoiseLevels:
        return self.kind.levels(self.model, self.schedule, steps)

    def _check_implementation(self, levels: NoiseLevels | None) -> None:
        if self.implementation == "native":
            return
        try:
            peers.check(self.implementation, self.sampler, self.task.name, levels)
        except ValueError as error:
            raise InputError(str(error)) from error

    def _cannot(self, error: Exception) -> InputError:
        if isinstance(error, ArithmeticError):
            error = ValueError(f"their arithmetic fails ({error}): give values nearer to the defaults of conf")
        return InputError(f"{self.sampler.name} with {self.schedule.name} levels: {error}")


def find(walk: Walk, steps: Any, nfe: Any) -> Way:
    """`Walk.way` as a function of plain values, which a sweep remembers by."""
    return walk.way(steps, nfe)


def _strict() -> np.errstate:
    """What overflows or has no value is an error where it happens: no warning on the terminal, no NaN later."""
    return np.errstate(over="raise", divide="raise", invalid="raise")


def _too_many(run: int, nfe: int, plan: Plan | None) -> int:
    """By how many fewer steps to go on, so that no answer is jumped over, and yet it is not long in coming."""
    if plan is None:  # no schedule has more levels than its model was trained at: in tenths to where that may end
        return max(1, (run - TRAINED) // 10)
    return max(1, (plan.nfe - nfe) // (2 * math.ceil(plan.nfe / run)))  # a step costs at most twice the average
