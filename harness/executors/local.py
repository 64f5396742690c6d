"""Worker processes on this machine, each with its model loaded. One may die: its cell fails, a new worker goes on."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from harness.cell import Cell
from harness.executors.base import SESSION, TIMED, Claim, Notable, Progress, Record, failed
from harness.store import places

START_S = 600.0  # a process that says nothing for so long hangs; importing torch takes 5 to 60 s and is no cell's time
TOGETHER = (
    24  # cells offered to be timed in turn; how many there is time for, the worker finds (harness/measure/rounds.py)
)


class LocalExecutor:
    """One worker a GPU and `workers` for the CPU; devices run side by side.

    `cell_timeout`: seconds that a cell may take, loading its model included; None: any. `retries`: how often a cell is
    tried again whose worker was lost (killed, crashed). A cell that ends with an error, or too late, is not.

    A worker that has its device for itself times cells of one model in turn: it gets a cell with those after it and
    keeps their timings until they come. What is timed and then run by another sweep is timed in vain; a worker that is
    lost while it times several is no cell's fault: they are timed one by one.
    """

    def __init__(
        self,
        results_dir: str,
        workers: int = 1,
        cell_timeout: float | None = None,
        retries: int = 1,
        session: str = SESSION,
    ) -> None:
        self.results_dir, self.workers, self.session = results_dir, workers, session
        self.cell_timeout, self.retries = cell_timeout, retries
        self.apart: set[str] = set()  # cells in whose company a worker was lost

    def run(self, cells: Sequence[Cell], claim: Claim = lambda cell: True) -> Iterator[Progress | Record]:
        queues: dict[str, deque[Cell]] = {}
        for cell in cells:
            queues.setdefault("cuda:0" if cell.device == "cuda" else cell.device, deque()).append(cell)
        workers = [
            (_Worker(self.results_dir, self.session), queue)
            for device, queue in queues.items()
            for _ in range(min(self.workers, len(queue)) if device == "cpu" else 1)
        ]
        try:
            while True:
                for worker, queue in workers:
                    while worker.cell is None and queue:
                        cell = queue.popleft()
                        if claim(cell):
                            worker.give(cell, self.cell_timeout, beside=self._beside(cell, queue))
                busy = {worker.connection: worker for worker, _ in workers if worker.cell is not None}
                if not busy:
                    return
                deadline = min(worker.deadline for worker in busy.values())
                heard = wait(list(busy), None if deadline == float("inf") else max(0.0, deadline - time.monotonic()))
                for message in self._messages([busy[pipe] for pipe in busy if pipe in heard], list(busy.values())):
                    if isinstance(message, Record):
                        message.cell["workers"] = len(workers)
                    yield message
        finally:
            for worker, _ in workers:
                worker.stop()

    def _beside(self, cell: Cell, queue: deque[Cell]) -> tuple[Cell, ...]:
        """The next cells that may be timed in turn with this one."""
        if cell.timing == "off" or (cell.device == "cpu" and self.workers > 1) or cell.cell_id in self.apart:
            return ()
        key = (cell.model_key, cell.timing, cell.timing_batch)
        near = islice((c for c in queue if (c.model_key, c.timing, c.timing_batch) == key), TOGETHER)
        return tuple(c for c in near if c.cell_id not in self.apart)

    def _messages(self, heard: list[_Worker], busy: list[_Worker]) -> Iterator[Progress | Record]:
        for worker in heard:
            try:
                yield worker.receive()
            except (EOFError, OSError):  # a worker that dies closes its end, half-way through a message perhaps
                yield self._lost(worker)
        for worker in busy:
            if worker.cell is not None and time.monotonic() >= worker.deadline:
                if worker.beside and worker.heard:
                    worker.stop()
                    yield self._one_by_one(worker, "took too long")
                    continue
                yield worker.fail(
                    f"it was not done after cell_timeout={self.cell_timeout:g} s; give more, or a smaller cell"
                )
                worker.stop()

    def _lost(self, worker: _Worker) -> Progress | Record:
        """A dead worker's cell: tried again in a new one, or failed."""
        cause = worker.cause_of_death()
        if not worker.fresh and not worker.heard:  # it died between two cells: this one had not begun
            worker.give(worker.running, self.cell_timeout, attempt=worker.attempts, beside=worker.beside)
            return Progress(worker.running.cell_id, "starting another worker", 0)
        if worker.beside and worker.heard:
            return self._one_by_one(worker, f"died ({cause})")
        if worker.attempts <= self.retries:
            cell = worker.running
            worker.give(cell, self.cell_timeout, attempt=worker.attempts + 1)
            return Progress(cell.cell_id, f"the worker process died: {cause}; trying again", 0, notable=True)
        times = f", {worker.attempts} times" if worker.attempts > 1 else ""
        return worker.fail(f"the worker process died{times}: {cause}")

    def _one_by_one(self, worker: _Worker, end: str) -> Progress:
        """The cell again without the others: whichever of them it was fails in its own turn."""
        cell = worker.running
        self.apart |= {cell.cell_id, *(other.cell_id for other in worker.beside)}
        worker.give(cell, self.cell_timeout, attempt=worker.attempts)
        what = f"the worker process {end} while it timed several cells in turn; they are timed one by one"
        return Progress(cell.cell_id, what, 0, notable=True)


class _Worker:
    """This end of one worker process: what it runs, since when, and until when it may."""

    def __init__(self, results_dir: str, session: str) -> None:
        self.results_dir, self.session = results_dir, session
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.cell: Cell | None = None
        self.beside: tuple[Cell, ...] = ()  # what it times in turn with the cell, until it says that this is done
        self.attempts = 0
        self.heard = False  # a word of this attempt
        self.fresh = False  # started for this attempt
        self.deadline = float("inf")  # on the monotonic clock
        self.timeout: float | None = None

    @property
    def running(self) -> Cell:
        """The cell that it has."""
        assert self.cell is not None
        return self.cell

    @property
    def connection(self) -> Connection:
        """This end of the pipe to a process that was started."""
        assert self.pipe is not None
        return self.pipe

    def give(self, cell: Cell, timeout: float | None, attempt: int = 1, beside: tuple[Cell, ...] = ()) -> None:
        """Send it a cell, and cells to be timed beside it; a worker that died while idle is replaced first."""
        if attempt == 1:
            self.started = time.time()
        self.cell, self.beside, self.attempts, self.timeout, self.heard = cell, beside, attempt, timeout, False
        self.fresh = self.process is None or not self.process.is_alive()
        if self.fresh:
            self.stop()
            self._start(cell.cpu_threads)
        self._wind_up(START_S if self.fresh else 0.0)
        with suppress(OSError):  # it died this moment: the pipe's end says so
            self.connection.send((cell, beside))

    def receive(self) -> Progress | Record:
        message = self.connection.recv()
        if isinstance(message, Progress):
            if message.what == TIMED:
                self.beside = ()
                self._wind_up()  # what timing the other cells took is not the cell's time
            elif not self.heard:
                self.heard = True
                self._wind_up()  # starting the process is not the cell's time
            return message
        return self._done(message)

    def fail(self, error: str) -> Record:
        return self._done(failed(self.running, error, self.started))

    def _done(self, record: Record) -> Record:
        record.cell["attempts"] = self.attempts
        self.cell, self.beside, self.deadline = None, (), float("inf")
        return record

    def _wind_up(self, start_s: float = 0.0) -> None:
        allowed = float("inf") if self.timeout is None else self.timeout * (1 + len(self.beside))
        self.deadline = time.monotonic() + start_s + allowed

    def cause_of_death(self) -> str:
        assert self.process is not None
        self.process.join(timeout=10)
        code = self.process.exitcode
        self.stop()
        if code is None or code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (often the system out of memory: try a smaller batch_size)" if code == -9 else "")

    def _start(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked CUDA or OpenMP runtime does not survive
        self.pipe, theirs = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(threads)
        process = context.Process(target=_work, args=(theirs, self.results_dir, self.session, os.getpid()), daemon=True)
        process.start()
        self.process = process
        theirs.close()

    def stop(self) -> None:
        """End the process, whatever it is doing, and remove the files that it had half-written."""
        if self.process is None:
            return
        self.process.kill()
        self.process.join()
        self.connection.close()
        if self.process.pid is not None:
            places.at(self.results_dir).clear_after(self.process.pid)
        self.process = None


def _work(pipe: Connection, results_dir: str, session: str, parent: int) -> None:
    """The worker's life: receive a cell, run it, send its record."""
    # Ctrl-C and the end of a job reach every process of it; what then becomes of the cell is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    module, _, name = session.partition(":")
    runner = getattr(importlib.import_module(module), name)(results_dir)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        while True:
            cell, beside = pipe.recv()
            pipe.send(_result(runner, cell, beside, pipe))


def _result(session: Any, cell: Cell, beside: tuple[Cell, ...], pipe: Connection) -> Record:
    started = time.time()

    def report(what: str, images: int) -> None:
        pipe.send(Progress(cell.cell_id, str(what), images, notable=isinstance(what, Notable)))

    try:
        if beside:
            session.time_together([cell, *beside], report)
            report(TIMED, 0)
        record = session.run(cell, report)
        return record.checked()  # here, so that a row that does not fit costs its own cell and no other
    except (Exception, SystemExit) as error:  # a cell may fail in any way; the others go on
        record = failed(cell, _reason(error), started, traceback.format_exc())
    session.after_failure()  # after the error is gone, whose frames hold what the cell had allocated
    return record


def _reason(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
        text = f"out of memory (try a smaller batch_size): {text}"
    if isinstance(error, SystemExit):
        text = f"the code under test asked the process to exit: {text}"
    return text[:2000]


def _die_with_parent(parent: int) -> None:
    """A killed parent must not leave a worker that computes for nobody."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
