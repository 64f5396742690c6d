"""`executor=ray`: actors of a Ray cluster run the cells; this process keeps the queue and alone writes."""

from __future__ import annotations

from collections.abc import Generator

from harness.executors.base import Kind, Knobs, Message, Notice, Work
from harness.executors.ray.options import Options


class Ray(Kind):
    def check(self, knobs: Knobs) -> None:
        Options.of(knobs).check_here()

    def cores(self, knobs: Knobs) -> int | None:
        return Options.of(knobs).num_cpus

    def run(self, work: Work, knobs: Knobs) -> Generator[Message, None, None]:
        from harness.executors.queue import Queue
        from harness.executors.ray.cluster import connected, nodes
        from harness.executors.share import run_shared

        options = Options.of(knobs)
        options.check(work)
        yield Notice(f"joining the Ray cluster {options.where}" if options.where else "starting Ray on this machine")
        with connected(options):
            from harness.executors.ray.actors import Actors

            yield Notice(f"the cluster has {len(nodes())} nodes; an actor loads torch and the model where it is placed")
            engine = Actors(str(work.store.place), work.session, options)
            queue = Queue(engine, work.cell_timeout, work.retries, work.shard_images, work.price_per_hour)
            yield from run_shared(queue, work.store, work.cells, work.before)


KIND = Ray()
