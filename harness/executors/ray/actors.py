"""Ray as an engine of `Queue`: one actor a worker. Ray starts and carries; who runs what, and again, is the queue's.

Ray's own restarts and retries are off: they would hide attempts and time limits. Messages come through one streaming
generator a cell. Whatever Ray says of an actor that does not answer, it is lost: its node may be gone for good.
"""

# Ray is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from harness.errors import InputError, one_line
from harness.executors.base import Part, Progress, Record, Task
from harness.executors.queue import Engine, Handle, Lost
from harness.executors.ray.actor import SweepWorker
from harness.executors.ray.cluster import nodes, room
from harness.executors.ray.options import Options


class Actors(Engine):
    """Actors of the cluster that this process is connected to."""

    def __init__(self, results_dir: str, session: str, options: Options) -> None:
        self.results_dir, self.session, self.options = results_dir, session, options

    def count(self, device: str, cells: int) -> int:
        if self.options.actors is not None:  # Ray waits for nodes that are still to come
            return min(self.options.actors, cells)
        needs = self._needs(device)
        found = nodes()
        fits = room(needs, found)
        if not fits:
            asked = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
            raise InputError(
                f"none of the cluster's {len(found)} nodes has room for an actor with {asked}; change "
                "executor.num_gpus, num_cpus or resources, or give executor.actors=N to wait for nodes that are to come"
            )
        return min(fits, cells)

    def _needs(self, device: str) -> dict[str, float]:
        needs = {"CPU": self.options.num_cpus, "GPU": self.options.gpus(device), **self.options.resources}
        return {name: amount for name, amount in needs.items() if amount}

    def handle(self, device: str) -> Actor:
        how = {
            "num_cpus": self.options.num_cpus,
            "num_gpus": self.options.gpus(device),
            "resources": dict(self.options.resources),
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        return Actor(self.results_dir, self.session, how)

    def wait(self, handles: Sequence[Handle], seconds: float | None) -> list[Handle]:
        awaited = {handle.awaited: handle for handle in handles if isinstance(handle, Actor)}
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds, fetch_local=False)
        if ready and len(awaited) > 1:  # all that have something to say, so that none waits for another's turn
            ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0, fetch_local=False)
        return [awaited[one] for one in ready]


class Actor(Handle):
    """One actor, from asking for it on. `ready` once Ray has placed it: what is bound earlier may wait for ever."""

    def __init__(self, results_dir: str, session: str, how: dict[str, Any]) -> None:
        self.results_dir, self.session, self.how = results_dir, session, how
        self.actor: Any = None
        self.awaited: Any = None  # what Ray is to wait for: the actor's place, or the stream of a cell

    def start(self, threads: int) -> None:
        self.stop()
        self.actor = ray.remote(SweepWorker).options(**self.how).remote(self.results_dir, self.session, threads)
        self.awaited = self.actor.where.remote()

    def alive(self) -> bool:
        return self.actor is not None

    def send(self, task: Task) -> None:
        self.awaited = self.actor.run.options(num_returns="streaming").remote(task)

    def receive(self) -> Progress | Part | Record | None:
        try:
            if not self.ready:
                self.machine, _ = ray.get(self.awaited)
                self.ready = True
                return None
            return ray.get(next(self.awaited))
        except StopIteration:
            raise Lost("it said nothing more") from None
        except RayError as error:
            raise Lost(_short(error)) from error

    def stop(self) -> None:
        if self.actor is not None:
            with suppress(RayError, ValueError):  # it is gone already
                ray.kill(self.actor, no_restart=True)
        self.actor = self.awaited = None
        self.ready, self.machine = False, ""


def _short(error: RayError) -> str:
    """Ray's reason without what it says of the actor's class and ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("class_name", "actor_id", "pid:", "namespace", "ip:"))]
    return one_line(f"{type(error).__name__}: {' '.join(told)}")[:300]
