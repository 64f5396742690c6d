"""Running the cells that are not yet recorded, and saying how it ended. Free of torch and of Hydra."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell import Cell
from harness.errors import InputError, Terminated, one_line
from harness.executors.base import SESSION, Message, Record, Work
from harness.executors.load import kind_of
from harness.specs import Settings
from harness.sweep.enumerate import ordered

if TYPE_CHECKING:
    from harness.store.records import Store


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: its exit code, and how many cells it ran itself."""

    code: int
    ran: int


def run(cells: list[Cell], settings: Settings, session: str = SESSION) -> Outcome:
    """Run what is not recorded, show it, and say how it ended. `session`: what workers use, in tests."""
    from harness.store import sweeps
    from harness.store.records import Store
    from harness.store.upkeep import compact_if_large

    knobs = settings.executor
    kind = kind_of(knobs)
    kind.check(knobs)
    store = Store(Path(settings.results_dir))
    store.check_writable()
    before = store.versions()
    # A failed cell is tried again: what failed may have been the machine's memory or a file that is now there.
    pending = [c for c in ordered(cells) if settings.force or before.get(c.cell_id, ("", None))[0] != "ok"]
    there = len(cells) - len(pending)
    print(f"{len(cells)} cells: {there} recorded already, {len(pending)} to run; results in {store.place}", flush=True)
    records: list[Record] = []
    if pending:
        try:
            sweeps.keep(store.place, cells, knobs.name)
        except OSError as error:
            raise store.unwritable(error) from error
        how = (settings.workers, settings.cell_timeout, settings.retries, settings.shard_images)
        how = (*how, session, settings.price_per_hour, settings.force)
        records = _shown(kind.run(Work(store, pending, before, *how), knobs), pending, store, settings)
        compact_if_large(store)

    from harness.sweep.end_table import summary

    failures = [record for record in records if record.cell["status"] != "ok"]
    now = store.versions([cell.cell_id for cell in cells])
    missing = len(cells) - len(now)
    summary(store, cells, ran=len(records), missing=missing, debug=settings.debug, failures=failures)
    failed = any(status == "failed" for status, _ in now.values()) or (missing and kind.waits(knobs))
    return Outcome(1 if failed else 0, len(records))


def _shown(
    messages: Generator[Message, None, None], cells: list[Cell], store: Store, settings: Settings
) -> list[Record]:
    """Show what an executor says and tell the tracker; the records among it."""
    from harness.store import layout
    from harness.sweep.display import Display
    from harness.trackers.load import Tracking

    records: list[Record] = []
    labels = {cell.cell_id: cell.label for cell in cells}
    results = Path(settings.results_dir)
    # An interruption between two messages ends the executor here and now, with what it holds and has submitted.
    with Display(cells) as display, closing(messages):
        with Tracking(settings.tracker, store.place, layout.trackers(results), results.resolve().name) as tracking:
            for message in messages:
                display.show(message)
                if isinstance(message, Record):
                    tracking.write(message.cell, labels[message.cell["cell_id"]])
                    records.append(Record(message.cell, traceback=message.traceback))  # all else is on the disk
                for line in tracking.told():
                    display.say(line)
        for line in tracking.told():
            display.say(line)
    return records


def guarded(work: Callable[[], int], debug: bool) -> int:
    """The exit code of `work`; bad input and interruption end it with one line."""
    try:
        return work()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\ninterrupted: finished cells are kept; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
