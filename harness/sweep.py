"""`python -m harness.sweep`: the cells that a command line asks for; an executor runs those not yet recorded.

Free of torch (like the store), so that a sweep with nothing to do ends at once. What the words mean is read in
`harness.commandline`, which loads Hydra; a worker process imports this module again and needs neither.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ask import ask, once
from harness.cell import Cell, allowed_cores, number, whole
from harness.errors import InputError, Terminated, one_line
from harness.executors.base import Record


@dataclass(frozen=True)
class Asked:
    """A command line, understood: the cells by id, in the order asked for (duplicates fall together)."""

    cells: dict[str, Cell]
    settings: dict[str, Any]
    notes: list[str]


def enumerate_cells(words: Sequence[str]) -> Asked:
    """Every cell that the words of a command line ask for. Raises InputError before anything runs."""
    from harness.commandline import read

    asked = read(words)
    settings = check_settings(asked.settings)
    cells: dict[str, Cell] = {}
    remembered = once()
    for values in asked.values:
        if values["threads"] is None and settings["workers"] > 1:
            values = {**values, "threads": max(1, allowed_cores() // settings["workers"])}
        cell = ask(values, remembered)
        cells.setdefault(cell.cell_id, cell)
    return Asked(cells, settings, asked.notes)


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the folder's `~` expanded; InputError where one cannot be."""
    whole(settings, "workers", 1)
    whole(settings, "retries", 0)
    if settings["cell_timeout"] is not None:
        number(settings, "cell_timeout", 1e-3)
    for name in ("force", "debug", "plots"):
        if not isinstance(settings[name], bool):
            raise InputError(f"{name}={settings[name]!r} is not valid: give true or false")
    folder = settings["results_dir"]
    if not isinstance(folder, str) or not folder.strip():
        raise InputError(f"results_dir={folder!r} is not valid: give the records' folder, as in results_dir=results")
    return {**settings, "results_dir": os.path.expanduser(folder)}


def ordered(cells: list[Cell]) -> list[Cell]:
    """The order asked for, but with all cells of one loaded model together."""
    first = {}
    for position, cell in enumerate(cells):
        first.setdefault(cell.model_key, position)
    return sorted(cells, key=lambda cell: first[cell.model_key])


def run(cells: list[Cell], settings: dict[str, Any], session: str | None = None) -> int:
    """Run what is not recorded, show it, and say how it ended; the exit code. `session`: what workers use, in tests."""
    from harness.executors.local import SESSION, LocalExecutor
    from harness.share import Elsewhere, run_shared
    from harness.show import Display, summary
    from harness.store import Store
    from harness.upkeep import compact_if_large

    store = Store(Path(settings["results_dir"]))
    store.check_writable()
    before = store.versions()
    # A failed cell is tried again: what failed may have been the machine's memory or a file that is now there.
    pending = [c for c in ordered(cells) if settings["force"] or before.get(c.cell_id, ("", None))[0] != "ok"]
    failures: list[Record] = []
    others = 0
    if pending:
        how = {name: settings[name] for name in ("workers", "cell_timeout", "retries")}
        executor = LocalExecutor(str(store.root), session=session or SESSION, **how)
        with Display(pending, len(cells) - len(pending)) as display:
            for message in run_shared(executor, store, pending, before):
                display.show(message)
                if isinstance(message, Elsewhere):
                    others += message.done
                elif isinstance(message, Record) and message.cell["status"] != "ok":
                    failures.append(message)
        compact_if_large(store)
    summary(store, cells, ran=len(pending) - others, debug=settings["debug"], failures=failures)
    return 1 if any(status == "failed" for status, _ in store.versions([c.cell_id for c in cells]).values()) else 0


def main() -> int:
    began = time.perf_counter()
    debug = any(word.replace(" ", "").lower() in ("debug=true", "+debug=true", "++debug=true") for word in sys.argv[1:])

    def work() -> int:
        words = sys.argv[1:]
        if any(word.startswith("-") for word in words):
            from harness.commandline import answer

            if answer(words):  # --help, --cfg and the like
                return 0
        asked = enumerate_cells(words)
        for note in asked.notes:
            print(one_line(f"note: {note}"))
        code = run(list(asked.cells.values()), asked.settings)
        print(f"{time.perf_counter() - began:.1f} s in all")
        return code

    return guarded(work, debug)


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


if __name__ == "__main__":
    sys.exit(main())
