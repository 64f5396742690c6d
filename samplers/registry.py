"""The YAML files of conf/sampler are the registry: a new sampler is one file in samplers/solvers and one there.

A sampler is asked for by its name or as `{"name": …, "solver": "dpmpp", **knobs}`. `sampler` makes the `Sampler` of it,
once, and whoever goes on with it carries that; the other functions take any of the three. Nothing here imports torch,
so that a process that only plans a sweep starts at once.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from samplers import solvers
from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities

if TYPE_CHECKING:
    from torch import Tensor

    from samplers.core.noise import NoiseStreams

CONF = Path(__file__).resolve().parents[1] / "conf" / "sampler"
NOT_KNOBS = ("name", "solver", "default_schedule", "few_calls")  # the keys of a sampler's YAML that are not knobs


@dataclass(frozen=True)
class Sampler:
    """A sampler with everything resolved: its name, the solver that has its knobs, and the levels that suit it."""

    name: str
    solver: Solver
    default_schedule: str | None = None  # what schedule=auto means; None: its YAML was not asked

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps: it has no plan, and `solve` instead."""
        return self.solver.adaptive

    @property
    def own_levels(self) -> bool:
        """Whether the solver brings the levels it runs on and plans for no others: a plan from a file."""
        return self.solver.own_levels

    @property
    def knobs(self) -> Mapping[str, Any]:
        """Every knob with its value."""
        return {field.name: getattr(self.solver, field.name) for field in fields(self.solver)}

    def declares(self, steps: int) -> Capabilities:
        """Order, denoiser calls and whether noise is drawn, for so many steps."""
        return self.solver.declares(steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        """The plan over these levels. ValueError for an adaptive sampler, which has none."""
        if self.adaptive:
            raise ValueError(f"sampler {self.name!r} chooses its steps while it runs: it has no plan")
        return self.solver.plan(levels)

    def solve(
        self,
        ends: NoiseLevels,
        denoise: Callable[[Tensor, Level], Tensor],
        x: Tensor,
        noise: NoiseStreams | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Run an adaptive solver from the first of these levels to the last; one image, x (1, …)."""
        return self.solver.solve(ends, denoise, x, noise, on_call)


Asked = Sampler | Mapping[str, Any] | str  # a name, a name with a solver and knobs, or what was made of one of them


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


def sampler(asked: Asked) -> Sampler:
    """What was asked for, resolved; knobs left out have their defaults, and a `Sampler` is itself.

    ValueError for an unknown name, solver or knob (the valid ones are listed) and for a knob's value that is not valid.

    >>> sampler({"name": "noisy", "solver": "ddim", "eta": 1.0})
    Sampler(name='noisy', solver=DDIM(eta=1.0), default_schedule=None)
    """
    if isinstance(asked, Sampler):
        return asked
    given = load(asked) if isinstance(asked, str) else asked
    method: Any = given.get("solver", given.get("name"))
    name, kind = given.get("name", method), _kind(method)
    knobs = {key: value for key, value in given.items() if key not in NOT_KNOBS}
    valid = [field.name for field in fields(kind)]
    for key in knobs:
        if key not in valid:
            raise ValueError(f"sampler {name!r} has no knob {key!r}: {_nearest(key, valid)}")
    return Sampler(name, kind(**knobs), given.get("default_schedule"))


def solver(asked: Asked) -> Solver:
    """The solver of a sampler, with its knobs.

    >>> solver({"solver": "ddim", "eta": 1.0})
    DDIM(eta=1.0)
    """
    return sampler(asked).solver


def build_plan(asked: Asked, levels: NoiseLevels) -> Plan:
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
    return sampler(asked).plan(levels)


def has_own_levels(asked: Asked) -> bool:
    """Whether the solver brings the levels it runs on and plans for no others: a plan from a file."""
    return sampler(asked).own_levels


def settled(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler with everything that decides what runs: a knob that names a file is joined by the file's digest."""
    return {**asked, **solver(asked).settle()}


def is_adaptive(asked: Asked) -> bool:
    """Whether the solver chooses its own steps: it has no plan, and `solve` instead."""
    return sampler(asked).adaptive


def solve(asked: Asked, ends: NoiseLevels, denoise, x, noise=None, on_call=None):
    """Run an adaptive solver from the first of these levels to the last; one image, x (1, …)."""
    return sampler(asked).solve(ends, denoise, x, noise, on_call)


def capabilities(asked: Asked, steps: int) -> Capabilities:
    """What the solver declares for so many steps: order, denoiser calls, whether it draws noise.

    >>> capabilities("heun", 10)
    Capabilities(order=2, nfe=20, stochastic=False)
    """
    return sampler(asked).declares(steps)


def knobs(asked: Asked) -> Mapping[str, Any]:
    """Every knob of the sampler with the value it will have.

    >>> knobs({"solver": "ddim"})
    {'eta': 0.0}
    """
    return sampler(asked).knobs


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
