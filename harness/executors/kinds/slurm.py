"""`executor=slurm`: pilots in the queue of a cluster run the cells; this process submits and watches."""

from __future__ import annotations

from collections.abc import Generator

from harness.errors import InputError
from harness.executors.base import Kind, Knobs, Message, Work
from harness.executors.slurm import queue
from harness.executors.slurm.options import Options
from harness.store import layout


class Slurm(Kind):
    def check(self, knobs: Knobs) -> None:
        Options.of(knobs)
        queue.check_installed()
        queue.check_reachable()

    def cores(self, knobs: Knobs) -> int | None:
        return Options.of(knobs).cpus

    def waits(self, knobs: Knobs) -> bool:
        return Options.of(knobs).wait

    def run(self, work: Work, knobs: Knobs) -> Generator[Message, None, None]:
        from harness.executors.slurm.drive import Drive  # pyarrow

        if layout.is_remote(work.store.place):
            raise InputError(
                f"results_dir={work.store.place} is not for executor=slurm, whose pilots share a folder; give one that "
                "all nodes see, or executor=ray"
            )
        yield from Drive(work, Options.of(knobs)).run()


KIND = Slurm()
