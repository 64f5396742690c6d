"""What a person sees while a sweep runs: a line for each thing that begins or ends, and bars on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from harness.cell import Cell
from harness.errors import one_line
from harness.executors.base import Message, Notice, Record, TakenByAnother
from harness.executors.base import Progress as Word

SHORT_S = 0.5  # a model that is there already is "loaded" in less: not worth a line


class Display:
    """Lines that stay, in a log file as on a terminal; there two bars as well: cells and images of the running cell."""

    def __init__(
        self, cells: list[Cell], console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cells = {cell.cell_id: cell for cell in cells}
        self.console, self.clock = console or Console(), clock
        self.began = clock()
        self.started: dict[str, float] = {}  # cell_id → when its first word came
        self.loading: dict[str, float] = {}  # cell_id → since when it loads what it needs
        self.models: set[tuple] = set()  # keys of those that were said to be loaded
        self.told: set[str] = set()  # notable words: said of the first cell that they are true of
        self.done = 0  # cells
        self.work = 0.0  # the work of the cells that ended here, by `_work`
        self.left = sum(map(_work, cells))
        self.bars: _Bars | None = _Bars(self.console, len(cells)) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def show(self, message: Message) -> None:
        if isinstance(message, Notice):
            self.say(message.what)
        elif isinstance(message, TakenByAnother):
            self._taken(message)
        elif isinstance(message, Word):
            self._word(message)
        else:
            self._record(message)

    def _taken(self, message: TakenByAnother) -> None:
        cell = self.cells[message.cell_id]
        self.say(f"left to another sweep: {message.cell_id} {cell.label}, {message.what}")
        if message.done:
            self.done += 1
            self.left -= _work(cell)
            self._advance()

    def _word(self, word: Word) -> None:
        cell = self.cells[word.cell_id]
        if word.cell_id not in self.started:
            if not self.started:
                self.say(f"the first cell begins after {in_words(self.clock() - self.began)}")
            self.started[word.cell_id] = self.clock()
            self.say(f"started {word.cell_id} {cell.label}")
        self._loading(cell, word.what)
        if word.notable and word.what not in self.told:
            self.told.add(word.what)
            self.say(f"{word.cell_id} {cell.label}: {word.what}")
        if self.bars:
            self.bars.images_of(one_line(f"{cell.label}: {word.what}"), word.images, cell.n_images)

    def _loading(self, cell: Cell, what: str) -> None:
        """What is loaded, where it was not for the cell before, and how long it took."""
        since = self.loading.pop(cell.cell_id, None)
        if since is not None and self.clock() - since >= SHORT_S:
            self.say(f"loaded in {in_words(self.clock() - since)}")
        if what == "loading" and cell.model_key not in self.models:
            self.models.add(cell.model_key)
            self.loading[cell.cell_id] = self.clock()
            self.say(f"loading {cell.model['name']} ({cell.precision}, {cell.device}), data={cell.data['name']}")

    def _record(self, record: Record) -> None:
        row = record.cell
        cell = self.cells[row["cell_id"]]
        self.done += 1
        self.work += _work(cell)
        self.left -= _work(cell)
        since = self.started.get(cell.cell_id)  # a cell elsewhere may have begun and ended unseen
        took = "" if since is None else f" in {in_words(self.clock() - since)}"
        reason = "" if row["status"] == "ok" else f": {row.get('error')}"
        left = f", about {in_words(self._seconds_left())} left" if self.done < len(self.cells) else ""
        self.say(f"{row['status']} {cell.cell_id} {cell.label}{took}{reason} ({self.done} of {len(self.cells)}{left})")
        self._advance()

    def _advance(self) -> None:
        if self.bars:
            left = f"about {in_words(self._seconds_left())} left" if self.work and self.done < len(self.cells) else ""
            self.bars.advance(left)

    def _seconds_left(self) -> float:
        """By the rate at which the images' steps were made so far; loading is not part of it."""
        since = min(self.started.values(), default=self.began)
        return self.left * (self.clock() - since) / self.work

    def say(self, line: str) -> None:
        if self.bars:
            self.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:  # four times as fast, which thousands of small cells feel
            print(one_line(line), file=self.console.file, flush=True)


class _Bars:
    """Two bars below the lines."""

    def __init__(self, console: Console, cells: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=console, refresh_per_second=2)
        self.cells: TaskID = self.progress.add_task("cells", total=cells)
        self.images: TaskID = self.progress.add_task("starting", total=None)

    def start(self) -> None:
        self.progress.start()

    def stop(self) -> None:
        self.progress.remove_task(self.images)
        self.progress.stop()

    def images_of(self, what: str, made: int, total: int) -> None:
        self.progress.update(self.images, description=escape(what), completed=made, total=total)

    def advance(self, left: str) -> None:
        self.progress.update(self.cells, advance=1, description=f"cells: {left}" if left else "cells")


def _work(cell: Cell) -> float:
    """What a cell's time is roughly proportional to."""
    return cell.n_images * max(1, cell.steps)


def in_words(value: float) -> str:
    """A length of time as people say it."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
