"""What runs on a node: one actor with its session, and a stream of words for each cell. Imports no torch by itself."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

from harness.executors.base import Part, Progress, Record, Task
from harness.executors.worker import Runner

Said = SimpleQueue[Progress | Part | Record | BaseException]


class SweepWorker:
    """Runs cells in one thread (the number of torch's threads belongs to the thread that set it), one at a time.

    `results_dir` is written to for what can be computed again alone, and by a node that does not see it not at all.
    """

    def __init__(self, results_dir: str, session: str, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before numpy and torch are loaded
        seen = Path(results_dir).is_dir()
        self.results_dir = results_dir if seen else str(Path(tempfile.gettempdir()) / f"harness-{os.getuid()}")
        self.session = session
        self.tasks: SimpleQueue[tuple[Task, Said]] = SimpleQueue()
        threading.Thread(target=self._life, daemon=True).start()

    def where(self) -> tuple[str, int]:
        """The machine and the process; whoever gets an answer knows that there was room for the actor."""
        return socket.gethostname(), os.getpid()

    def run(self, task: Task) -> Iterator[Progress | Part | Record]:
        """The words of a cell as they come, its record at last."""
        said: Said = SimpleQueue()
        self.tasks.put((task, said))
        while True:
            message = said.get()
            if isinstance(message, BaseException):
                raise message
            yield message
            if isinstance(message, Part | Record):
                return

    def _life(self) -> None:
        runner: Runner | None = None
        while True:
            task, said = self.tasks.get()
            try:
                runner = runner or Runner(self.results_dir, self.session)
                said.put(runner.run(task, said.put))
            except BaseException as error:  # no session on this node: the cell's stream ends with the reason
                said.put(error)
