"""Executors by name: conf/executor/NAME.yaml holds every knob, harness/executors/kinds/NAME.py the code."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from harness.errors import InputError, nearest
from harness.executors import kinds
from harness.executors.base import Kind, Knobs


def kind_of(knobs: Knobs) -> Kind:
    """The `KIND` of harness/executors/kinds/NAME.py."""
    name, valid = knobs["name"], [module.name for module in iter_modules(kinds.__path__)]
    if name not in valid:
        raise InputError(f"executor={name!r} is not known; {nearest(str(name), valid)}")
    return import_module(f"{kinds.__name__}.{name}").KIND
