"""What a person sees while a sweep runs, and after."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from harness.cell import Cell
from harness.errors import one_line
from harness.executors.base import Progress as Word
from harness.executors.base import Record
from harness.share import Elsewhere
from harness.store import Store

# Columns of the closing table: record column, heading, format.
SHOWN = (
    ("task", "task", "{}"),
    ("model", "model", "{}"),
    ("sampler", "sampler", "{}"),
    ("implementation", "by", "{}"),
    ("schedule", "schedule", "{}"),
    ("noise", "noise", "{}"),
    ("steps_run", "steps", "{:.0f}"),
    ("cfg", "cfg", "{:g}"),
    ("strength", "strength", "{:g}"),
    ("precision", "precision", "{}"),
    ("fid", "FID", "{:.2f}"),
    ("clip_score", "CLIP", "{:.2f}"),
    ("discretisation_error", "disc. error", "{:.4f}"),
    ("error_to_exact", "err. to exact", "{:.2e}"),
    ("sliced_wasserstein", "sliced W2", "{:.3f}"),
    ("latency_s", "latency s", "{:.3f}"),
    ("images_per_s", "images/s", "{:.1f}"),
    ("peak_memory_mib", "memory MiB", "{:.0f}"),
    ("nfe", "NFE", "{:.0f}"),
)
IF_SEVERAL = ("model", "implementation", "noise")  # shown only where a sweep has more than one of them
HALF_WIDTH = {"fid": ("fid_low", "fid_high"), "clip_score": ("clip_score_low", "clip_score_high")}


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
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    rows = store.rows([cell.cell_id for cell in cells])
    console.print(_table([row for row in rows if row["status"] == "ok"]))
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


def _table(rows: list[dict[str, Any]]) -> Table:
    """Only the columns that this sweep filled, and of some only where they tell rows apart."""
    table = Table(title=None, header_style="bold")
    values = {name: {row.get(name) for row in rows} - {None} for name, _, _ in SHOWN}
    shown = [column for column in SHOWN if len(values[column[0]]) > (column[0] in IF_SEVERAL)]
    for _, heading, form in shown:
        table.add_column(heading, justify="left" if form == "{}" else "right")
    for row in rows:
        table.add_row(*(_text(row, name, form) for name, _, form in shown))
    return table


def _text(row: dict[str, Any], name: str, form: str) -> str:
    if row.get(name) is None:
        return "–"
    text = form.format(row[name])
    low, high = (row.get(bound) for bound in HALF_WIDTH.get(name, ("", "")))
    if low is not None and high is not None:
        text += f" ±{(high - low) / 2:.2f}"
    return escape(one_line(text))
