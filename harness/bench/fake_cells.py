"""Cells that compute nothing and break when asked: what tests and `harness.bench.kills` put through the real sweep.

    python -m harness.bench.fake_cells RESULTS [--cells N] [--workers N] [--fault NAME] ...

runs N of them exactly as `harness.sweep` runs cells (executor, leases, store, messages, exit codes). No torch.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.cell import Cell
from harness.executors.base import Part, Record
from harness.executors.load import named
from harness.specs import Settings
from harness.store import layout, places
from harness.store.place import Keeps

SESSION = "harness.bench.fake_cells:FakeSession"
IMAGES = 8
SPARE_MEMORY = 64 * 2**20  # bytes that the fault `memory` leaves its worker


def cell(seed: int, fault: str = "none", work_s: float = 0.01, **changes: Any) -> Cell:
    """A cell that takes about `work_s` and, with `fault`, ends badly each time; `fault` may say how often: `kill:1`."""
    values: dict[str, Any] = {
        "task": {"name": "txt2img"},
        "model": {"name": "fake", "fault": fault, "work_s": work_s},
        "model_fingerprint": "fake",
        "sampler": {"name": "fake"},
        "schedule": {"name": "fake"},
        "data": {"name": "fake"},
        "data_fingerprint": "fake",
        "implementation": "native",
        "noise": "independent",
        "steps": 20,
        "cfg": 1.0,
        "guidance": {"rescale": 0.0},
        "strength": None,
        "keep_steps": False,
        "negative_prompt": "",
        "precision": "fp32",
        "seed": seed,
        "n_images": IMAGES,
        "batch_size": IMAGES,
        "device": "cpu",
        "threads": 1,
        "metrics": (),
        "reference_count": 2,
        "timing": "off",
        "timing_batch": 1,
    }
    return Cell(**{**values, **changes})


class FakeSession:
    """Stands in for measure/session.py's: its rows depend on the cell alone, and it leaves a file beside them."""

    def __init__(self, results_dir: str, keeps: Keeps | None = None) -> None:
        self.place = places.at(results_dir)
        self.keeps = keeps or self.place
        self.timed: dict[str, str] = {}  # cell_id to the first cell of its block

    def time_together(self, cells: Sequence[Cell], report: Callable[[str, int], None]) -> None:
        """Time as the real session does: what a cell's `timing_fault` does then hits the whole block."""
        if cells[0].cell_id not in self.timed:
            report("timing", 0)
            for each in cells:
                self._break(each, each.sampler.get("timing_fault", "none"))
            self.timed |= {each.cell_id: cells[0].cell_id for each in cells}

    def run(self, cell: Cell, report: Callable[[str, int], None]) -> Record:
        report("loading", 0)
        if cell.timing != "off":
            self.time_together([cell], report)
        return self._record(cell, self._images(cell), report)

    def part(self, cell: Cell, indices: range, report: Callable[[str, int], None]) -> Part:
        """Some of the images; a file of the results' place says which process made them."""
        report("loading", 0)
        rows = self._images(cell)[indices.start : indices.stop]
        self.place.create(f"made/{cell.cell_id}.{indices.start}.{os.getpid()}", b"")
        return Part(cell.cell_id, indices.start, "none", json.dumps(rows).encode())

    def join(self, cell: Cell, parts: Sequence[Part], report: Callable[[str, int], None]) -> Record:
        rows = [json.loads(part.content) for part in sorted(parts, key=lambda part: part.start)]
        return self._record(cell, [row for some in rows for row in some], report)

    def _images(self, cell: Cell) -> list[dict[str, Any]]:
        chance = random.Random(cell.seed)
        time.sleep(cell.model["work_s"] * chance.uniform(0.5, 1.5))
        self._break(cell, cell.model["fault"])
        return [
            {
                "image_index": k,
                "seed": cell.seed,
                "prompt_id": k,
                "prompt": f"image {k}",
                "image_sha256": hashlib.sha256(f"{cell.seed} {k}".encode()).hexdigest()[:16],
                "clip_score": chance.gauss(90, 1),
            }
            for k in range(cell.n_images)
        ]

    def _record(self, cell: Cell, images: list[dict[str, Any]], report: Callable[[str, int], None]) -> Record:
        self.keeps.put(layout.grid(cell.cell_id), cell.cell_id.encode() * 64)
        report("images", cell.n_images)
        score = sum(row["clip_score"] for row in images) / len(images)
        row = {**cell.columns(), "status": "ok", "nfe": float(cell.steps), "clip_score": score, "ended_at": time.time()}
        row.update(ODD_COLUMNS.get(cell.model["fault"], {}))
        place = {"kind": "timed", "block": self.timed.pop(cell.cell_id, None)}
        chance = random.Random(cell.cell_id)
        timings = [{**place, "run": k, "total_s": chance.random()} for k in range(2)]
        return Record(cell=row, images=images, timings=timings)

    def after_failure(self) -> None:
        pass

    def _break(self, cell: Cell, fault: str) -> None:
        fault, _, times = fault.partition(":")
        if times:  # so many times, over all processes
            for turn in range(int(times)):
                try:
                    self.place.create(f"faults/{cell.cell_id}-{turn}", b"")
                    break
                except FileExistsError:
                    continue
            else:
                return
        FAULTS[fault]()


def _use_up_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_MEMORY, before[1]))
    try:
        bytearray(4 * SPARE_MEMORY)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _bad_image() -> None:
    raise ValueError("image 3 is bad: its latent has a value that is not finite")


def _segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


class _Text(str):
    """A text of a library's own type, as torch's version is."""


# Faults of the record instead of the run: a column that no schema has, and a value that is more than plain.
ODD_COLUMNS = {"column": {"colour": "red"}, "type": {"steps_run": "many"}, "subclass": {"torch_version": _Text("2.0")}}
FAULTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "memory": _use_up_memory,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": _segfault,
    "exit": lambda: sys.exit(3),
    "os_exit": lambda: os._exit(4),
    "nan": _bad_image,
    **dict.fromkeys(ODD_COLUMNS, lambda: None),
    "hang": lambda: time.sleep(3600),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run fake cells as harness.sweep runs real ones.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--retries", type=int, default=1)
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--work", type=float, default=0.01, help="seconds a cell")
    parser.add_argument("--fault", default="none", help="of the cell with seed 1: " + ", ".join(FAULTS))
    parser.add_argument("--images", type=int, default=IMAGES, help="of a cell")
    parser.add_argument("--shard-images", type=int, help="images of a part, as harness.sweep's shard_images=")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--compact-every", type=int, help="records between compactions while the sweep runs")
    parser.add_argument("--largest-file", type=int, help="bytes, from which on a write fails: a full disk without one")
    parser.add_argument("--executor", default="local", help="who runs them, as harness.sweep's executor=")
    parser.add_argument("--knob", action="append", default=[], metavar="KEY=VALUE", help="of the executor")
    asked = parser.parse_args(words)
    from harness.sweep.run import guarded, run

    if asked.largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with an error instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked.largest_file, asked.largest_file))
    if asked.compact_every:
        _compact_on_the_way(asked.compact_every)
    size = {"n_images": asked.images, "batch_size": min(asked.images, asked.shard_images or IMAGES)}
    cells = [cell(seed, asked.fault if seed == 1 else "none", asked.work, **size) for seed in range(asked.cells)]
    settings = Settings(
        {
            "results_dir": str(asked.results),
            "force": asked.force,
            "executor": named(asked.executor, **dict(map(_knob, asked.knob))),
            "workers": asked.workers,
            "cell_timeout": asked.timeout,
            "retries": asked.retries,
            "shard_images": asked.shard_images,
            "tracker": "none",
            "debug": False,
        }
    )
    return guarded(lambda: run(cells, settings, session=SESSION).code, debug=False)


def _knob(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    return name, yaml.safe_load(value)


def _compact_on_the_way(every: int) -> None:
    """Compaction follows every so many records, so that kills meet it."""
    from harness.store.records import Store
    from harness.store.upkeep import compact

    write, count = Store.write, 0

    def write_and_compact(store: Store, *tables: Any) -> None:
        nonlocal count
        write(store, *tables)
        count += 1
        if count % every == 0:
            compact(store)

    Store.write = write_and_compact


if __name__ == "__main__":
    sys.exit(main())
