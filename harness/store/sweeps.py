"""What a command asked for, kept beside its records: who looks later knows what is missing, and how to go on.

    results/sweeps/<sweep_id>.json     the command, who started it, and each of its cells

The id is made of the cells' ids: the same question asked again replaces the file. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from harness.cell import Cell
from harness.errors import one_line
from harness.store import layout
from harness.store.leases import Owner, owner_in
from harness.store.place import Place


@dataclass(frozen=True)
class Sweep:
    """One command. `owner.started` is when it was given, seconds since 1970 by its machine's clock."""

    sweep_id: str
    command: str  # to be given to a shell, from any folder
    executor: str
    owner: Owner
    cells: Mapping[str, str]  # cell_id → label, in the order asked for


def keep(place: Place, cells: Sequence[Cell], executor: str) -> None:
    """Note what this process was asked to run. OSError where the place cannot be written."""
    labels = {cell.cell_id: cell.label for cell in cells}
    sweep_id = hashlib.sha256("".join(sorted(labels)).encode()).hexdigest()[:16]
    noted = {
        "command": f"cd {shlex.quote(os.getcwd())} && {shlex.join(sys.orig_argv)}",
        "executor": executor,
        "owner": {**asdict(Owner.me()), "started": time.time()},
        "cells": labels,
    }
    place.put(layout.sweep(sweep_id), json.dumps(noted).encode())


def kept(place: Place) -> list[Sweep]:
    """What was asked for here, the newest last. A file that is damaged or of another version is left out."""
    found = []
    for name in place.names(layout.SWEEPS):
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            noted = json.loads(place.read(name))
            cells = {layout.checked_cell_id(cell_id): one_line(label) for cell_id, label in noted["cells"].items()}
            owner = owner_in(json.dumps(noted["owner"]).encode())
            if owner is not None:
                sweep_id = layout.stem_of(name).removesuffix(".json")
                found.append(Sweep(sweep_id, one_line(noted["command"]), one_line(noted["executor"]), owner, cells))
    return sorted(found, key=lambda sweep: sweep.owner.started)
