"""What is found by its file: a model kind, a kind of data, an executor is one module whose `KIND` says what it is."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from harness.errors import InputError, nearest


def kind(folder: ModuleType, name: Any, wrong: str) -> Any:
    """The `KIND` of the module NAME of a folder. InputError that begins with `wrong` and lists those that are there."""
    valid = [module.name for module in iter_modules(folder.__path__)]
    if name not in valid:
        raise InputError(f"{wrong}; {nearest(str(name), valid)}")
    return import_module(f"{folder.__name__}.{name}").KIND
