"""The YAML files of conf/sampler are the registry: a new sampler is one file in samplers/solvers and one there.

Imports no torch: a process that only plans a sweep starts at once.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities

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
    if not hasattr(solver, "plan"):
        raise ValueError(f"sampler {sampler.get('name', 'unnamed')!r} chooses its steps while it runs: it has no plan")
    return solver.plan(levels, **knobs)


def has_own_levels(sampler: dict[str, Any] | str) -> bool:
    """Whether the solver brings the levels it runs on and plans for no others: a plan from a file."""
    return hasattr(_resolve(load(sampler) if isinstance(sampler, str) else sampler)[0], "schedule")


def settled(sampler: dict[str, Any]) -> dict[str, Any]:
    """The sampler with everything in it that decides what runs: of a file, its digest."""
    solver, knobs = _resolve(sampler)
    return {**sampler, **solver.settle(**knobs)} if hasattr(solver, "settle") else sampler


def is_adaptive(sampler: dict[str, Any] | str) -> bool:
    """Whether the solver chooses its own steps: it has no plan, and `solve` instead."""
    return hasattr(_resolve(load(sampler) if isinstance(sampler, str) else sampler)[0], "solve")


def solve(sampler: dict[str, Any], ends: NoiseLevels, denoise, x, noise=None, on_call=None):
    """Run an adaptive solver from the first of these levels to the last; one image, x (1, …)."""
    solver, knobs = _resolve(sampler)
    return solver.solve(ends, denoise, x, noise, on_call, **knobs)


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
    """The module of a solver family. Only files of samplers/solvers may be named, and only those that plan or solve."""
    folder = Path(__file__).parent / "solvers"
    if isinstance(name, str) and name.isidentifier() and (folder / f"{name}.py").is_file():
        module = importlib.import_module(f"{__package__}.solvers.{name}")
        if _entry(module) and inspect.isfunction(getattr(module, "capabilities", None)):
            return module
    raise ValueError(f"unknown solver {name!r}: {_nearest(name, sorted({load(each)['solver'] for each in names()}))}")


def _entry(module: ModuleType) -> Callable[..., Any] | None:
    """What runs a solver: `plan`, or `solve` of an adaptive one."""
    return next((f for f in (getattr(module, name, None) for name in ("plan", "solve")) if inspect.isfunction(f)), None)


def _signature(solver: ModuleType) -> dict[str, Any]:
    parameters = inspect.signature(_entry(solver)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _nearest(name: Any, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}valid: {', '.join(valid)}"
