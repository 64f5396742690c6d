"""What metrics of many images cost: `python -m harness.bench.metrics [--images 30000] [--dim 2048]`.

Features are drawn instead of extracted (their variances fall as those of Inception's do), and go through the metrics as
a cell's do: batch by batch, reference statistics first, then every column with its interval. For each metric the time
and the highest memory of the process until it was done.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.errors import interruptible

METRICS = ("fid", "kid", "precision_recall")
BATCH = 500
SHIFT, SCALE = 0.1, 1.05  # of generated features against the reference's


@dataclass(frozen=True)
class Drawn:
    """In the place of an extractor: draws the features of a batch, whose numbers stand for its images."""

    dim: int
    generated: bool = False
    id: str = "drawn"
    kind: str = "drawn"

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        chance = np.random.default_rng([int(numbers[0]), self.generated])
        spread = np.exp(-np.arange(self.dim) / (self.dim / 8))
        values = chance.normal(size=(len(numbers), self.dim)) * np.sqrt(spread)
        return (values * SCALE + SHIFT if self.generated else values).astype(np.float32)

    def resizer(self, size: tuple[int, int]) -> str:
        return "none"


def batches(count: int) -> Iterator[np.ndarray]:
    for first in range(0, count, BATCH):
        yield np.arange(first, min(first + BATCH, count))


def measured(name: str, count: int, reference: int, dim: int, cache: Path) -> dict[str, Any]:
    """The columns of one metric of `count` images, everything made anew."""
    import torch

    from harness.metrics.base import Batch
    from harness.metrics.context import Context, memory
    from harness.metrics.load import build

    kept, extractor = memory(), Drawn(dim)

    def once(key: tuple, make: Any) -> Any:
        return extractor if key[0] == "extractor" else kept(key, make)

    data: Any = SimpleNamespace(
        reference_size=reference, fingerprint="drawn", size=(1, 1), resizer="none", reference=batches
    )
    context = Context(data=data, cache_dir=cache, reference_count=reference, once=once)
    (metric,) = build([{"name": name, "extractor": "embedded"}], context)
    generated = Drawn(dim, generated=True)
    for numbers in batches(count):
        features = {(extractor.id, "images"): generated(numbers)}
        images = torch.empty(len(numbers), 3, 1, 1, dtype=torch.uint8)
        metric.update(Batch(images, [""] * len(numbers), list(numbers), _features=features))
    return metric.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--reference", type=int, default=30_000, help="reference images")
    parser.add_argument("--dim", type=int, default=2_048, help="features of an image")
    parser.add_argument("--only", default=",".join(METRICS), help="with commas; default: all")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if unknown := set(wanted) - set(METRICS):
        parser.error(f"--only={asked.only}: {', '.join(sorted(unknown))} is not there; valid: {', '.join(METRICS)}")
    from harness.measure.cost import PeakMemory

    print(f"{asked.images} images and {asked.reference} reference images of {asked.dim} features:")
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            wall, cpu = time.perf_counter(), time.process_time()
            with PeakMemory("cpu") as peak:
                row = measured(name, asked.images, asked.reference, asked.dim, Path(folder))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            values = ", ".join(f"{column}={value:.5g}" for column, value in row.items() if isinstance(value, float))
            print(f"{name}: {cpu:.0f} s of CPU ({wall:.0f} s), {peak.columns()['process_peak_mib']:.0f} MiB; {values}")


if __name__ == "__main__":
    sys.exit(interruptible(main))
