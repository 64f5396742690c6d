"""One worker process that keeps its model loaded. It may die: its cell becomes a failed record, a new one goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from harness.cell import Cell
from harness.executors.base import Progress, Record


def failed(cell: Cell, error: str, started: float, trace: str = "") -> Record:
    row = {**cell.columns(), "status": "failed", "error": error, "started_at": started, "ended_at": time.time()}
    return Record(cell=row, traceback=trace)


class LocalExecutor:
    """Cells one after the other in a spawned process on this machine."""

    def __init__(self, results_dir: str) -> None:
        self.results_dir = results_dir
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None

    def run(self, cells: Sequence[Cell]) -> Iterator[Progress | Record]:
        try:
            for cell in cells:
                yield from self._run_one(cell)
        finally:
            self._stop()

    def _run_one(self, cell: Cell) -> Iterator[Progress | Record]:
        started = time.time()
        try:
            if self.process is None:
                self._start(cell.threads)
            self.pipe.send(cell)
            while True:
                message = self.pipe.recv()
                yield message
                if isinstance(message, Record):
                    return
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join(timeout=10)
            code, self.process = self.process.exitcode, None
            yield failed(cell, f"the worker process died: {_cause(code)}", started)

    def _start(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked CUDA or OpenMP runtime does not survive
        self.pipe, theirs = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self.process = context.Process(target=_work, args=(theirs, self.results_dir, threads), daemon=True)
        self.process.start()
        theirs.close()

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    hint = " (often the system out of memory: try a smaller batch_size)" if name == "SIGKILL" else ""
    return f"signal {name}{hint}"


def _work(pipe: Connection, results_dir: str, threads: int) -> None:
    """The worker's life: receive a cell, run it, send its record."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    import torch

    from harness.run import Session

    torch.set_num_threads(threads)
    session = Session(results_dir)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        started = time.time()
        try:
            record = session.run(cell, lambda what, images, cell=cell: pipe.send(Progress(cell.cell_id, what, images)))
        except Exception as error:  # a cell may fail in any way; the others go on
            text = " ".join(f"{type(error).__name__}: {error}".split())
            record = failed(cell, text[:2000], started, traceback.format_exc())
            del error
            session.after_failure()
        pipe.send(record)


def _die_with_parent(parent: int) -> None:
    """A killed parent must not leave a worker that computes for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
