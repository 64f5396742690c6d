"""A worker's side of any engine: a cell comes in, words on how far it is and its record go out. Imports no torch."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable

from harness.executors.base import TIMED, Notable, Part, Progress, Record, Task, failed
from harness.store.place import Outbox


class Runner:
    """Runs what it is sent, in one session: its model stays loaded. What it makes goes out with the records alone."""

    def __init__(self, results_dir: str, session: str) -> None:
        module, _, name = session.partition(":")
        self.outbox = Outbox()
        self.session = getattr(importlib.import_module(module), name)(results_dir, self.outbox)

    def run(self, task: Task, send: Callable[[Progress], None]) -> Record | Part:
        """The cell's record or the part asked for; a failed record, whatever happens. `send` takes words on the way."""
        cell, started = task.cell, time.time()

        def report(what: str, images: int) -> None:
            send(Progress(cell.cell_id, str(what), images, notable=isinstance(what, Notable)))

        self.outbox.taken()  # what a cell that failed has left
        try:
            if task.beside:
                self.session.time_together([cell, *task.beside], report)
                report(TIMED, 0)
            if task.images is not None:
                return self.session.part(cell, task.images, report)
            record = self.session.join(cell, task.parts, report) if task.parts else self.session.run(cell, report)
            record.files = self.outbox.taken()
            return record.checked()  # here, so that a row that does not fit costs its own cell and no other
        except (Exception, SystemExit) as error:  # a cell may fail in any way; the others go on
            record = failed(cell, reason(error), started, traceback.format_exc())
        self.session.after_failure()  # after the error is gone, whose frames hold what the cell had allocated
        return record


def reason(error: BaseException) -> str:
    """What a failed cell's row says of its error."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
        text = f"out of memory (try a smaller batch_size): {text}"
    if isinstance(error, SystemExit):
        text = f"the code under test asked the process to exit: {text}"
    return text[:2000]
