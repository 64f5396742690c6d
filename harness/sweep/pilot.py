"""`python -m harness.sweep.pilot JOB`: what a node of a cluster runs: a sweep over the cells of a job's folder.

Pilots share the work with one another, and with whoever else works on the results folder, by leases. Each begins at
its own share of the cells and goes on with what others have left. SIGUSR1 says that the time limit is near: no cell is
begun from then on, the running ones have until shortly before the limit, and the pilot enters the queue again where
something is left. SIGTERM (the queue wants the node back, or the job was cancelled) gives running cells back at once.

A worker process imports this module again, so it loads nothing heavy by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell import Cell
from harness.errors import Terminated, one_line
from harness.executors.base import HOW
from harness.executors.slurm.job import Job
from harness.executors.slurm.options import LAST_S
from harness.sweep.run import guarded

if TYPE_CHECKING:
    from harness.store.records import Store

REQUEUE_S = 60.0  # a controller that does not answer for so long will not


class Limit:
    """Whether the time limit is near: SIGUSR1 says so, `end_before` s ahead; LAST_S ahead it raises Terminated."""

    def __init__(self, end_before: int) -> None:
        self.near, self.end_before = False, end_before
        signal.signal(signal.SIGUSR1, self._is_near)
        signal.signal(signal.SIGALRM, self._is_here)

    def __call__(self) -> bool:
        return self.near

    def _is_near(self, *_: object) -> None:
        if not self.near:
            self.near = True
            signal.alarm(self.end_before - LAST_S)

    def _is_here(self, *_: object) -> None:
        raise Terminated


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if len(words) != 1 or not (Path(words[0]) / "pilot.json").is_file():
        print("error: give the folder of a job, as in results/jobs/…; executor=slurm starts this", file=sys.stderr)
        return 2
    from harness.store.records import Store

    job = Job(Path(words[0]))
    orders = job.orders()
    limit = Limit(orders["end_before"])
    store = Store(orders["results"])
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))
    code = guarded(lambda: _run(shared_out(job.cells(), task, orders["tasks"]), job, orders, store, limit), debug=True)
    signal.alarm(0)
    if limit.near and left(job.cells(), job.asked, store):
        print(_enter_again(orders["restarts"]), flush=True)
        return 0
    return code


def _run(cells: list[Cell], job: Job, orders: Mapping[str, Any], store: Store, limit: Limit) -> int:
    from harness.executors.local import LocalExecutor
    from harness.executors.parts import SharedParts
    from harness.executors.share import run_shared
    from harness.sweep.display import Display

    store.check_writable()
    todo = left(cells, job.asked, store)
    if not todo:
        print("every cell of the job is recorded", flush=True)
        return 0
    executor = LocalExecutor(orders["results"], **{name: orders[name] for name in HOW if name in orders})
    # A cell in parts is every pilot's: each makes what parts it gets hold of.
    parts = SharedParts(job.parts, orders["shard_images"]) if job.parts else None
    with Display(todo) as display:
        for message in run_shared(executor, store, todo, job.before, ending=limit, waits=False, parts=parts):
            display.show(message)
    return 0


def shared_out(cells: Sequence[Cell], task: int, tasks: int) -> list[Cell]:
    """All cells, from the beginning of this pilot's share on: pilots meet only where one has run out of its own.

    >>> shared_out("abcdef", 1, 3)
    ['c', 'd', 'e', 'f', 'a', 'b']
    """
    first = len(cells) * (task % tasks) // tasks
    return [*cells[first:], *cells[:first]]


def left(cells: Sequence[Cell], before: Mapping[str, Any], store: Store) -> list[Cell]:
    """The cells whose record is still that from before the job."""
    now = store.versions([cell.cell_id for cell in cells])
    return [cell for cell in cells if now.get(cell.cell_id) == before.get(cell.cell_id)]


def _enter_again(restarts: int) -> str:
    """Put this pilot into the queue once more; what came of it."""
    been = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if been >= restarts:
        return f"the time limit is near, and this pilot was queued again {been} times (executor.restarts={restarts})"
    task = f"{os.environ.get('SLURM_ARRAY_JOB_ID')}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    try:
        done = subprocess.run(["scontrol", "requeue", task], capture_output=True, text=True, timeout=REQUEUE_S)
        trouble = done.stderr if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    if trouble:
        return one_line(f"the time limit is near; this pilot could not be queued again: {trouble}")
    return f"the time limit is near: {task} is in the queue again"


if __name__ == "__main__":
    sys.exit(main())
