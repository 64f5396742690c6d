"""The cells that the words of a command line ask for.

Free of torch (like the store), so that a sweep with nothing to do ends at once. What the words mean is read in
`harness.sweep.commandline`, which loads Hydra.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.bounds import SETTINGS, YesOrNo
from harness.cell import Cell
from harness.errors import InputError
from harness.executors.load import kind_of
from harness.specs import SamplerSpec, Settings
from harness.sweep.machine import Machine
from harness.sweep.settle import ask, once
from samplers import registry


@dataclass(frozen=True)
class Asked:
    """A command line, understood: the cells by id, in the order asked for (duplicates fall together)."""

    cells: dict[str, Cell]
    settings: Settings
    notes: list[str]


def enumerate_cells(words: Sequence[str]) -> Asked:
    """Every cell that the words of a command line ask for. Raises InputError before anything runs."""
    from harness.data.load import remarks as data_remarks
    from harness.sweep.commandline import read

    asked = read(words)
    settings = check_settings(asked.settings)
    cells: dict[str, Cell] = {}
    remembered = once()
    executor = kind_of(settings.executor)
    machine = Machine(executor.cores(settings.executor), settings.workers)
    for values in asked.values:
        cell = ask(values, remembered, machine)
        cells.setdefault(cell.cell_id, cell)
    found = cells.values()
    remarks = (remark for cell in found for remark in remembered(data_remarks, cell.data))
    told = (remembered(_elsewhere, cell.sampler, cell.model.name, cell.model_fingerprint, cell.cfg) for cell in found)
    return Asked(cells, settings, [*asked.notes, *dict.fromkeys(filter(None, (*remarks, *told)))])


def _elsewhere(sampler: SamplerSpec, model: str, fingerprint: str, cfg: float) -> str | None:
    """That a learned plan was made for another model or guidance scale than the cell's, where it was."""
    return registry.sampler(sampler).solver.elsewhere(model, fingerprint, cfg)


def check_settings(settings: Settings) -> Settings:
    """The settings with the folder's `~` expanded; InputError where one cannot be."""
    from harness.trackers import load as trackers

    for name, check in SETTINGS.items():
        if name not in ("cell_timeout", "shard_images", "price_per_hour") or settings[name] is not None:
            check(name, settings[name])
    for name in ("force", "debug", "plots", "live"):
        YesOrNo()(name, settings[name])
    trackers.check(settings["tracker"])
    folder: Any = settings["results_dir"]
    if not isinstance(folder, str) or not folder.strip():
        raise InputError(f"results_dir={folder!r} is not valid: give the records' folder, as in results_dir=results")
    return settings.with_(results_dir=os.path.expanduser(folder))


def ordered(cells: list[Cell]) -> list[Cell]:
    """The order asked for, but with all cells of one loaded model together."""
    first = {}
    for position, cell in enumerate(cells):
        first.setdefault(cell.model_key, position)
    return sorted(cells, key=lambda cell: first[cell.model_key])
