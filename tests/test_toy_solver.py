"""A solver is one file: the registry finds it, checks its knobs and plans with it, and the loop runs it."""

from __future__ import annotations

import sys

import pytest
import torch

from samplers import registry, schedules, solvers
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP
from samplers.core.solver import Solver
from samplers.solvers.euler import Euler

TOY = '''
from dataclasses import dataclass

from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order


@dataclass(frozen=True)
class Toy(Solver):
    """Euler's steps with `share` of their way along x0."""

    share: float = 1.0

    def __post_init__(self):
        if not self.share > 0:
            raise ValueError(f"share={self.share} of toy must be above 0")

    def declares(self, steps):
        return Capabilities(order=int(self.share == 1), nfe=steps)

    def plan(self, levels):
        stages = []
        for k in range(levels.steps):
            a, b = first_order(levels[k], levels[k + 1])
            stages.append(Stage(levels[k], levels[k + 1], (a,), (self.share * b,)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


SOLVER = Toy
'''
LEVELS = schedules.build("karras", DiscreteVP.scaled_linear(), 6)


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The solver's file in a folder of its own, which `samplers.solvers` is told to look in."""
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(solvers, "__path__", [*solvers.__path__, str(tmp_path)])
    yield
    sys.modules.pop("samplers.solvers.toy", None)


def test_it_is_a_solver_with_its_knobs():
    made = registry.solver({"name": "mine", "solver": "toy", "share": 0.5})
    assert isinstance(made, Solver) and made.share == 0.5
    assert registry.knobs({"solver": "toy"}) == {"share": 1.0}
    assert registry.capabilities({"solver": "toy"}, 6).nfe == 6
    assert not registry.is_adaptive({"solver": "toy"}) and not registry.has_own_levels({"solver": "toy"})
    assert registry.settled({"solver": "toy"}) == {"solver": "toy"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"shares": 1.0}, "'mine' has no knob 'shares': did you mean 'share'"), ({"share": 0}, "share=0 of toy must be")],
)
def test_its_knobs_are_checked_like_those_of_any_other(knobs, message):
    with pytest.raises(ValueError, match=message):
        registry.build_plan({"name": "mine", "solver": "toy", **knobs}, LEVELS)


def test_the_loop_runs_it():
    def denoise(x, level):
        return torch.tanh(x * level.alpha)

    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    euler, whole, part = (
        integrate(plan, denoise, x)
        for plan in (
            Euler().plan(LEVELS),
            registry.build_plan({"solver": "toy"}, LEVELS),
            registry.build_plan({"solver": "toy", "share": 0.5}, LEVELS),
        )
    )
    assert torch.equal(whole, euler) and not torch.allclose(part, euler)
