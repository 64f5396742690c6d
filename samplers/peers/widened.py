"""float64 for peers that say float32: what is compared is then the method, not its casts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from samplers.peers.counterparts import DIFFUSERS


class Instead:
    """A module in which some names mean something else."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module, self._names = module, names

    def __getattr__(self, name: str) -> Any:
        return self._names[name] if name in self._names else getattr(self._module, name)


@contextmanager
def patched(module: Any, **names: Any) -> Iterator[None]:
    """Names of a module replaced for the length of the block."""
    before = {name: getattr(module, name) for name in names}
    try:
        for name, value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextmanager
def float64() -> Iterator[None]:
    """In the block float32 means float64 in the schedulers of diffusers, and is what torch makes of a Python number."""
    wide = {"torch": Instead(torch, float32=torch.float64), "np": Instead(np, float32=np.float64)}
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for module in _scheduler_modules():
            stack.enter_context(patched(module, **{name: wide[name] for name in wide if hasattr(module, name)}))
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        yield


@cache
def _scheduler_modules() -> tuple[ModuleType, ...]:
    """The modules of all counterparts. diffusers loads a scheduler at its first use, which would be too late inside."""
    try:
        schedulers = importlib.import_module("diffusers.schedulers")
    except ImportError:
        return ()
    kinds = (getattr(schedulers, row.name, None) for rows in DIFFUSERS.values() for row in rows)
    return tuple({sys.modules[kind.__module__] for kind in kinds if kind is not None})
