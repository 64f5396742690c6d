"""Executors by name: conf/executor/NAME.yaml holds every knob, harness/executors/kinds/NAME.py the code."""

from __future__ import annotations

from typing import Any

import yaml

from harness.errors import InputError, nearest
from harness.executors import kinds
from harness.executors.base import Kind, Knobs
from harness.kinds import kind
from harness.paths import CONF


def named(name: str, **changes: Any) -> Knobs:
    """The values of conf/executor/NAME.yaml with these changes."""
    valid = [path.stem for path in (CONF / "executor").glob("*.yaml")]
    if name not in valid:
        raise InputError(f"executor={name!r} is not known; {nearest(str(name), valid)}")
    knobs = yaml.safe_load((CONF / "executor" / f"{name}.yaml").read_text(encoding="utf-8"))
    for knob in changes:
        if knob not in knobs:
            raise InputError(f"executor.{knob} is not an option of executor={name}; {nearest(knob, knobs)}")
    return {**knobs, **changes}


def kind_of(knobs: Knobs) -> Kind:
    """The `KIND` of harness/executors/kinds/NAME.py."""
    return kind(kinds, knobs["name"], f"executor={knobs['name']!r} is not known")
