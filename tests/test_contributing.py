"""The solver that CONTRIBUTING.md adds in twenty lines is a solver."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from samplers import conditions, schedules
from samplers.core.levels import DiscreteVP
from samplers.solvers import euler, lms

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture(scope="module")
def ab2():
    module = ModuleType("ab2")
    exec(compile(block("python"), "samplers/solvers/ab2.py", "exec"), vars(module))
    return module


def levels(steps, end="sigma_min"):
    return schedules.build("karras", DiscreteVP.scaled_linear(), steps, end=end)


def test_it_is_short_and_its_yaml_names_its_knobs(ab2):
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 25
    entry = yaml.safe_load(block("yaml"))
    assert entry.pop("name") == entry.pop("solver") == "ab2" and entry.pop("default_schedule") in schedules.names()
    assert entry == ab2.plan.__kwdefaults__ == ab2.capabilities.__kwdefaults__


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_it_plans(ab2, steps, end):
    assert ab2.plan(levels(steps, end)).nfe == steps


def test_it_is_what_it_says(ab2):
    assert ab2.plan(levels(20)).same_method(lms.plan(levels(20), order=2))
    assert ab2.plan(levels(20), share=0.0).same_method(euler.plan(levels(20)))
    found = conditions.convergence(lambda steps: (levels(steps), ab2.plan(levels(steps))))
    assert found.order == pytest.approx(ab2.capabilities(20).order, abs=0.2)
