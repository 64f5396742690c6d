"""How cells are run: one method, whatever the machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.cell import Cell


@dataclass
class Record:
    """What one cell leaves: its row, a row an image, a row a timed run."""

    cell: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    traceback: str = ""


@dataclass(frozen=True)
class Progress:
    """A running cell's word on how far it is."""

    cell_id: str
    what: str
    images: int


class Executor(Protocol):
    """Runs cells in the given order and yields their progress and, once for each cell, its record."""

    def run(self, cells: Sequence[Cell]) -> Iterator[Progress | Record]: ...
