"""The YAML files of conf/sampler are the registry: a new sampler is one Python file here and one file there.

Imports no torch: a process that only plans a sweep starts at once.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from samplers.levels import NoiseLevels
from samplers.plan import Capabilities, Plan

CONF = Path(__file__).resolve().parents[1] / "conf" / "sampler"
_NOT_KNOBS = ("name", "solver", "default_schedule")


def names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """The sampler's YAML as a plain dict; an unknown name is a ValueError that lists the valid ones."""
    if name not in names():
        raise ValueError(f"unknown sampler {name!r}: {_nearest(name, names())}")
    return yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))


def build_plan(sampler: dict[str, Any], levels: NoiseLevels) -> Plan:
    """The plan of `{"name": …, "solver": "dpmpp", **knobs}` over these levels; knobs left out have their defaults."""
    solver, knobs = _resolve(sampler)
    return solver.plan(levels, **knobs)


def capabilities(sampler: dict[str, Any] | str, steps: int) -> Capabilities:
    """What the solver declares for so many steps: order, denoiser calls, whether it draws noise."""
    solver, knobs = _resolve(load(sampler) if isinstance(sampler, str) else sampler)
    return solver.capabilities(steps, **knobs)


def knobs(sampler: dict[str, Any] | str) -> dict[str, Any]:
    """Every knob of the sampler with the value it will have."""
    solver, given = _resolve(load(sampler) if isinstance(sampler, str) else sampler)
    return {name: given.get(name, default) for name, default in _signature(solver).items()}


def _resolve(sampler: dict[str, Any]) -> tuple[ModuleType, dict[str, Any]]:
    name = sampler.get("name", "unnamed")
    solver = _solver(sampler.get("solver", name))
    given = {key: value for key, value in sampler.items() if key not in _NOT_KNOBS}
    valid = _signature(solver)
    for key in given:
        if key not in valid:
            raise ValueError(f"sampler {name!r} has no knob {key!r}: {_nearest(key, list(valid))}")
    return solver, given


def _solver(name: str) -> ModuleType:
    """The module of a solver family. Only files of this package may be named, and only those that plan."""
    folder = Path(__file__).parent
    if isinstance(name, str) and name.isidentifier() and (folder / f"{name}.py").is_file():
        module = importlib.import_module(f"{__package__}.{name}")
        if inspect.isfunction(getattr(module, "plan", None)) and inspect.isfunction(
            getattr(module, "capabilities", None)
        ):
            return module
    raise ValueError(f"unknown solver {name!r}: {_nearest(name, sorted({load(each)['solver'] for each in names()}))}")


def _signature(solver: ModuleType) -> dict[str, Any]:
    parameters = inspect.signature(solver.plan).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _nearest(name: Any, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}valid: {', '.join(valid)}"
