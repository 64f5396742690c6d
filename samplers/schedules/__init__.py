"""Schedules are pure functions that choose the N+1 noise levels of N steps. This module finds them by name.

`end` says what the last level is: "zero" (a clean state, by x0-prediction from the level before) or "sigma_min" (the
lowest level the model was trained at). `rounding` says what the model is told: "none" keeps time fractional and true to
σ; "diffusers" reproduces what the schedulers of diffusers tell their model while they step with another σ.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from samplers.core.levels import NoiseLevels, Process
from samplers.schedules import flow, searched, sigma, time
from samplers.solvers.plan_file import EXAMPLE, PlanFile


def file(process: Process, steps: int, *, file: str = EXAMPLE, sha256: str | None = None) -> NoiseLevels:
    """The levels that a plan file was made for. The file has its own number of steps; `steps` is not looked at."""
    return PlanFile(file, sha256).schedule(process)


FAMILIES = {
    sigma: ("karras", "exponential", "logsnr", "polyexponential", "vp", "lu_lambdas", "kl_optimal", "linear_quadratic"),
    time: (
        "normal", "sgm_uniform", "time_uniform", "time_quadratic", "simple", "ddim_uniform", "linspace", "leading",
        "trailing", "beta",
    ),
    flow: ("flow_shift",),
    searched: ("ays", "gits"),
}  # fmt: skip

SCHEDULES: dict[str, Callable[..., NoiseLevels]] = {
    **{name: getattr(family, name) for family, names in FAMILIES.items() for name in names},
    "file": file,
}
# For each schedule that reads a file, the function that fills in the digest of the file's content.
SETTLE: dict[str, Callable[..., Mapping[str, Any]]] = {
    "gits": searched.settle,
    "file": lambda **knobs: PlanFile(**knobs).settle(),
}


def names() -> list[str]:
    return sorted(SCHEDULES)


def build(name: str, process: Process, steps: int, **knobs) -> NoiseLevels:
    """The levels of the named schedule; an unknown name or knob is a ValueError that lists the valid ones.

    >>> from samplers.core.levels import DiscreteVP
    >>> levels = build("karras", DiscreteVP.scaled_linear(), 3, rho=7.0)
    >>> levels.ratio.round(3)
    array([14.615,  1.274,  0.029,  0.   ])
    >>> levels.time.round(1)
    array([999. , 427.5,   0. ,   0. ])
    """
    if name not in SCHEDULES:
        close = difflib.get_close_matches(str(name), SCHEDULES, n=1, cutoff=0.5)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown schedule {name!r}: {guess}valid: {', '.join(names())}")
    function = SCHEDULES[name]
    valid = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for knob in knobs:
        if knob not in valid:
            raise ValueError(f"the {name} schedule has no knob {knob!r}; valid: {', '.join(valid)}")
    return function(process, steps, **knobs)


def settle(schedule: Mapping[str, Any]) -> Mapping[str, Any]:
    """The knobs of a schedule (`name` and knobs) that name a file, with its digest; empty where it reads none."""
    kind = SETTLE.get(schedule["name"])
    return {} if kind is None else kind(file=schedule["file"], sha256=schedule.get("sha256"))


def settled(schedule: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schedule with everything that decides its levels: a file is joined by its digest."""
    return {**schedule, **settle(schedule)}
