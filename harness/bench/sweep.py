"""What the sweep itself costs: `python -m harness.bench.sweep`.

Two sweeps of different length run as users run them. The difference of their wall times, less the work the extra cells
themselves report (generation, metrics, timing), divided by their number, is the overhead of one cell: enumerating,
checking, sending, writing, showing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from harness.errors import interruptible

COMMON = ("sampler=ddim", "steps=2", "timing=off", "n_images=2", "batch_size=2", "reference_count=128", "plots=false")


def sweep(cells: int, folder: Path) -> tuple[float, float]:
    """Wall seconds of a sweep of `cells` small cells into `folder`, and the seconds of work in its records."""
    words = [*COMMON, f"seed=range(0,{cells})", "metrics=[fid,clip_score]", f"results_dir={folder}"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "harness.sweep", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    return wall, float(pd.read_parquet(folder / "cells")["quality_s"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    overheads = []
    for repeat in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            few, many = (sweep(n, Path(folder) / str(n)) for n in (2, args.cells + 2))
        extra_wall, extra_work = many[0] - few[0], many[1] - few[1]
        overheads.append(1e3 * (extra_wall - extra_work) / args.cells)
        print(
            f"run {repeat + 1}: {args.cells} more cells took {extra_wall:.2f} s, of which work {extra_work:.2f} s: "
            f"{overheads[-1]:.1f} ms a cell"
        )
    print(f"overhead of a cell: {sorted(overheads)[len(overheads) // 2]:.1f} ms (median of {args.repeats})")


if __name__ == "__main__":
    sys.exit(interruptible(main))
