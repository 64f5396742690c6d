"""What a sweep of very many cells costs: `python -m harness.bench.scale [--only enumerate,record,simulate,resume]`.

enumerate   cells of one command line, checked and named: CPU time a cell, memory
record      records written in groups into a folder, put together on the way: records a second of CPU and of wall time
simulate    the real queue, leases and store under workers that only pass the time: how long they wait for the next
            cell; with --hosts as pilots of a cluster do it, each with some of the workers, on one folder
resume      which of so many recorded cells are done: what the same command asks first

The cells of `simulate` are those of bench/fake_cells.py. A driver's clock is the CPU time that it takes, and `--disk`
for each write of records; it jumps where there is nothing to do. So ten minutes of a thousand workers take as long as
the drivers' own work.
"""

from __future__ import annotations

import argparse
import heapq
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.bench.fake_cells import cell as fake_cell
from harness.cell import Cell
from harness.errors import interruptible
from harness.executors.base import Progress, Record, Task
from harness.executors.queue import Engine, Handle, Queue
from harness.executors.share import LOOK_AFTER, run_shared
from harness.store import layout, numbers, parquet_files
from harness.store.places import Folder
from harness.store.records import GROUP_ROWS, Store
from harness.store.schema import arrow_schema
from harness.store.upkeep import SLICE, compact_if_large
from harness.sweep.pilot import shared_out

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
    parser.add_argument("--hosts", type=int, default=1, help="drivers on one folder that share the workers")
    parser.add_argument("--disk", type=float, default=0.02, help="seconds that a simulated disk takes to keep a write")
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
                "simulate": lambda where=where: simulated(
                    where, asked.workers, asked.each, asked.work, asked.hosts, asked.disk
                ),
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
            if number % LOOK_AFTER == 0:
                compact_if_large(store, SLICE)

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
    """CPU time of this process while it `runs`, less what `apart` took, and jumps."""

    def __init__(self) -> None:
        self.jumped = self.used = 0.0
        self.since: float | None = None

    @contextmanager
    def runs(self) -> Iterator[None]:
        self.since = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - self.since
            self.since, self.jumped, self.used = None, self.jumped + took, self.used + took

    def now(self) -> float:
        return self.jumped + (0.0 if self.since is None else time.process_time() - self.since)

    def until(self, moment: float) -> None:
        self.jumped += max(0.0, moment - self.now())

    def apart(self, work: Callable[[], Any]) -> Any:
        """What another process would do: it takes none of this one's time."""
        before = time.process_time()
        found = work()
        took = time.process_time() - before
        self.jumped, self.used = self.jumped - took, self.used - took
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

    def now(self) -> float:
        return self.clock.now()

    def wait(self, handles: Sequence[Handle], seconds: float | None) -> list[Handle]:
        moments = [moment for moment, _, _ in self.coming[:1]] + ([] if seconds is None else [self.now() + seconds])
        self.clock.until(min(moments))
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
        return self.engine.clock.apart(lambda: record_of(self.cell).checked())

    def stop(self) -> None:
        self.there = False


class SlowDisk(Folder):
    """A folder on which each write of records takes so long by `clock`, whatever the disk of this machine does."""

    def __init__(self, root: Path, clock: Clock, seconds: float) -> None:
        super().__init__(root)
        self.clock, self.seconds = clock, seconds

    def put_all(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        super().put_all(changes)
        self.clock.until(self.clock.now() + self.seconds)


class Driver:
    """One process with some of the workers: the real queue and leases, on a folder that all share."""

    def __init__(self, store: Store, cells: Sequence[Cell], engine: Passing, alone: bool) -> None:
        self.clock, self.engine, self.count = engine.clock, engine, 0
        self.messages = run_shared(Queue(engine), store, cells, {}, waits=alone)

    def goes_on(self) -> bool:
        """Until its next word; False at its end."""
        with self.clock.runs():
            message = next(self.messages, None)
        self.count += isinstance(message, Record)
        return message is not None


def _warmed_up(folder: Path) -> None:
    """Libraries that are loaded at the first record are loaded, as they are where workers take a minute to start."""
    store = Store(folder.with_name("warm"))
    store.check_writable()
    store.write_new([(one.cell, one.images, one.timings) for one in map(record_of, map(fake_cell, range(2)))])
    Store(folder).check_writable()


def simulated(folder: Path, workers: int, each: int, work: float, hosts: int, disk: float) -> None:
    _warmed_up(folder)
    cells = [fake_cell(seed) for seed in range(workers * each)]
    drivers = []
    for host in range(hosts):
        engine = Passing(workers // hosts, work, Clock())
        store = Store(SlowDisk(folder, engine.clock, disk))
        drivers.append(Driver(store, shared_out(cells, host, hosts), engine, hosts == 1))
    coming = [(0.0, number) for number in range(hosts)]
    while coming:  # whoever's clock is behind
        _, number = heapq.heappop(coming)
        if drivers[number].goes_on():
            heapq.heappush(coming, (drivers[number].clock.now(), number))
    engines = [driver.engine for driver in drivers]
    waited, worked = sum(engine.waited for engine in engines), sum(engine.worked for engine in engines)
    count, cpu = sum(driver.count for driver in drivers), sum(driver.clock.used for driver in drivers)
    print(
        f"simulate: {hosts} x {workers // hosts} workers, {count} cells of {work:g} s: idle "
        f"{100 * waited / (waited + worked):.2f} %, longest wait {max(engine.longest for engine in engines):.2f} s; "
        f"CPU of the drivers {1e3 * cpu / count:.2f} ms a cell"
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
