"""How cells are run: one method, whatever the machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    def checked(self) -> Record:
        """The same with plain values alone; a ValueError where a row does not fit its table (store/schema.py)."""
        from harness.store.schema import plain  # pyarrow: after a worker has said that it is there

        (row,) = plain("cells", [self.cell])
        return Record(row, plain("images", self.images), plain("timings", self.timings), self.traceback)


class Notable(str):
    """What a session reports that is worth a line that stays; a sweep shows the same words once."""

    __slots__ = ()


@dataclass(frozen=True)
class Progress:
    """A running cell's word on how far it is. `notable`: worth a line that stays."""

    cell_id: str
    what: str
    images: int
    notable: bool = False


TIMED = "timed"  # a worker's word that the cells it was given to time in turn are through


Claim = Callable[[Cell], bool]  # asked right before a cell starts; a cell that it refuses is left alone


class Executor(Protocol):
    """Runs the cells that `claim` allows and yields their progress and, once for each of them, its record.

    Records come as cells end: cells of one device start in the given order, several may run side by side.
    """

    def run(self, cells: Sequence[Cell], claim: Claim) -> Iterator[Progress | Record]: ...
