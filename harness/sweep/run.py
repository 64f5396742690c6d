"""Running the cells that are not yet recorded, and saying how it ended. Free of torch and of Hydra."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell import Cell
from harness.errors import InputError, Terminated, one_line
from harness.executors.base import Record
from harness.sweep.enumerate import ordered

if TYPE_CHECKING:
    from harness.store.records import Store


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: its exit code, and how many cells it ran itself."""

    code: int
    ran: int


def run(cells: list[Cell], settings: dict[str, Any], session: str | None = None) -> Outcome:
    """Run what is not recorded, show it, and say how it ended. `session`: what workers use, in tests."""
    from harness.store.records import Store
    from harness.store.upkeep import compact_if_large

    store = Store(Path(settings["results_dir"]))
    store.check_writable()
    before = store.versions()
    # A failed cell is tried again: what failed may have been the machine's memory or a file that is now there.
    pending = [c for c in ordered(cells) if settings["force"] or before.get(c.cell_id, ("", None))[0] != "ok"]
    there = len(cells) - len(pending)
    print(f"{len(cells)} cells: {there} recorded already, {len(pending)} to run; results in {store.place}", flush=True)
    failures, others = _run(pending, settings, store, before, session) if pending else ([], 0)
    if pending:
        compact_if_large(store)
    ran = len(pending) - others

    from harness.sweep.end_table import summary

    summary(store, cells, ran=ran, debug=settings["debug"], failures=failures)
    failed = any(status == "failed" for status, _ in store.versions([c.cell_id for c in cells]).values())
    return Outcome(1 if failed else 0, ran)


def _run(
    pending: list[Cell], settings: dict[str, Any], store: Store, before: dict[str, Any], session: str | None
) -> tuple[list[Record], int]:
    """The cells that failed, and how many another process recorded."""
    from harness.executors.local import SESSION, LocalExecutor
    from harness.executors.share import TakenByAnother, run_shared
    from harness.store import layout
    from harness.sweep.display import Display
    from harness.trackers.load import Tracking

    failures: list[Record] = []
    others = 0
    labels = {cell.cell_id: cell.label for cell in pending}
    results = Path(settings["results_dir"])
    how = {name: settings[name] for name in ("workers", "cell_timeout", "retries")}
    executor = LocalExecutor(str(store.place), session=session or SESSION, **how)
    with Display(pending) as display:
        with Tracking(settings["tracker"], store.place, layout.trackers(results), results.resolve().name) as tracking:
            for message in run_shared(executor, store, pending, before):
                display.show(message)
                if isinstance(message, TakenByAnother):
                    others += message.done
                elif isinstance(message, Record):
                    tracking.write(message.cell, labels[message.cell["cell_id"]])
                    failures += [message] if message.cell["status"] != "ok" else []
                for line in tracking.told():
                    display.say(line)
        for line in tracking.told():
            display.say(line)
    return failures, others


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
