"""What a user asks of `PlanScheduler`: a sampler and a schedule by name and knobs, a number of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from samplers import schedules
from samplers.core.levels import NoiseLevels
from samplers.hosts.replaced import Replaced

Spec = str | Mapping[str, Any]  # a name, or {"name": …, **knobs}


def named(spec: Spec, what: str) -> dict[str, Any]:
    if isinstance(spec, str):
        return {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ValueError(f"{what}={spec!r} is not valid: give a name, or a mapping of its name and knobs")
    return dict(spec)


def plain(what: str, spec: Spec) -> Spec:
    """What was asked as the configuration holds it: plain values, which can be saved."""
    try:
        return json.loads(json.dumps(spec if isinstance(spec, str) else dict(spec)))
    except TypeError as error:
        raise ValueError(f"{what}={spec!r} holds a value that cannot be saved: {error}") from error


def spaced(schedule: Mapping[str, Any], model: Replaced, steps: int | None) -> NoiseLevels:
    """The levels of the schedule for this model; a ValueError where the number of steps is missing."""
    if steps is None:
        raise ValueError(f"schedule={schedule['name']} needs a number of steps: give num_inference_steps")
    return schedules.build(process=model.process, steps=steps, **schedule)


def as_many(levels: NoiseLevels, steps: int | None, schedule: Mapping[str, Any]) -> NoiseLevels:
    """The levels. ValueError unless there are as many as were asked for, since a pipeline relies on the number."""
    if levels.steps != steps:
        raise ValueError(
            f"schedule={schedule['name']} has {levels.steps} steps: ask for num_inference_steps={levels.steps}, "
            f"not {steps}"
        )
    return levels


def is_even(values: Any) -> bool:
    t = torch.as_tensor(values, dtype=torch.float64).flatten()
    steps = t.diff()
    return len(t) < 3 or bool((steps - steps.mean()).abs().max() <= 1e-3 * steps.mean().abs())
