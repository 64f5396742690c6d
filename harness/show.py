"""What a person sees while a sweep runs, and after."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.cell import Cell
from harness.errors import one_line
from harness.executors.base import Progress as Word
from harness.executors.base import Record
from harness.share import Elsewhere
from harness.store import Store


class Display:
    """Two bars: cells done, and images of the running cell, with the time left."""

    def __init__(self, cells: list[Cell], recorded: int) -> None:
        self.labels = {cell.cell_id: (cell.label, cell.n_images) for cell in cells}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.console = Console()
        self.bars = Progress(*columns, console=self.console, refresh_per_second=2)
        note = f" ({recorded} recorded already)" if recorded else ""
        self.cells = self.bars.add_task(f"cells{note}", total=len(cells))
        self.images = self.bars.add_task("starting the worker", total=None)

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.remove_task(self.images)
        self.bars.stop()

    def show(self, message: Word | Record | Elsewhere) -> None:
        if isinstance(message, Elsewhere):
            self.say(f"left to another sweep: {message.cell_id} {self.labels[message.cell_id][0]}, {message.what}")
            self.bars.advance(self.cells, int(message.done))
            return
        if isinstance(message, Word):
            label, total = self.labels[message.cell_id]
            if message.notable:
                self.say(f"{message.cell_id} {label}: {message.what}")
            self.bars.update(
                self.images,
                description=escape(one_line(f"{label}: {message.what}")),
                completed=message.images,
                total=total,
            )
            return
        self.bars.advance(self.cells)
        if not self.console.is_terminal:  # a log file gets a line a cell instead of a bar
            row = message.cell
            self.say(f"{row['status']} {row['cell_id']} {self.labels[row['cell_id']][0]}")

    def say(self, line: str) -> None:
        self.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def summary(store: Store, cells: list[Cell], ran: int, debug: bool, failures: list[Record]) -> None:
    """The table of this sweep's cells, where they were written, what failed and why, and what to type next."""
    from harness.verdict import table  # pandas and scipy take a second: after the work, not before its first line
    from harness.verdict.paired import read_cells

    console = Console()
    if not console.is_terminal:
        console = Console(width=table.NARROW)
    table.show(table.end_table(read_cells(store, [cell.cell_id for cell in cells]), store), console)
    for failure in failures:
        row = failure.cell
        what = f"failed {row['cell_id']} ({row['task']} {row['sampler']} {row['steps']} steps): {row['error']}"
        console.print(one_line(what), style="red", markup=False, highlight=False, soft_wrap=True)
        if debug and failure.traceback:
            console.print(failure.traceback, markup=False, highlight=False)
    console.print(
        f"{ran} cells run, {len(cells) - ran} already recorded, {len(failures)} failed; records in {store.root}/cells",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    where = "" if str(store.root) == "results" else f" --results {store.root}"
    console.print(f"next: python reports/plot.py{where}", markup=False, highlight=False, soft_wrap=True)
