"""What a tracker is told of a cell, and what one must do: one file in harness/trackers/kinds/. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from harness.errors import one_line
from harness.store.schema import ASKED, COST, QUALITY, WHERE, Column
from harness.store.tiles import Tiles

LONGEST = 250  # letters of a value: MLflow takes 6,000, W&B's and TensorBoard's tables show far fewer
LEFT_OUT = ("plan",)  # a table of coefficients, which results/plans has


@dataclass(frozen=True)
class Ended:
    """A cell that has ended and is recorded.

    `config`: what was asked, `where`: what ran it, each by the columns of the cells table (store/schema.py); `metrics`:
    the numbers measured, finite all; `tiles`: the first images, None where there are none; `error`: "" of a good cell.
    """

    cell_id: str
    name: str
    status: str
    error: str
    config: dict[str, bool | int | float | str]
    where: dict[str, bool | int | float | str]
    metrics: dict[str, float]
    tiles: Tiles | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def picture(self) -> Image.Image | None:
        """The first images in a row."""
        return None if self.tiles is None else Image.fromarray(np.concatenate(list(self.tiles.images), axis=1))


class Tracker:
    """Writes cells to one library. Made in the thread that writes; any exception ends it, with a warning.

    `requires`: the modules it imports, looked for before a sweep starts; `extra`: what installs them.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    def __init__(self, folder: Path, sweep: str) -> None:
        """`folder`: where it may write, beside the records; it makes it. `sweep`: what its runs have in common."""
        raise NotImplementedError

    def write(self, cell: Ended) -> None:
        """Write one cell. A cell that was written before (force=true) may be replaced or stand twice."""
        raise NotImplementedError

    def close(self) -> str:
        """Finish; a line that says where to look, or ""."""
        return ""


def ended(row: Mapping[str, Any], name: str, tiles: Tiles | None) -> Ended:
    """Of a cell's row, as it is recorded."""
    metrics = {c.name: row.get(c.name) for c in (*QUALITY, *COST) if c.kind in ("float", "int", "bool")}
    return Ended(
        cell_id=row["cell_id"],
        name=one_line(name),
        status=row["status"],
        error=one_line(row.get("error") or ""),
        config=_plain(row, [column for column in ASKED if column.name not in LEFT_OUT]),
        where=_plain(row, WHERE),
        metrics={key: float(value) for key, value in metrics.items() if value is not None and math.isfinite(value)},
        tiles=tiles,
    )


def _plain(row: Mapping[str, Any], columns: list[Column]) -> dict[str, bool | int | float | str]:
    found = {}
    for column in columns:
        value = row.get(column.name)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        found[column.name] = value if isinstance(value, (bool, int, float)) else one_line(value)[:LONGEST]
    return found
