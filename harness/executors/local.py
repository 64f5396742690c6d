"""Worker processes on this machine, each with its model loaded. One may die: its cell fails, a new worker goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.atomic import clear_after
from harness.executors.base import SESSION, Part, Progress, Record, Task
from harness.executors.queue import Engine, Handle, Lost, Queue
from harness.executors.worker import Runner
from harness.store import layout

SPAWN = multiprocessing.get_context("spawn")  # a forked CUDA or OpenMP runtime does not survive


class LocalExecutor(Queue):
    """One worker a GPU and `workers` for the CPU; devices run side by side. See `Queue` for the rest."""

    def __init__(
        self,
        results_dir: str,
        workers: int = 1,
        cell_timeout: float | None = None,
        retries: int = 1,
        shard_images: int | None = None,
        session: str = SESSION,
        price_per_hour: float | None = None,
    ) -> None:
        engine = Processes(results_dir, workers, session)
        super().__init__(engine, cell_timeout, retries, shard_images, price_per_hour)


class Processes(Engine):
    """Processes of this machine."""

    def __init__(self, results_dir: str, workers: int, session: str) -> None:
        self.results_dir, self.workers, self.session = results_dir, workers, session

    def count(self, device: str, cells: int) -> int:
        return min(self.workers, cells) if device == "cpu" else 1

    def apart(self, device: str) -> bool:
        return device != "cpu" or self.workers == 1

    def handle(self, device: str) -> Process:
        return Process(self.results_dir, self.session)

    def wait(self, handles: Sequence[Handle], seconds: float | None) -> list[Handle]:
        pipes = {handle.connection: handle for handle in handles if isinstance(handle, Process)}
        return [pipes[pipe] for pipe in wait(list(pipes), seconds) if isinstance(pipe, Connection)]


class Process(Handle):
    """One process and the pipe to it. It is ready at once: what it is sent waits in the pipe."""

    ready = True

    def __init__(self, results_dir: str, session: str) -> None:
        self.results_dir, self.session = results_dir, session
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    @property
    def connection(self) -> Connection:
        """This end of the pipe to a process that was started."""
        assert self.pipe is not None
        return self.pipe

    def start(self, threads: int) -> None:
        self.stop()
        self.pipe, theirs = SPAWN.Pipe()
        self.process = spawned(_work, (theirs, self.results_dir, self.session, os.getpid()), threads)
        theirs.close()

    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def send(self, task: Task) -> None:
        with suppress(OSError):  # it died this moment: the pipe's end says so
            self.connection.send(task)

    def receive(self) -> Progress | Part | Record:
        try:
            return self.connection.recv()
        except (EOFError, OSError) as end:  # a process that dies closes its end, half-way through a message perhaps
            raise Lost(self._cause_of_death()) from end

    def _cause_of_death(self) -> str:
        assert self.process is not None
        self.process.join(timeout=10)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (often the system out of memory: try a smaller batch_size)" if code == -9 else "")

    def stop(self) -> None:
        """End the process and remove the files that it had half-written."""
        if self.process is None:
            return
        end_process(self.process, layout.cache(self.results_dir))  # it writes nothing else
        self.connection.close()
        self.process = None


def spawned(target: Callable[..., None], args: tuple[Any, ...], threads: int) -> BaseProcess:
    """A process that was started, with so many threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    process = SPAWN.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def end_process(process: BaseProcess, folder: Path) -> None:
    """Kill the process and remove the files that it had half-written in the folder."""
    process.kill()
    process.join()
    if process.pid is not None:
        clear_after(folder, process.pid)


def _work(pipe: Connection, results_dir: str, session: str, parent: int) -> None:
    """The worker's life: receive a cell, run it, send its record."""
    # Ctrl-C and the end of a job reach every process of it; what then becomes of the cell is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=die_with_parent, args=(parent,), daemon=True).start()
    runner = Runner(results_dir, session)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        while True:
            pipe.send(runner.run(pipe.recv(), pipe.send))


def die_with_parent(parent: int) -> None:
    """A killed parent must not leave a worker that computes for nobody."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
