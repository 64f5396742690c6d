"""`executor=local`: worker processes on this machine."""

from __future__ import annotations

from collections.abc import Generator

from harness.executors.base import HOW, Kind, Knobs, Message, Notice, Work


class Local(Kind):
    def run(self, work: Work, knobs: Knobs) -> Generator[Message, None, None]:
        from harness.executors.local import LocalExecutor
        from harness.executors.share import run_shared

        yield Notice("starting a worker process: torch and the libraries of the model are loaded there")
        how = {name: getattr(work, name) for name in HOW}
        yield from run_shared(LocalExecutor(str(work.store.place), **how), work.store, work.cells, work.before)


KIND = Local()
