"""The solver that CONTRIBUTING.md adds in twenty lines is a solver."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from samplers import conditions, registry, schedules, solvers
from samplers.core.levels import DiscreteVP
from samplers.solvers.euler import Euler
from samplers.solvers.lms import LMS

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture(scope="module")
def ab2(tmp_path_factory):
    """The class, from a file in a folder that `samplers.solvers` is told to look in."""
    folder = tmp_path_factory.mktemp("solvers")
    (folder / "ab2.py").write_text(block("python"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "__path__", [*solvers.__path__, str(folder)])
        yield type(registry.solver({"solver": "ab2"}))
    sys.modules.pop("samplers.solvers.ab2")


def levels(steps, end="sigma_min"):
    return schedules.build("karras", DiscreteVP.scaled_linear(), steps, end=end)


def test_it_is_short_and_its_yaml_names_its_knobs(ab2):
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 25
    entry = yaml.safe_load(block("yaml"))
    assert entry.pop("name") == entry.pop("solver") == "ab2" and entry.pop("default_schedule") in schedules.names()
    assert entry == {field.name: field.default for field in fields(ab2)}


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_it_plans(ab2, steps, end):
    assert ab2().plan(levels(steps, end)).nfe == steps


def test_it_is_what_it_says(ab2):
    assert ab2().plan(levels(20)).same_method(LMS(order=2).plan(levels(20)))
    assert ab2(share=0.0).plan(levels(20)).same_method(Euler().plan(levels(20)))
    found = conditions.convergence(lambda steps: (levels(steps), ab2().plan(levels(steps))))
    assert found.order == pytest.approx(ab2().declares(20).order, abs=0.2)


def test_the_example_prints_the_orders_that_it_declares():
    script = Path(__file__).resolve().parents[1] / "examples" / "write_a_sampler.py"
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    orders = re.findall(r"order (\S+), declared (\d)", told)
    assert [int(declared) for _, declared in orders] == [2, 1], told
    assert all(float(found) == pytest.approx(int(declared), abs=0.1) for found, declared in orders), told
