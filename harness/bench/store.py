"""How fast many records are read: `python -m harness.bench.store`.

Writes synthetic cells with their images, reads them as a sweep and a report do, compacts them, reads them again; then
runs `reports/plot.py` and `reports/check.py` on them, in processes of their own whose peak memory is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import interruptible
from harness.paths import ROOT
from harness.store.records import Store
from harness.store.schema import COST, QUALITY, TABLES
from harness.store.tiles import save_grid
from harness.store.upkeep import compact

SAMPLERS = ("euler", "dpmpp", "unipc", "ddim", "heun")
PLAN = "stage 0: D0 at σ=14.615; x ← 0.912·x + 0.088·D0\n" * 20  # as long as that of a real 20-step plan
SHEET_IMAGES = 8
CHILD = """
import importlib, sys, time
began = time.perf_counter()
importlib.import_module("reports." + sys.argv[1]).main(sys.argv[2:])
took = time.perf_counter() - began
from harness.measure.cost import _peak_rss  # the system's own account starts with the parent's
print("seconds", took, "MiB", _peak_rss())
"""


def cell_row(number: int, images: int) -> dict[str, Any]:
    """A row with every column filled, of a grid over sampler × steps × cfg × seed."""
    sampler, steps = SAMPLERS[number % 5], (5, 10, 20, 50)[number // 5 % 4]
    cfg, seed = (1.0, 2.0, 3.0, 5.0, 8.0)[number // 20 % 5], number // 100
    chance = np.random.default_rng(number)
    row: dict[str, Any] = {}
    for column in (*QUALITY, *COST):
        if column.kind == "float":
            row[column.name] = float(chance.normal() ** 2)
        elif column.kind == "int":
            row[column.name] = 256
        elif column.kind == "text":
            row[column.name] = column.name
    row |= {
        "cell_id": hashlib.sha256(str(number).encode()).hexdigest()[:16],
        "status": "ok",
        "task": "txt2img",
        "model": "embedded",
        "model_fingerprint": "0" * 16,
        "data": "embedded",
        "data_fingerprint": "0" * 16,
        "sampler": sampler,
        "sampler_knobs": {"order": 2},
        "schedule": "karras",
        "implementation": "native",
        "steps": steps,
        "cfg": cfg,
        "seed": seed,
        "n_images": images,
        "strength": None,
        "precision": "fp32",
        "plan": PLAN,
        "fid_extractor": "embedded",
        "started_at": 1_900_000_000_000 + number,
        "ended_at": 1_900_000_001_000 + number,
    }
    row["cell"] = json.dumps({name: row[name] for name in ("sampler", "steps", "cfg", "seed")} | {"knobs": "x" * 600})
    return row


def image_rows(number: int, images: int) -> list[dict[str, Any]]:
    chance = np.random.default_rng(number)
    values = {c.name: chance.normal(size=images) for c in TABLES["images"] if c.kind == "float"}
    hashes = chance.integers(2**63, size=images)
    sketches = chance.normal(size=(images, 8))
    return [
        {
            "image_index": k,
            "seed": number // 100,
            "prompt_id": k,
            "prompt": f"a small matte green star left of a large shiny blue ring on wood, lit from above, number {k}",
            "image_sha256": f"{hashes[k]:016x}",
            "image_sketch": sketches[k].tolist(),
            **{name: float(column[k]) for name, column in values.items()},
        }
        for k in range(images)
    ]


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--images", type=int, default=200, help="images a cell (default: 200, 10⁶ with 5,000 cells)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.cells, args.images)


def measure(folder: Path, cells: int, images: int) -> None:
    store = Store(folder)
    pictures = np.random.default_rng(0).integers(256, size=(SHEET_IMAGES, 3, 64, 64)).astype(np.uint8)
    pd.DataFrame()  # importing pandas is no part of reading

    def write() -> None:
        for number in range(cells):
            row = cell_row(number, images)
            store.write(row, image_rows(number, images))
            if number < 100:
                save_grid(pictures, store.place, row["cell_id"])

    print(f"{cells} cells with {images} images each")
    print(f"written in {seconds(write):.1f} s")
    _read(folder, "before compaction")
    print(f"compacted in {seconds(lambda: compact(store)):.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process, compaction included: {peak:.0f} MiB")
    _read(folder, "after compaction", repeats=5)
    _report("plot", "--results", str(folder), "--format", "png")
    with tempfile.TemporaryDirectory() as other:
        _report("check", str(folder), str(_changed(folder, Path(other) / "candidate")))


def _report(name: str, *words: str) -> None:
    """Time and peak memory of a report, in a process of its own."""
    print(f"reports/{name}.py:", end=" ", flush=True)
    done = subprocess.run([sys.executable, "-c", CHILD, name, *words], cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"seconds (\S+) MiB (\S+)\n$", done.stdout)
    print(f"{float(found[1]):.1f} s, {float(found[2]):.0f} MiB" if found else f"failed: {done.stderr}")


def _changed(folder: Path, copy: Path) -> Path:
    """The same cells with every image's values moved a little: what the check has to weigh."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("grids", "plots"))
    chance = np.random.default_rng(0)
    for path in (copy / "images").glob("*.parquet"):
        table = pq.read_table(path)
        for name in ("clip_score", "discretisation_error", "fid_influence"):
            moved = table[name].to_numpy() + 0.01 * chance.normal(size=len(table))
            table = table.set_column(table.column_names.index(name), name, pa.array(moved))
        pq.write_table(table, path)
    return copy


def _read(folder: Path, when: str, repeats: int = 1) -> None:
    for what, work in {
        "which cells are recorded": lambda: Store(folder).recorded(),
        "the table of cells": lambda: Store(folder).cells(),
        "two columns of all images": lambda: Store(folder).images(["cell_id", "clip_score"]),
        "the images of one cell": lambda: Store(folder).images(None, [cell_row(7, 0)["cell_id"]]),
    }.items():
        size = sum(path.stat().st_size for path in (folder / "cells").iterdir()) / 2**20
        print(f"{when}: {what} read in {seconds(work, repeats):.3f} s (cells: {size:.1f} MiB)")


if __name__ == "__main__":
    sys.exit(interruptible(main))
