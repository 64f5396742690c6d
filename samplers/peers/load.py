"""`implementation=`: the same job done by the code of diffusers or k-diffusion. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from samplers import registry
from samplers.core.levels import NoiseLevels
from samplers.peers.counterparts import TABLES, choose, find
from samplers.registry import Asked

NAMES = tuple(TABLES)
CORRECTORS = ("unipc", "sa_solver")  # in diffusers they take the last step back from a sample they keep


def check(implementation: str, asked: Asked, task: str, levels: NoiseLevels | None = None) -> None:
    """A ValueError in one line where that peer has no counterpart of the sampler with these knobs, or of the task.

    With `levels` given, the ValueError also says that the peer cannot walk them, as `run` would.
    """
    table, sampler = _table(implementation), registry.sampler(asked)
    if levels is None:
        find(table, implementation, sampler)
    else:
        choose(table, implementation, sampler, levels)
    if task != "inpaint":
        return
    if implementation == "k_diffusion":
        raise ValueError(
            "k_diffusion cannot run task=inpaint: its functions run to the end and leave no room for the blend after "
            "each step; use implementation=native or diffusers"
        )
    if sampler.solver.called() in CORRECTORS:
        raise ValueError(
            f"diffusers cannot run {sampler.name} with task=inpaint: its corrector goes back to the state before "
            "the blend; use implementation=native"
        )


def load(implementation: str) -> ModuleType:
    """The module whose `run(sampler, levels, denoise, x, noise, after_stage, on_call)` steps by that peer's code."""
    _table(implementation)
    return importlib.import_module(f"samplers.peers.{implementation}")


def _table(implementation: str) -> Mapping[str, Any]:
    if implementation not in TABLES:
        raise ValueError(f"implementation={implementation!r} is unknown; valid: native, {', '.join(NAMES)}")
    return TABLES[implementation]
