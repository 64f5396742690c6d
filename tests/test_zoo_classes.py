"""PlanScheduler in every class of pipelines of tests/zoo_classes.py; what cannot run a plan is refused in one line."""

from __future__ import annotations

from importlib.util import find_spec

import diffusers
import pytest
import zoo_classes
from zoo_classes import CANNOT, MADE, MOST, OURS

from harness.models import families
from harness.paths import ROOT
from samplers.hosts.replaced import Replaced

PEFT = pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed: uv sync --extra adapters")


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=PEFT if zoo_classes.needs_peft(name) else []) for name in MADE]
)
def test_a_class_runs_our_plans_and_equals_its_stock_scheduler(name):
    diffusers.utils.logging.set_verbosity_error()
    found = zoo_classes.measured(name)
    assert found.worst and max(found.worst.values()) <= MOST, found.worst
    assert found.ran == OURS and found.repeats
    assert (found.batch <= 1e-4) == (name not in zoo_classes.DRAWING_UNSEEN)


def test_the_table_names_the_classes_that_are_run_and_those_that_cannot_be():
    page = (ROOT / "docs" / "zoo.md").read_text()
    rows, classes = zoo_classes.rows_of(page), {zoo_classes.class_of(name) for name in MADE}
    assert page == zoo_classes.table(rows) and [*rows] == [*MADE, *CANNOT] and len(classes) >= 80
    assert {*families.FAMILIES} <= {*MADE}, "a class that a sweep takes is not in the zoo"
    assert {getattr(diffusers, name).__name__ for name in classes} == classes


@pytest.mark.parametrize("name", CANNOT)
def test_a_scheduler_that_is_not_known_is_refused_in_one_line(name):
    kind, why = CANNOT[name]
    with pytest.raises(ValueError, match=f"{kind} is not a scheduler whose levels are known") as told:
        Replaced(kind, {})
    assert "\n" not in str(told.value) and why
