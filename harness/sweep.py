"""`python -m harness.sweep`: the cells that a command line asks for; an executor runs those not yet recorded.

Free of torch (like the store), so that a sweep with nothing to do ends at once. What the words mean is read in
`harness.commandline`, which loads Hydra; a worker process imports this module again and needs neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.ask import ask, once
from harness.cell import Cell, allowed_cores, number, whole, yes_or_no
from harness.errors import InputError, Terminated, one_line
from harness.executors.base import Record
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.store.records import Store

# Which figure (reports/figures) shows an axis; where several vary, the first.
FIGURES = (("strength", "strength"), ("cfg", "cfg"), ("precision", "precision"), ("steps", "steps"))
MANY_SAMPLERS = 5  # from which on a table of them says more than their curves


@dataclass(frozen=True)
class Asked:
    """A command line, understood: the cells by id, in the order asked for (duplicates fall together)."""

    cells: dict[str, Cell]
    settings: dict[str, Any]
    notes: list[str]


def enumerate_cells(words: Sequence[str]) -> Asked:
    """Every cell that the words of a command line ask for. Raises InputError before anything runs."""
    from harness.commandline import read
    from harness.data.load import remarks as data_remarks

    asked = read(words)
    settings = check_settings(asked.settings)
    cells: dict[str, Cell] = {}
    remembered = once()
    for values in asked.values:
        if values["threads"] is None and settings["workers"] > 1:
            values = {**values, "threads": max(1, allowed_cores() // settings["workers"])}
        cell = ask(values, remembered)
        cells.setdefault(cell.cell_id, cell)
    remarks = (remark for cell in cells.values() for remark in remembered(data_remarks, cell.data))
    return Asked(cells, settings, [*asked.notes, *dict.fromkeys(remarks)])


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the folder's `~` expanded; InputError where one cannot be."""
    whole(settings, "workers")
    whole(settings, "retries")
    if settings["cell_timeout"] is not None:
        number(settings, "cell_timeout")
    for name in ("force", "debug", "plots"):
        yes_or_no(settings, name)
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
    print(f"{len(cells)} cells: {there} recorded already, {len(pending)} to run; results in {store.root}", flush=True)
    failures, others = _run(pending, settings, store, before, session) if pending else ([], 0)
    if pending:
        compact_if_large(store)
    ran = len(pending) - others

    from harness.show import summary

    summary(store, cells, ran=ran, debug=settings["debug"], failures=failures)
    failed = any(status == "failed" for status, _ in store.versions([c.cell_id for c in cells]).values())
    return Outcome(1 if failed else 0, ran)


def _run(
    pending: list[Cell], settings: dict[str, Any], store: Store, before: dict[str, Any], session: str | None
) -> tuple[list[Record], int]:
    """The cells that failed, and how many another process recorded."""
    from harness.display import Display
    from harness.executors.local import SESSION, LocalExecutor
    from harness.share import Elsewhere, run_shared

    failures: list[Record] = []
    others = 0
    how = {name: settings[name] for name in ("workers", "cell_timeout", "retries")}
    executor = LocalExecutor(str(store.root), session=session or SESSION, **how)
    with Display(pending) as display:
        for message in run_shared(executor, store, pending, before):
            display.show(message)
            if isinstance(message, Elsewhere):
                others += message.done
            elif isinstance(message, Record) and message.cell["status"] != "ok":
                failures.append(message)
    return failures, others


def draw(results: Path, cells: list[Cell], ran: int) -> str:
    """Draw all that is recorded, where something is new; one line that names the picture to open.

    By a process of its own: a sweep knows nothing of reports, and whatever happens to them is no fault of its cells.
    """
    plots = results / "plots"
    again = _by_hand(results)
    if not ran and any(plots.glob("*.png")):
        return f"nothing new to draw: plots are in {plots}; again: {again}"
    print(f"drawing plots into {plots}", flush=True)
    began = time.time()
    command = [sys.executable, str(ROOT / "reports" / "plot.py"), "--results", str(results)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"warning: no plots were drawn ({error}); the records are whole; try: {again}"
    drawn = [line.removeprefix("drawn: ").split(" (")[0] for line in done.stdout.splitlines() if line[:7] == "drawn: "]
    new = [path for path in (plots / f"{name}.png" for name in drawn) if _newer(path, began)]
    if not new:
        reason = one_line((done.stderr.strip().splitlines() or ["nothing to compare yet"])[-1])[:300]
        return f"warning: no plots were drawn ({reason}); the records are whole; try: {again}"
    return f"plots: open {_first(new, cells)}" + (f" ({len(new) - 1} more beside it)" if len(new) > 1 else "")


def _first(drawn: list[Path], cells: list[Cell]) -> Path:
    """The picture that answers what this sweep asked: of its own task and model, over the axis that varies."""
    several = [figure for axis, figure in FIGURES if len({str(getattr(cell, axis)) for cell in cells}) > 1]
    if len({cell.sampler["name"] for cell in cells}) > MANY_SAMPLERS:
        several.insert(0, "samplers")
    ends = {f"{cell.task['name']}-{cell.model['name']}".lower() for cell in cells}
    own = [path for path in drawn if any(path.stem.endswith(end) for end in ends)]
    wanted = [path for figure in several for path in own if path.stem.startswith(f"{figure}-")]
    return next(iter([*wanted, *own, *drawn]))


def _by_hand(results: Path) -> str:
    return "python reports/plot.py" + ("" if str(results) == "results" else f" --results {results}")


def _newer(path: Path, began: float) -> bool:
    try:
        return path.stat().st_mtime >= began - 2  # some file systems keep whole seconds
    except OSError:
        return False


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
        cells = list(asked.cells.values())
        outcome = run(cells, asked.settings)
        results = Path(asked.settings["results_dir"])
        print(one_line(draw(results, cells, outcome.ran) if asked.settings["plots"] else f"next: {_by_hand(results)}"))
        print(f"{time.perf_counter() - began:.1f} s in all")
        return outcome.code

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
