"""Running cells when other sweeps may work on the same folder: each cell is run once and recorded once.

A cell is taken (harness/store/leases.py) right before it starts, looked up in the records once more, run, written
and given back. What another process is running is left to it, waited for at the end, and taken over where it dies.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.cell import Cell
from harness.errors import InputError, Terminated
from harness.executors.base import Executor, Message, Record, TakenByAnother, failed
from harness.store import layout
from harness.store.leases import Leases
from harness.store.lookup import Lookup
from harness.store.records import Store

LOOK_S = 1.0  # between two looks at what others are running


def run_shared(
    executor: Executor,
    store: Store,
    cells: Sequence[Cell],
    before: Mapping[str, object],
    *,
    ending: Callable[[], bool] = lambda: False,
    waits: bool = True,
) -> Iterator[Message]:
    """Run `cells` and record them; `before` is `store.versions()` of the moment when they were chosen.

    Yields what the executor says and every record once it is written, and a word on cells that other processes run.
    `ending`: asked before each cell; once it says True, none is begun. `waits`: whether to stay until the cells that
    others run are recorded, to take over those of one that dies; without it, whoever has nothing to run leaves.
    """
    recorded = Lookup(store)
    with Leases(store.place) as leases, sigterm_raises():
        todo, known = list(cells), {cell.cell_id: cell for cell in cells}
        told: dict[str, str] = {}
        while todo:
            taken: list[Cell] = []
            done: list[Cell] = []

            def claim(cell: Cell, taken: list[Cell] = taken, done: list[Cell] = done) -> bool:
                if ending():
                    return False
                if not leases.take(cell.cell_id):
                    taken.append(cell)
                    return False
                if recorded(cell.cell_id) != before.get(cell.cell_id):
                    done.append(cell)
                    leases.release(cell.cell_id)
                    return False
                return True

            for message in executor.run(todo, claim):
                if isinstance(message, Record) and not _write(store, leases, message, known[message.cell["cell_id"]]):
                    lost = message.cell["cell_id"]
                    taken += [cell for cell in todo if cell.cell_id == lost]  # its new owner's record is waited for
                    yield TakenByAnother(lost, "taken over by another process while we slept", False)
                else:
                    yield message
            for cell in done:
                yield TakenByAnother(cell.cell_id, "recorded by another process meanwhile", True)
            for cell in taken:
                owner = leases.other(cell.cell_id)
                if owner is not None and told.get(cell.cell_id) != str(owner):
                    told[cell.cell_id] = str(owner)
                    yield TakenByAnother(cell.cell_id, f"being run by {owner}", False)
            todo = [] if ending() else taken if waits else [cell for cell in taken if _is_free(leases, cell)]
            if todo:
                time.sleep(LOOK_S)


def _is_free(leases: Leases, cell: Cell) -> bool:
    """Whether nobody runs the cell that was taken a moment ago: given back, or its owner is certainly gone."""
    owner = leases.other(cell.cell_id)
    return owner is None or owner.gone


def _write(store: Store, leases: Leases, record: Record, cell: Cell) -> bool:
    """Record the cell and give it back; False where it is no longer ours to write."""
    cell_id = record.cell["cell_id"]
    if not leases.holds(cell_id):
        return False
    try:
        _put_beside(store, record)
        store.write(record.cell, record.images, record.timings)
    except InputError:  # the folder cannot be written: not the cell's fault
        raise
    except ValueError as error:  # an executor that sent what does not fit
        record.cell = failed(cell, f"its record does not fit: {error}"[:2000], time.time()).cell
        record.images, record.timings = [], []
        store.write(record.cell)
    leases.release(cell_id)
    return True


def _put_beside(store: Store, record: Record) -> None:
    """The record's files, first: whoever sees the record finds them. A plan is one file however many cells ran it."""
    try:
        for name, content in record.files.items():
            if not (name.startswith(layout.PLANS) and store.place.exists(name)):
                store.place.put(name, content)
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
