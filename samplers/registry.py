"""The YAML files of conf/sampler are the registry: a new sampler is one file in samplers/solvers and one there.

A sampler is `{"name": …, "solver": "dpmpp", **knobs}`; `solver` makes the object (samplers/core/solver.py) that the
other functions ask. Nothing here imports torch, so that a process that only plans a sweep starts at once.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from samplers import solvers
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities

CONF = Path(__file__).resolve().parents[1] / "conf" / "sampler"
NOT_KNOBS = ("name", "solver", "default_schedule")  # the keys of a sampler's YAML that are not knobs


def names() -> list[str]:
    """The samplers of conf/sampler, sorted.

    >>> "dpmpp" in names()
    True
    """
    return sorted(path.stem for path in CONF.glob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """The sampler's YAML as a plain dict; an unknown name is a ValueError that lists the valid ones.

    >>> load("ddim")
    {'name': 'ddim', 'solver': 'ddim', 'default_schedule': 'leading', 'eta': 0.0}
    """
    if name not in names():
        raise ValueError(f"unknown sampler {name!r}: {_nearest(name, names())}")
    return yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))


def solver(sampler: dict[str, Any] | str) -> Solver:
    """The solver of a sampler with its knobs, or of the YAML of that name; knobs left out have their defaults.

    ValueError for an unknown solver or knob (the valid ones are listed) and for a knob's value that is not valid.

    >>> solver({"solver": "ddim", "eta": 1.0})
    DDIM(eta=1.0)
    """
    sampler = load(sampler) if isinstance(sampler, str) else sampler
    name = sampler.get("name", "unnamed")
    kind = _kind(sampler.get("solver", name))
    given = {key: value for key, value in sampler.items() if key not in NOT_KNOBS}
    valid = [field.name for field in fields(kind)]
    for key in given:
        if key not in valid:
            raise ValueError(f"sampler {name!r} has no knob {key!r}: {_nearest(key, valid)}")
    return kind(**given)


def build_plan(sampler: dict[str, Any], levels: NoiseLevels) -> Plan:
    """The sampler's plan over these levels. ValueError for an adaptive sampler, which has none.

    >>> from samplers import schedules
    >>> from samplers.core.levels import DiscreteVP
    >>> levels = schedules.build("karras", DiscreteVP.scaled_linear(), 3)
    >>> print(build_plan({"solver": "dpmpp", "order": 2}, levels))
    call      time  sigma/alpha  new state
       0   999.000      14.6146  +0.788481 x  +0.563584 D
       1   427.489       1.2741  +0.0370623 x  +1.73269 D  -0.755993 D[-1]
       2     0.000    0.0291672  +1 D
    """
    made = solver(sampler)
    if made.adaptive:
        raise ValueError(f"sampler {sampler.get('name', 'unnamed')!r} chooses its steps while it runs: it has no plan")
    return made.plan(levels)


def has_own_levels(sampler: dict[str, Any] | str) -> bool:
    """Whether the solver brings the levels it runs on and plans for no others: a plan from a file."""
    return solver(sampler).own_levels


def settled(sampler: dict[str, Any]) -> dict[str, Any]:
    """The sampler with everything that decides what runs: a knob that names a file is joined by the file's digest."""
    return {**sampler, **solver(sampler).settle()}


def is_adaptive(sampler: dict[str, Any] | str) -> bool:
    """Whether the solver chooses its own steps: it has no plan, and `solve` instead."""
    return solver(sampler).adaptive


def solve(sampler: dict[str, Any], ends: NoiseLevels, denoise, x, noise=None, on_call=None):
    """Run an adaptive solver from the first of these levels to the last; one image, x (1, …)."""
    return solver(sampler).solve(ends, denoise, x, noise, on_call)


def capabilities(sampler: dict[str, Any] | str, steps: int) -> Capabilities:
    """What the solver declares for so many steps: order, denoiser calls, whether it draws noise.

    >>> capabilities("heun", 10)
    Capabilities(order=2, nfe=20, stochastic=False)
    """
    return solver(sampler).declares(steps)


def knobs(sampler: dict[str, Any] | str) -> dict[str, Any]:
    """Every knob of the sampler with the value it will have.

    >>> knobs({"solver": "ddim"})
    {'eta': 0.0}
    """
    made = solver(sampler)
    return {field.name: getattr(made, field.name) for field in fields(made)}


def _kind(name: Any) -> type[Solver]:
    """The class of a solver. Only modules in the folders of samplers/solvers may be named."""
    word = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not word or not any((Path(folder) / f"{name}.py").is_file() for folder in solvers.__path__):
        valid = sorted({load(each)["solver"] for each in names()})
        raise ValueError(f"unknown solver {name!r}: {_nearest(name, valid)}")
    return importlib.import_module(f"{solvers.__name__}.{name}").SOLVER


def _nearest(name: Any, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}valid: {', '.join(valid)}"
