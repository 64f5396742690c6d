"""The task that conf/task/NAME.yaml describes: harness/tasks/NAME.py has its class, the YAML its knobs. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from harness import paths
from harness.errors import InputError, nearest
from harness.tasks.base import Start, Task

__all__ = ["Start", "Task", "load", "names"]

CONF = paths.CONF / "task"
# In the YAML for whoever reads it without importing the task; the class says the same.
DECLARED = ("name", "uses_strength", "default_strength", "needs_sources", "needs_masks")


def names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml"))


def load(spec: Mapping[str, Any]) -> Task:
    """The task with its knobs; InputError for an unknown task or knob."""
    name = spec.get("name")
    if name not in names():
        raise InputError(f"task={name!r} is unknown; {nearest(str(name), names())}")
    kind = importlib.import_module(f"harness.tasks.{name}").TASK
    knobs = [field.name for field in fields(kind)]
    given = {key: value for key, value in spec.items() if key not in DECLARED}
    for key in given:
        if key not in knobs:
            raise InputError(
                f"task.{key} is unknown for task={name}; {nearest(key, knobs) if knobs else 'it has no knobs'}"
            )
    return kind(**given)
