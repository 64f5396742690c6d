"""`executor=local`: worker processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from harness.executors.base import Kind, Knobs, Message, Work


class Local(Kind):
    def run(self, work: Work, knobs: Knobs) -> Iterator[Message]:
        from harness.executors.local import LocalExecutor
        from harness.executors.share import run_shared

        how = {name: getattr(work, name) for name in ("workers", "cell_timeout", "retries", "session")}
        yield from run_shared(LocalExecutor(str(work.store.place), **how), work.store, work.cells, work.before)


KIND = Local()
