"""How cells are run: one interface for every kind of machine.

A kind of executor is one file in harness/executors/kinds/ whose `KIND` is a `Kind`; conf/executor/NAME.yaml has its
knobs. A cell does not say who runs it: on every executor it has the same id and leaves the same record.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.cell import Cell

if TYPE_CHECKING:
    from harness.store.records import Store

Knobs = Mapping[str, Any]  # every value of conf/executor/NAME.yaml
SESSION = "harness.measure.session:Session"  # what a worker runs cells with; imports torch


@dataclass
class Record:
    """What one cell leaves: its row, a row an image, a row a timed run."""

    cell: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    traceback: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # what goes beside the records: the grid, the plan; by name
    more: bool = False  # another record, or a `Due`, comes at once or soon: they may be written together

    def checked(self) -> Record:
        """The same with plain values alone; a ValueError where a row does not fit its table (store/schema.py)."""
        from harness.store.schema import plain  # pyarrow: after a worker has said that it is there

        (row,) = plain("cells", [self.cell])
        return Record(row, plain("images", self.images), plain("timings", self.timings), self.traceback, self.files)


@dataclass(frozen=True)
class Part:
    """Some images of a cell, made and measured. Whoever carries it need not know what is in it."""

    cell_id: str
    start: int  # the first of its images
    hardware: str
    content: bytes


@dataclass(frozen=True)
class Task:
    """What a worker is sent: a cell, and those that it is to time in turn with it."""

    cell: Cell
    beside: tuple[Cell, ...] = ()
    images: range | None = None  # make these alone, and send a Part
    parts: tuple[Part, ...] = ()  # all images, made before: measure them together and send the record


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


@dataclass(frozen=True)
class TakenByAnother:
    """A cell that another process took: `what` says who is running it, or that it has been recorded meanwhile."""

    cell_id: str
    what: str
    done: bool


@dataclass(frozen=True)
class Notice:
    """A line about the sweep as a whole, worth to stay: what was submitted, where the queue stands."""

    what: str


@dataclass(frozen=True)
class Due:
    """Records that were said to be followed by more are to be written now."""


Message = Progress | Record | TakenByAnother | Notice
TIMED = "timed"  # a worker's word that the cells it was given to time in turn are through


Claim = Callable[[Cell], bool]  # asked right before a cell starts; a cell that it refuses is left alone


class PartsClaim(ABC):
    """A `Claim` for cells whose parts other processes make as well: each part is asked for, and then the joining."""

    @abstractmethod
    def __call__(self, cell: Cell) -> bool: ...

    @abstractmethod
    def part(self, cell: Cell, images: range) -> bool:
        """Whether we are to make this part; False where it is there, another makes it, or the cell is recorded."""

    @abstractmethod
    def made(self, part: Part) -> None:
        """Put the part where the others find it."""

    @abstractmethod
    def is_whole(self, cell: Cell) -> bool:
        """Whether all parts of the cell are there, whoever made them: then it may be claimed, and joined."""

    @abstractmethod
    def all_parts(self, cell: Cell) -> tuple[Part, ...]:
        """Every part of a cell that is whole."""


class Executor(Protocol):
    """Runs the cells that `claim` allows and yields their progress and, once for each of them, its record.

    Records come as cells end, several may run side by side. Cells of one model start in the given order.
    """

    def run(self, cells: Sequence[Cell], claim: Claim) -> Iterator[Progress | Record | Due]: ...


@dataclass(frozen=True)
class Work:
    """Cells of one sweep that are to be run and recorded, whoever does it."""

    store: Store
    cells: Sequence[Cell]
    before: Mapping[str, tuple[str, Any]]  # `store.versions()` when they were chosen
    workers: int = 1  # worker processes for CPU cells, of this machine or of each pilot
    cell_timeout: float | None = None
    retries: int = 1
    shard_images: int | None = None  # images of a part, for cells that several workers are to make
    session: str = SESSION
    price_per_hour: float | None = None  # of a machine, for the column of costs
    anew: bool = False  # force=true: what is recorded or under way counts for nothing


HOW = (
    "workers",
    "cell_timeout",
    "retries",
    "shard_images",
    "session",
    "price_per_hour",
)  # of Work: what `LocalExecutor` is told


class Kind(ABC):
    """One way to run cells. A sweep asks it before anything runs. Imports nothing heavy."""

    def check(self, knobs: Knobs) -> None:  # noqa: B027 (nothing can be wrong with one that has no knobs)
        """InputError, one line, for knobs that cannot be and for what is missing on this machine."""

    def cores(self, knobs: Knobs) -> int | None:
        """Processor cores of the machine that will run a cell, where that is another than this one; None: this one.

        Where it is another, neither device nor threads of a cell may be taken from this machine.
        """
        return None

    def waits(self, knobs: Knobs) -> bool:
        """Whether `run` stays until all cells are recorded."""
        return True

    @abstractmethod
    def run(self, work: Work, knobs: Knobs) -> Generator[Message, None, None]:
        """Run the cells and record them. Yields the record of each once it is written, and words on the way.

        One that sends cells and gets records back is an `Executor`, which harness/executors/share.py runs on a folder
        that others may work on. One whose workers take cells and record them by themselves only watches.
        """


def failed(cell: Cell, error: str, started: float, trace: str = "") -> Record:
    """The record of a cell that came to nothing."""
    row = {**cell.columns(), "status": "failed", "error": error, "started_at": started, "ended_at": time.time()}
    return Record(cell=row, traceback=trace)
