"""Our samplers stepped by the schedulers of diffusers, on our levels, with our denoiser and noise.

How our levels get into a scheduler: it is told that it was trained at exactly these. It is built for as many training
timesteps as there are levels, its table of ᾱ is replaced by theirs, and its own `set_timesteps` lays them out: a
timestep then is a number into our levels, lowest first, and a fractional one lies between two of them in log σ. What
each scheduler does with float32 stays as it is (`widened.float64` takes it out).
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers import schedulers
from torch import Tensor

from samplers import registry
from samplers.core.levels import Level, NoiseLevels
from samplers.core.noise import NoiseStreams
from samplers.peers.counterparts import DIFFUSERS, NotThere, Scheduler, choose
from samplers.peers.draws import Draws
from samplers.peers.widened import patched

Denoiser = Callable[[Tensor, Level], Tensor]
SIGMA_DATA = 0.5  # the EDM schedulers ask for one; any value does, since it cancels


class Laid(NamedTuple):
    """A scheduler ready to step: the timesteps to hand it, and the level at which each wants the model's output."""

    scheduler: Any
    timesteps: Tensor
    calls: list[Level]


@torch.no_grad()
def run(
    asked: registry.Asked,
    levels: NoiseLevels,
    denoise: Denoiser,
    x: Tensor,
    noise: NoiseStreams | None = None,
    after_stage: Callable[[Tensor, Level], Tensor] | None = None,
    on_call: Callable[[int], None] | None = None,
    row: Scheduler | None = None,
) -> Tensor:
    """The state at the last level, from `x` at the first; the same contract as samplers.core.integrate.integrate.

    `row` runs that counterpart and no other.
    """
    sampler = registry.sampler(asked)
    chosen = choose(DIFFUSERS, "diffusers", sampler, levels) if row is None else row
    knobs = sampler.knobs
    with _quiet():
        scheduler, timesteps, calls = LAYOUTS[chosen.layout](chosen, knobs, levels)
    plan = sampler.plan(levels)
    ratios = [level.ratio for stage in plan.stages for level in (stage.level, stage.result)]
    draws = Draws(noise, x, ratios, on=plan.draws > 0)
    state_at, output_for, arguments = STATES[chosen.state], PREDICTIONS[chosen.prediction], chosen.step(knobs)
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = draws.between
    state = x * state_at(calls[0])
    module, i = sys.modules[type(scheduler).__module__], 0

    def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None) -> Tensor:
        """What stands in for the scheduler's own random numbers: noise where our plan draws, else zeros."""
        stage = plan.stages[i]
        return draws.between(stage.noise_from.ratio, stage.result.ratio) if stage.noise else draws.idle()

    with patched(module, **({"randn_tensor": randn_tensor} if hasattr(module, "randn_tensor") else {})):
        for i, (timestep, level) in enumerate(zip(timesteps, calls, strict=True)):
            seen = state / state_at(level)
            output = output_for(seen, denoise(seen, level), level)
            if on_call is not None:
                on_call(i)
            state = scheduler.step(output, timestep, state, return_dict=False, **arguments)[0]
            if after_stage is not None:
                reached = calls[i + 1] if i + 1 < len(calls) else levels[levels.steps]
                state = after_stage(state / state_at(reached), reached) * state_at(reached)
    return state / state_at(levels[levels.steps])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what diffusers says of options that it means to drop, and of a configuration given to a relative."""
    log = logging.getLogger("diffusers")
    before = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


# ------------------------------------------------------------------------------------------------------- the layouts


def _shown(row: Scheduler, knobs: Mapping[str, Any], levels: NoiseLevels) -> Laid:
    """Schedulers that step to σ = 0 after the last trained level. To end above it, the run stops one step before."""
    points = _points(levels)
    table = [point for point in points if point.sigma > 0]
    scheduler = _built(row, len(table), timestep_spacing="trailing", **row.settings(knobs, levels))
    _teach(scheduler, table)
    scheduler.set_timesteps(len(table))
    count = scheduler.order * levels.steps if len(table) > levels.steps else len(scheduler.timesteps)
    return _laid(scheduler, scheduler.timesteps[:count], table, levels)


def _spaced(row: Scheduler, knobs: Mapping[str, Any], levels: NoiseLevels) -> Laid:
    """Schedulers that leave their lowest trained level to the end, or step to σ = 0 instead (`final_sigmas_type`)."""
    table = _points(levels)
    settings = {**_final(row, table), **row.settings(knobs, levels)}
    if table[-1].sigma == 0:  # never evaluated, but its logarithm is taken
        table[-1] = levels.process.level(table[-2].ratio / 2)
    scheduler = _built(row, len(table), **settings)
    _teach(scheduler, table)
    scheduler.set_timesteps(levels.steps)
    return _laid(scheduler, scheduler.timesteps, table, levels)


def _trained(row: Scheduler, knobs: Mapping[str, Any], levels: NoiseLevels) -> Laid:
    """Schedulers that walk over ᾱ by timesteps: a second set of levels, half-way in time, is there for half steps."""
    points = _points(levels)
    table = [level for k in range(levels.steps) for level in (points[k], _half_way(points[k], points[k + 1], levels))]
    table = table[:-1]
    scheduler = _built(row, 2 * levels.steps, **row.settings(knobs, levels))
    _teach(scheduler, table)
    scheduler.alphas_cumprod = torch.cat([scheduler.alphas_cumprod, scheduler.alphas_cumprod[-1:]])
    scheduler.final_alpha_cumprod = _cumprod([points[-1]])[0]
    scheduler.set_timesteps(levels.steps)
    return _laid(scheduler, scheduler.timesteps, table, levels)


def _given(row: Scheduler, knobs: Mapping[str, Any], levels: NoiseLevels) -> Laid:
    """Schedulers that are not made from a table of training levels: noise and signal are put where they keep them."""
    points = _points(levels)
    scheduler = _built(row, **_final(row, points), **row.settings(knobs, levels))
    scheduler.set_timesteps(levels.steps)
    if hasattr(scheduler, "betas"):
        scheduler.betas = torch.tensor(
            [p.sigma / math.hypot(p.alpha, p.sigma) for p in points], dtype=torch.get_default_dtype()
        )
        scheduler.alphas = torch.tensor(
            [p.alpha / math.hypot(p.alpha, p.sigma) for p in points], dtype=torch.get_default_dtype()
        )
    noise = [p.ratio if row.state == "ve" else p.sigma / (p.alpha + p.sigma) for p in points]
    calls = list(range(levels.steps))
    if scheduler.order == 2:  # two calls a step, the second at its end; to end above σ = 0 it stops before a step there
        if noise[-1] > 0:
            noise, calls = [*noise, 0.0], [*calls, levels.steps]
        noise = [noise[0], *(value for value in noise[1:-1] for _ in range(2)), noise[-1]]
        calls = [calls[0], *(k for k in calls[1:] for _ in range(2))][: 2 * levels.steps]
    scheduler.sigmas = torch.tensor(noise, dtype=torch.get_default_dtype())
    scheduler.timesteps = torch.tensor([levels.steps - k for k in calls], dtype=torch.get_default_dtype())
    return _laid(scheduler, scheduler.timesteps, points, levels)


def _timesteps(row: Scheduler, knobs: Mapping[str, Any], levels: NoiseLevels) -> Laid:
    """Schedulers that reckon with the number of the timestep itself: every level must be a trained one."""
    table = levels.process.table
    times = levels.time[:-1].astype(int)
    if not np.allclose(levels.ratio[:-1], table[times], rtol=1e-9):
        raise ValueError(
            f"{row.name} reckons with whole timesteps: choose a schedule of trained levels (trailing, leading, simple)"
        )
    scheduler = _built(row, len(table), **row.settings(knobs, levels))
    scheduler.alphas_cumprod = torch.tensor(1 / (1 + table**2), dtype=torch.get_default_dtype())
    scheduler.num_inference_steps = levels.steps
    scheduler.timesteps = torch.from_numpy(times)
    scheduler.set_begin_index(0)
    return Laid(scheduler, scheduler.timesteps, _points(levels)[:-1])


LAYOUTS = {"shown": _shown, "spaced": _spaced, "trained": _trained, "given": _given, "timesteps": _timesteps}


def _kind(row: Scheduler) -> type:
    kind = getattr(schedulers, row.name, None)
    if kind is None:
        raise NotThere(f"diffusers {diffusers.__version__} has no {row.name}")
    return kind


def _built(row: Scheduler, train_steps: int | None = None, **settings: Any) -> Any:
    if train_steps is not None:
        settings["num_train_timesteps"] = train_steps
    return _kind(row)(**settings)


def _final(row: Scheduler, points: list[Level]) -> dict[str, str]:
    """How the scheduler is told where it ends, if it can be told."""
    takes = inspect.signature(_kind(row)).parameters
    return (
        {"final_sigmas_type": "zero" if points[-1].sigma == 0 else "sigma_min"} if "final_sigmas_type" in takes else {}
    )


def _teach(scheduler: Any, table: list[Level]) -> None:
    """The scheduler was trained at these levels (given noisiest first, as ours are; its own table is the reverse)."""
    scheduler.alphas_cumprod = _cumprod(table[::-1])


def _cumprod(levels: list[Level]) -> Tensor:
    """ᾱ in the type of the schedulers' own table: torch's default, which `widened.float64` widens too."""
    return torch.tensor([1 / (1 + level.ratio**2) for level in levels], dtype=torch.get_default_dtype())


def _laid(scheduler: Any, timesteps: Tensor, table: list[Level], levels: NoiseLevels) -> Laid:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True  # we scale by ourselves; without it every step warns
    upwards = table[::-1]
    return Laid(scheduler, timesteps, [_level(float(t), upwards, levels) for t in timesteps])


def _level(timestep: float, upwards: list[Level], levels: NoiseLevels) -> Level:
    nearest = round(timestep)
    if abs(timestep - nearest) < 1e-4:
        return upwards[nearest]
    logs = [math.log(level.ratio) for level in upwards]
    return levels.process.level(math.exp(np.interp(timestep, np.arange(len(logs)), logs)))


def _points(levels: NoiseLevels) -> list[Level]:
    return [levels[k] for k in range(len(levels))]


def _half_way(above: Level, below: Level, levels: NoiseLevels) -> Level:
    return levels.process.level(float(levels.process.ratio((above.time + below.time) / 2)))


# -------------------------------------------------------------------------------------- scalings of state and output

STATES: dict[str, Callable[[Level], float]] = {  # what our state is multiplied by to be theirs
    "ve": lambda level: 1 / level.alpha,
    "vp": lambda level: 1 / math.hypot(level.alpha, level.sigma),
    "flow": lambda level: 1 / (level.alpha + level.sigma),
}


def _epsilon(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x0) / level.sigma


def _v(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """v of a variance-preserving state."""
    return (level.alpha * _epsilon(x, x0, level) - level.sigma * x0) / math.hypot(level.alpha, level.sigma)


def _flow(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return _epsilon(x, x0, level) - x0


def _edm(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """The raw output F of 2206.00364, eq. 7, that its preconditioning turns into x0."""
    wide = level.ratio**2 + SIGMA_DATA**2
    return (x0 - SIGMA_DATA**2 / wide * (x / level.alpha)) * (math.sqrt(wide) / (level.ratio * SIGMA_DATA))


PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Level], Tensor]] = {
    "epsilon": _epsilon,
    "v_prediction": _v,
    "flow": _flow,
    "edm": _edm,
}
