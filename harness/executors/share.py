"""Running cells when other sweeps may work on the same folder: each cell is run once and recorded once.

A cell is taken (harness/store/leases.py) right before it starts, looked up in the records once more, run, written
and given back. What another process is running is left to it, waited for at the end, and taken over where it dies.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field

from harness.cell import Cell
from harness.errors import InputError, Terminated
from harness.executors.base import Due, Executor, Message, Part, PartsClaim, Progress, Record, TakenByAnother, failed
from harness.executors.parts import SharedParts
from harness.store import layout
from harness.store.leases import Leases
from harness.store.lookup import Lookup
from harness.store.records import Store
from harness.store.upkeep import SLICE, compact_if_large

LOOK_S = 1.0  # between two looks at what others are running
LOOK_AFTER = SLICE  # files that a sweep writes between two looks at how many there are: as many as it puts together


def run_shared(
    executor: Executor,
    store: Store,
    cells: Sequence[Cell],
    before: Mapping[str, object],
    *,
    ending: Callable[[], bool] = lambda: False,
    waits: bool = True,
    parts: SharedParts | None = None,
) -> Iterator[Message]:
    """Run `cells` and record them; `before` is `store.versions()` of the moment when they were chosen.

    Yields what the executor says and every record once it is written, and a word on cells that other processes run.
    `ending`: asked before each cell; once it says True, none is begun. `waits`: whether to stay until the cells that
    others run are recorded, to take over those of one that dies; without it, whoever has nothing to run leaves.
    `parts`: where cells lie that others make in parts with us.
    """
    recorded = Lookup(store)
    with Leases(store.place) as leases, sigterm_raises(), parts.open() if parts else nullcontext():
        todo, known = list(cells), {cell.cell_id: cell for cell in cells}
        writer = _Writer(store, leases, recorded, known, before)
        told: dict[str, str] = {}
        while todo:
            claims = _Claims(store, leases, recorded, before, ending)
            claim = claims if parts is None else _PartsClaims(claims, parts)
            with closing(_in_groups(executor.run(todo, claim), writer)) as messages:
                for message in messages:
                    if isinstance(message, Progress):
                        yield message
                        continue
                    written = writer.write(message)
                    for record in message:
                        cell_id = record.cell["cell_id"]
                        leases.release(cell_id)
                        if cell_id not in written:
                            claims.taken[cell_id] = known[cell_id]  # its new owner's record is waited for
                            yield TakenByAnother(cell_id, "taken over by another process while we slept", False)
                            continue
                        if parts is not None:
                            parts.clear(cell_id)
                        yield record
            for cell_id in claims.done:
                yield TakenByAnother(cell_id, "recorded by another process meanwhile", True)
            for cell_id in claims.taken:
                owner = leases.other(cell_id)
                if owner is not None and told.get(cell_id) != str(owner):
                    told[cell_id] = str(owner)
                    yield TakenByAnother(cell_id, f"being run by {owner}", False)
            taken = claims.taken.values()
            todo = [] if ending() else [cell for cell in taken if waits or _is_free(leases, parts, cell)]
            if todo:
                time.sleep(LOOK_S)


def _in_groups(
    messages: Iterator[Progress | Record | Due], writer: _Writer
) -> Generator[Progress | list[Record], None, None]:
    """The messages, those records as one list that are to be written at one time; those that an end cuts off are."""
    group: list[Record] = []
    try:
        for message in messages:
            if isinstance(message, Progress):
                yield message
                continue
            if isinstance(message, Record):
                group.append(message)
            if group and (isinstance(message, Due) or not message.more):
                whole, group = group, []
                yield whole
    finally:
        if group:  # Ctrl-C, a worker that cannot start: these had ended
            writer.write(group)


@dataclass
class _Claims:
    """Asked before each cell: takes its lease and looks once more whether it is recorded."""

    store: Store
    leases: Leases
    recorded: Lookup
    before: Mapping[str, object]
    ending: Callable[[], bool]
    taken: dict[str, Cell] = field(default_factory=dict)  # those that others run
    done: dict[str, Cell] = field(default_factory=dict)  # those that others have recorded

    def __call__(self, cell: Cell) -> bool:
        if self.ending():
            return False
        if cell.cell_id not in self.before and self.recorded.seen(cell.cell_id):  # what others did costs no lease
            self.done[cell.cell_id] = cell
            return False
        if not self.leases.take(cell.cell_id):
            self.taken[cell.cell_id] = cell
            return False
        if self.is_recorded(cell):
            self.leases.release(cell.cell_id)
            return False
        return True

    def is_recorded(self, cell: Cell) -> bool:
        """Whether another has recorded the cell since it was chosen."""
        with reached(self.store):
            if self.recorded(cell.cell_id) == self.before.get(cell.cell_id):
                return False
            self.recorded.outdated()
        self.done[cell.cell_id] = cell
        self.taken.pop(cell.cell_id, None)
        return True


class _PartsClaims(PartsClaim):
    """The same for cells of which others make parts with us."""

    def __init__(self, claims: _Claims, parts: SharedParts) -> None:
        self.claims, self.parts = claims, parts

    def __call__(self, cell: Cell) -> bool:
        return self.claims(cell)

    def part(self, cell: Cell, images: range) -> bool:
        if self.claims.ending() or self.claims.is_recorded(cell):
            return False
        with reached(self.claims.store):
            ours = self.parts.take(cell, images)
        if not ours:
            self.claims.taken[cell.cell_id] = cell  # until it is recorded
        return ours

    def made(self, part: Part) -> None:
        with reached(self.claims.store):
            self.parts.put(part)

    def is_whole(self, cell: Cell) -> bool:
        return self.parts.is_whole(cell)

    def all_parts(self, cell: Cell) -> tuple[Part, ...]:
        return self.parts.all(cell)


def _is_free(leases: Leases, parts: SharedParts | None, cell: Cell) -> bool:
    """Whether nobody runs what was taken a moment ago: given back, or its owner is certainly gone."""
    if parts is not None and len(parts.cuts(cell)) > 1 and not parts.is_whole(cell):
        return parts.is_waiting(cell)
    owner = leases.other(cell.cell_id)
    return owner is None or owner.gone


@dataclass
class _Writer:
    """Writes the records of one sweep, those that came at one time together."""

    store: Store
    leases: Leases
    recorded: Lookup
    cells: Mapping[str, Cell]
    before: Mapping[str, object]
    written: int = 0  # files, since the number of all was looked at

    def write(self, records: Sequence[Record]) -> set[str]:
        """Write those whose cells no other process has taken over; which these are."""
        with reached(self.store):
            records = [record for record in records if self.leases.holds(record.cell["cell_id"])]
        written = {record.cell["cell_id"] for record in records}
        self._put_beside(records)
        new = [record for record in records if self.before.get(record.cell["cell_id"]) is None]
        if len(new) > 1:
            try:
                self.recorded.wrote(self.store.write_new([(one.cell, one.images, one.timings) for one in new]))
                self.written += 1
                records = [record for record in records if self.before.get(record.cell["cell_id"]) is not None]
            except InputError:  # the folder cannot be written: no cell's fault
                raise
            except ValueError:  # one of them does not fit: each by itself
                pass
        for record in records:
            self._write_one(record)
        if self.written >= LOOK_AFTER:  # others may have written more
            self.written = 0
            compact_if_large(self.store, SLICE)
        return written

    def _write_one(self, record: Record) -> None:
        try:
            self.store.write(record.cell, record.images, record.timings)
        except InputError:
            raise
        except ValueError as error:  # an executor that sent what does not fit
            cell = self.cells[record.cell["cell_id"]]
            record.cell = failed(cell, f"its record does not fit: {error}"[:2000], time.time()).cell
            record.images, record.timings = [], []
            self.store.write(record.cell)
        self.written += 1

    def _put_beside(self, records: Sequence[Record]) -> None:
        """The records' files, first: whoever sees a record finds them. A plan is one file however many cells ran it."""
        place = self.store.place
        with reached(self.store):
            for name, content in (item for record in records for item in record.files.items()):
                if not (name.startswith(layout.PLANS) and place.exists(name)):
                    place.put(name, content)


@contextmanager
def reached(store: Store) -> Iterator[None]:
    """A place that is full, read-only or not to be reached ends the sweep with one line."""
    try:
        yield
    except OSError as error:
        raise store.unwritable(error) from error


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """While it lasts, SIGTERM raises Terminated, so that whatever is held is given back."""

    def terminated(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
