"""What a sweep of very many cells costs: `python -m harness.bench.scale [--only enumerate,record,simulate,resume]`.

enumerate   cells of one command line, checked and named: CPU time a cell, memory
record      records written in groups into a folder, put together on the way: records a second of CPU and of wall time
simulate    the real queue, leases and store under workers that only pass the time: how long they wait for the next cell
resume      which of so many recorded cells are done: what the same command asks first

The cells of `simulate` are those of bench/fake_cells.py. Its clock is the CPU time of this process, and jumps where
there is nothing to do: ten minutes of a thousand workers take as long as the driver's own work.
"""

from __future__ import annotations

import argparse
import heapq
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.bench.fake_cells import cell as fake_cell
from harness.cell import Cell
from harness.errors import interruptible
from harness.executors.base import Progress, Record, Task
from harness.executors.queue import Engine, Handle, Queue
from harness.executors.share import run_shared
from harness.store import layout, numbers, parquet_files
from harness.store.records import GROUP_ROWS, Store
from harness.store.schema import arrow_schema
from harness.store.upkeep import LARGE, compact_if_large

PARTS = ("enumerate", "record", "simulate", "resume")
GROUP, IMAGES, RUNS = 100, 8, 9
WORDS = ("sampler=ddim,dpmpp,euler,heun,unipc", "steps=10,20,30,50", "cfg=1,3", "device=cpu", "threads=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="with commas; default: all")
    parser.add_argument("--cells", type=int, default=100_000, help="cells to enumerate")
    parser.add_argument("--records", type=int, default=100_000, help="records to write")
    parser.add_argument("--workers", type=int, default=1_000, help="simulated")
    parser.add_argument("--work", type=float, default=10.0, help="seconds that a simulated cell takes")
    parser.add_argument("--each", type=int, default=10, help="simulated cells a worker")
    parser.add_argument("--recorded", type=int, default=1_000_000, help="recorded cells of a resume")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only={asked.only}: {', '.join(sorted(unknown))} is not there; valid: {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        for part in wanted:
            where = Path(folder) / part
            {
                "enumerate": lambda: enumerated(asked.cells),
                "record": lambda where=where: recorded(where, asked.records),
                "simulate": lambda where=where: simulated(where, asked.workers, asked.each, asked.work),
                "resume": lambda where=where: resumed(where, asked.recorded),
            }[part]()
    print(f"peak memory of this process: {_peak_mib():.0f} MiB")


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, its seconds of CPU and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def enumerated(count: int) -> None:
    from harness.sweep.enumerate import enumerate_cells

    enumerate_cells([*WORDS, "seed=0"])  # what is imported and read once
    before = _peak_mib()
    asked, cpu, wall = _timed(lambda: enumerate_cells([*WORDS, f"seed=range(0,{max(1, count // 40)})"]))
    number = len(asked.cells)
    print(
        f"enumerate: {number} cells in {cpu:.1f} s of CPU ({wall:.1f} s), {1e3 * cpu / number:.2f} ms a cell; "
        f"peak memory {before:.0f} -> {_peak_mib():.0f} MiB"
    )


def record_of(cell: Cell) -> Record:
    """As a small real cell leaves it: a row, rows of images and of timed runs."""
    row = {**cell.columns(), "status": "ok", "nfe": 20.0, "clip_score": 30.0, "ended_at": 1_900_000_000_000 + cell.seed}
    images = [{"image_index": k, "seed": cell.seed, "prompt": f"image {k}", "clip_score": 30.0} for k in range(IMAGES)]
    timings = [{"run": k, "kind": "timed", "total_s": 0.5, "denoise_s": 0.4} for k in range(RUNS)]
    return Record(row, images, timings)


def recorded(folder: Path, count: int) -> None:
    store = Store(folder)
    store.check_writable()
    cpu = wall = 0.0
    for first in range(0, count, GROUP):
        made = [record_of(fake_cell(seed)) for seed in range(first, min(first + GROUP, count))]

        def write(made: list[Record] = made, number: int = first // GROUP + 1) -> None:
            store.write_new([(one.cell, one.images, one.timings) for one in made])
            if number % LARGE == 0:
                compact_if_large(store)

        _, used, took = _timed(write)
        cpu, wall = cpu + used, wall + took
    print(
        f"record: {count} records in groups of {GROUP}: {count / cpu:.0f} a second of CPU, {count / wall:.0f} of wall "
        f"time; {len(store.files('cells'))} files of cells at the end"
    )
    alone = [record_of(fake_cell(count + seed)) for seed in range(50)]
    _, cpu, wall = _timed(lambda: [store.write(one.cell, one.images, one.timings) for one in alone])
    print(f"        one by one: {1e3 * cpu / 50:.1f} ms of CPU each ({1e3 * wall / 50:.1f} ms)")


class Clock:
    """CPU time of this process, less what `apart` took, and jumps."""

    def __init__(self) -> None:
        self.jumped = -time.process_time()

    def now(self) -> float:
        return self.jumped + time.process_time()

    def until(self, moment: float) -> None:
        self.jumped += max(0.0, moment - self.now())

    def apart(self, work: Callable[[], Any]) -> Any:
        """What another process would do: it takes none of this one's time."""
        before = time.process_time()
        found = work()
        self.jumped -= time.process_time() - before
        return found


class Passing(Engine):
    """Workers that say three things a cell and take `work` seconds over it."""

    def __init__(self, workers: int, work: float, clock: Clock) -> None:
        self.workers, self.work, self.clock = workers, work, clock
        self.coming: list[tuple[float, int, Passer]] = []
        self.waited = self.worked = 0.0
        self.longest = 0.0
        self.number = 0

    def count(self, device: str, cells: int) -> int:
        return min(self.workers, cells)

    def handle(self, device: str) -> Passer:
        return Passer(self)

    def says(self, moment: float, handle: Passer) -> None:
        self.number += 1
        heapq.heappush(self.coming, (moment, self.number, handle))

    def wait(self, handles: Sequence[Handle], seconds: float | None) -> list[Handle]:
        self.clock.until(self.coming[0][0])
        found: list[Handle] = []
        while self.coming and self.coming[0][0] <= self.clock.now():
            found.append(heapq.heappop(self.coming)[2])
        return found


class Passer(Handle):
    """One of them. It waits from its record to its next cell."""

    ready = True

    def __init__(self, engine: Passing) -> None:
        self.engine, self.there = engine, False
        self.free: float | None = None  # since when it has nothing to do
        self.end = 0.0
        self.ends: list[float] = []  # when it says its next words, the last first

    def start(self, threads: int) -> None:
        self.there = True

    def alive(self) -> bool:
        return self.there

    def send(self, task: Task) -> None:
        now = self.engine.clock.now()
        if self.free is not None:
            waited = now - self.free
            self.engine.waited, self.engine.longest = self.engine.waited + waited, max(self.engine.longest, waited)
            self.engine.worked += self.engine.work
            began = now
        else:  # they do not all begin at one moment
            began = now - self.engine.work * (self.engine.number % self.engine.workers) / self.engine.workers
        self.cell, self.end = task.cell, began + self.engine.work
        self.ends = [self.end, now + (self.end - now) / 2, now + (self.end - now) / 4]
        self.engine.says(self.ends.pop(), self)

    def receive(self) -> Progress | Record:
        if self.ends:
            self.engine.says(self.ends.pop(), self)
            return Progress(self.cell.cell_id, "images", 4)
        self.free = self.end
        return self.engine.clock.apart(lambda: record_of(self.cell))

    def stop(self) -> None:
        self.there = False


def simulated(folder: Path, workers: int, each: int, work: float) -> None:
    store = Store(folder)
    store.check_writable()
    cells = [fake_cell(seed) for seed in range(workers * each)]
    clock = Clock()
    engine = Passing(workers, work, clock)
    began = time.process_time()
    count = sum(isinstance(one, Record) for one in run_shared(Queue(engine), store, cells, {}))
    cpu = time.process_time() - began
    idle = engine.waited / (engine.waited + engine.worked)
    print(
        f"simulate: {workers} workers, {count} cells of {work:g} s: idle {100 * idle:.2f} %, longest wait "
        f"{engine.longest:.2f} s; the driver's CPU {1e3 * cpu / count:.2f} ms a cell"
    )


def resumed(folder: Path, count: int) -> None:
    store, schema = Store(folder), arrow_schema("cells")
    store.check_writable()
    many = 50_000
    for first in range(0, count, many):
        ids = [f"{number:016x}" for number in range(first, min(first + many, count))]
        given = {"cell_id": ids, "status": ["ok"] * len(ids), "ended_at": [1_900_000_000_000] * len(ids)}
        arrays = [
            pa.array(given[field.name], field.type) if field.name in given else pa.nulls(len(ids), field.type)
            for field in schema
        ]
        stem = numbers.stem(numbers.reserve(store.place))
        with store.place.writing(layout.record("cells", stem)) as sink:
            parquet_files.write(pa.Table.from_arrays(arrays, schema=schema), sink, rows=GROUP_ROWS["cells"])
    asked = [f"{number:016x}" for number in range(count)]

    def pending() -> int:
        before = Store(folder).versions()
        return sum(before.get(cell_id, ("", None))[0] != "ok" for cell_id in asked)

    left, cpu, wall = _timed(pending)
    print(f"resume: {count} recorded cells, {left} to run, known after {cpu:.1f} s of CPU ({wall:.1f} s)")


if __name__ == "__main__":
    sys.exit(interruptible(main))
