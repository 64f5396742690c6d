"""A plan as text that anybody can read, keep and run again: JSON with every float64 exact.

Beside the coefficients stand the N+1 levels of the schedule that the plan was made for, and their process.
The text is canonical: the same numbers over the same levels, declared alike, are one text, and its hash names them.

A plan that was learned for a model says so in a block `learned`: for which model, guidance scale and number of calls,
from what, and how good it is. Nothing derives its coefficients, so they are checked where they are written and read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage

FORMAT, VERSION = "sampler-plan", 1
CONSTANTS = 1e-12  # what a learned plan may miss of a state that it must follow exactly
LEARNED = {"model": str, "model_fingerprint": str, "cfg": float, "nfe": int}  # what `learned` must hold


class SavedPlan(NamedTuple):
    """A plan read back, with the schedule it was made for: arrays (N+1,) of α, σ and model time."""

    plan: Plan
    alpha: np.ndarray
    sigma: np.ndarray
    time: np.ndarray
    process: Mapping[str, Any]  # kind of the forward process, its trained steps, σ/α at both ends and in the middle
    learned: Mapping[str, Any] | None = None  # what it was learned for, from what and how good it is

    @property
    def steps(self) -> int:
        return len(self.alpha) - 1


def dumps(plan: Plan, levels: NoiseLevels, learned: Mapping[str, Any] | None = None) -> str:
    """The plan and the levels it was made for as JSON, one line per stage.

    `learned`: where it was learned for a model, what for, from what and how good it is, plain values. ValueError for
    one that lacks the model, its fingerprint, the guidance scale or the calls, or whose plan misses constants.
    """
    head = {
        "format": FORMAT,
        "version": VERSION,
        "process": describe(levels.process),
        "levels": {name: getattr(levels, name).tolist() for name in ("alpha", "sigma", "time")},
        "capabilities": asdict(plan.capabilities),
        "start": plan.start,
    }
    if learned is not None:
        head["learned"] = _learned(learned, plan)
    lines = [f"{_text(name)}: {_text(value)}" for name, value in head.items()]
    stages = ",\n".join(map(_stage_text, plan.stages))
    return "{\n" + ",\n".join([*lines, f'"stages": [\n{stages}\n]']) + "\n}\n"


def loads(text: str | bytes) -> SavedPlan:
    """Read what `dumps` wrote. ValueError in one line for what is damaged, foreign or of a later version.

    >>> from samplers import registry, schedules
    >>> from samplers.core.levels import DiscreteVP
    >>> levels = schedules.build("karras", DiscreteVP.scaled_linear(), 3)
    >>> plan = registry.build_plan({"solver": "dpmpp"}, levels)
    >>> loads(dumps(plan, levels)).plan == plan
    True
    """
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error}): damaged or cut short?") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f'it is JSON but no sampler plan ("format" is not "{FORMAT}")')
    if values.get("version") != VERSION:
        raise ValueError(f"it has version {values.get('version')!r} of the format; this code reads {VERSION}")
    try:
        plan = Plan(
            _level(values["start"]), tuple(map(_stage, values["stages"])), _capabilities(values["capabilities"])
        )
        alpha, sigma, time = (np.array(_numbers(values["levels"][name])) for name in ("alpha", "sigma", "time"))
        process = _process(values["process"])
        learned = values.get("learned")
        if learned is not None:
            learned = _learned(learned, plan)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a part is missing or of the wrong kind ({type(error).__name__}: {error})") from error
    if not plan.stages or not len(alpha) == len(sigma) == len(time) >= 2:
        raise ValueError("a plan needs a stage and the levels of at least one step")
    return SavedPlan(plan, alpha, sigma, time, process, learned)


def constants_missed(plan: Plan) -> float:
    """How far the plan is from following exactly a denoiser that always gives one answer, and pure noise without one.

    Every state x_i must be α_i times that answer where the start is α_0 times it, and σ_i/σ_0 times the start where the
    answer is 0: the largest difference over all states. 1e-16 for every method of order 1 or more.

    >>> level, clean = Level(0.6, 0.8, 500), Level(1.0, 0.0, 0)
    >>> stage = Stage(level, clean, (0.0,), (0.97,))
    >>> round(constants_missed(Plan(level, (stage,), Capabilities(order=1, nfe=1))), 3)
    0.03
    """
    own, answers = np.split(plan.influence()[:, : 1 + plan.nfe], [1], axis=1)
    states = np.array([*(stage.level for stage in plan.stages), plan.stages[-1].result])
    signal = plan.start.alpha * own[:, 0] + answers.sum(1) - states[:, 0]
    noise = plan.start.sigma * own[:, 0] - states[:, 1]
    return float(np.abs([signal, noise]).max())


def identity(text: str) -> str:
    """16 hexadecimal digits that name the plan: the hash of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(process: Process) -> Mapping[str, Any]:
    """What must agree for the times in a plan to mean the same to another model."""
    return {
        "kind": type(process).__name__,
        "train_steps": process.train_steps,
        "ratios": [float(process.table[k]) for k in (0, process.train_steps // 2, -1)],
    }


def same_process(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of one training schedule, up to rounding."""
    return (
        one.get("kind") == other.get("kind")
        and one.get("train_steps") == other.get("train_steps")
        and np.shape(one["ratios"]) == np.shape(other["ratios"])
        and np.allclose(one["ratios"], other["ratios"], rtol=1e-9, atol=0)
    )


def _stage_text(stage: Stage) -> str:
    """Without `since` where it says nothing, so that a plan of one call a step has the text it always had."""
    return _text({name: value for name, value in asdict(stage).items() if name != "since" or value is not None})


def _learned(values: Any, plan: Plan) -> Mapping[str, Any]:
    """The block of a learned plan, if it holds what it must and the plan is one that can be trusted with constants."""
    if not isinstance(values, Mapping):
        raise TypeError("learned is an object that says what the plan was learned for")
    for name, kind in LEARNED.items():
        given = values[name]
        if isinstance(given, bool) or not isinstance(given, (int, float) if kind is float else kind):
            raise TypeError(f"learned.{name} is {given!r:.40}, not {'a number' if kind is not str else 'a text'}")
    if values["nfe"] != plan.nfe:
        raise ValueError(f"it was learned for {values['nfe']} calls and holds {plan.nfe}: it was changed by hand")
    missed = constants_missed(plan)
    if not missed <= CONSTANTS:
        raise ValueError(
            f"its learned coefficients miss a constant by {missed:.2g} (at most {CONSTANTS:g} is rounding): they were "
            "changed by hand, or written by a faulty optimiser"
        )
    return dict(values)


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}: every number of a plan is finite")


def _stage(values: Mapping[str, Any]) -> Stage:
    churn = _numbers(values["churn"])
    if len(churn) != 2:
        raise TypeError("churn is a pair of numbers")
    numbers = {name: tuple(_numbers(values[name])) for name in ("states", "x0")}
    noise = _numbers([values["noise"]])[0]
    since = values.get("since")
    level, result = _level(values["level"]), _level(values["result"])
    drawn = {"noise": noise, "churn": (churn[0], churn[1]), "since": None if since is None else _level(since)}
    return Stage(level, result, **numbers, **drawn)


def _level(values: Any) -> Level:
    return Level(*_numbers(values))


def _process(values: Any) -> Mapping[str, Any]:
    if not isinstance(values, dict) or len(_numbers(values.get("ratios"))) != 3:
        raise TypeError("process is an object with three ratios")
    return values


def _capabilities(values: Mapping[str, Any]) -> Capabilities:
    order, nfe, stochastic = (values[name] for name in ("order", "nfe", "stochastic"))
    if not isinstance(stochastic, bool) or not all(isinstance(number, (int, float)) for number in (order, nfe)):
        raise TypeError("capabilities are order and nfe, numbers, and stochastic, true or false")
    return Capabilities(order=order, nfe=nfe, stochastic=stochastic)


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise TypeError(f"expected a list of numbers, found {str(values)[:40]!r}")
    numbers = [float(v) for v in values]
    if not all(map(math.isfinite, numbers)):  # 1e999 is read as infinity
        raise ValueError("every number of a plan is finite, its levels as well as its coefficients")
    return numbers
