"""The quality pass of a cell: every image made once, measured batch by batch. Columns of the cell, a row an image."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.cell import Cell
from harness.executors.base import Notable
from harness.measure import cost
from harness.measure.cost import Row
from harness.measure.energy import Energy
from harness.measure.generator import Generator, Made
from harness.measure.limits import compared
from harness.measure.mask_share import MaskShare
from harness.measure.prompt_lengths import PromptLengths
from harness.metrics.base import Batch, Metric, Samples
from harness.metrics.context import Context, Once
from harness.metrics.load import build
from harness.store import layout
from harness.store.place import Keeps
from harness.store.sketch import sketch
from harness.store.tiles import save_grid, save_sources

GRID_IMAGES = 8  # the first prompts of the data: the same in every cell
Report = Callable[[str, int], None]  # what is going on, images done


@dataclass
class Gathered:
    """What a pass over some of a cell's images leaves, for the pass over all of them."""

    images: list[Row]
    shown: list[tuple[torch.Tensor | None, ...]]
    memory: Row
    generating: float
    calls: int
    seconds: float
    energy: tuple[dict[str, float], dict[str, str]]
    samples: list[Samples]  # a metric each
    shares: dict[int, float]
    cut: dict[int, str]


class Pass:
    """What the pass over one cell's images gathers. `once` is the session's memory, `cache` the folder beside it."""

    def __init__(self, cell: Cell, generator: Generator, cache: Path, once: Once) -> None:
        self.cell, self.generator = cell, generator
        self.metrics = _metrics(cell, generator, cache, once)
        self.masks = MaskShare(generator.data)
        self.prompts = PromptLengths(generator.model, cell.negative_prompt)
        self.energy = Energy(cell.device)
        self.images: list[Row] = []
        self.shown: list[tuple[torch.Tensor | None, ...]] = []  # images, sources, masks
        self.memory: Row = {}
        self.generating, self.calls, self.seconds = 0.0, 0, 0.0

    def make(self, indices: range, report: Report) -> None:
        """These images of the cell, batch by batch. Several passes may share a cell: cut at multiples of a batch."""
        began = time.perf_counter()
        for start in range(indices.start, indices.stop, self.cell.batch_size):
            end = min(start + self.cell.batch_size, indices.stop)
            self._batch(range(start, end))
            report("images", end - indices.start)
        self.seconds += time.perf_counter() - began

    def gathered(self) -> Gathered:
        """What another pass may `take` in."""
        own = (self.images, self.shown, self.memory, self.generating, self.calls, self.seconds)
        return Gathered(
            *own,
            self.energy.gathered(),
            [metric.samples for metric in self.metrics],
            self.masks.shares,
            self.prompts.cut,
        )

    def take(self, other: Gathered) -> None:
        """Go on where another pass over the same cell ended: in the order of their images."""
        self.images += other.images
        self.shown += other.shown
        self.memory = self.memory or other.memory
        self.generating, self.calls = self.generating + other.generating, self.calls + other.calls
        self.seconds += other.seconds
        self.energy.take(other.energy)
        self.masks.shares |= other.shares
        self.prompts.cut |= other.cut
        for metric, samples in zip(self.metrics, other.samples, strict=True):
            metric.merge(samples)

    def finish(self, keeps: Keeps, report: Report) -> Row:
        """The cell's columns, once all images are made. Rows of images are in `images`, the grid goes to `keeps`."""
        began, count = time.perf_counter(), self.cell.n_images
        for word in (*self.masks.words(), *self.prompts.words()):
            report(Notable(word), count)
        report("metrics", count)
        values = self._computed()
        if self.shown:
            keep_first(self.shown, keeps, self.cell.cell_id)
        return {
            **values,
            **self.memory,
            **self.energy.columns(count),
            "nfe": round(self.calls / count),
            "mask_share": self.masks.mean,
            "prompts_truncated": self.prompts.truncated,
            "images_per_s": count / self.generating,
            "quality_s": self.seconds + time.perf_counter() - began,
        }

    def _batch(self, indices: range) -> None:
        with cost.PeakMemory(self.cell.device) as peak, self.energy:
            tick = time.perf_counter()
            made = self.generator.batch(indices)
            self.generating += time.perf_counter() - tick
        self.calls += made.calls
        self.memory = self.memory or peak.columns()  # the first batch: later ones add what metrics hold
        batch = Batch(
            images=made.images,
            prompts=made.prompts,
            indices=list(indices),
            sources=made.sources,
            masks=made.masks,
            latents=made.latents,
            restored=made.restored,
            source_latents=made.source_latents,
        )
        self.images += _rows(self.cell.seed, batch, [metric.update(batch) for metric in self.metrics])
        if self.generator.model.makes_images:
            self.shown.append(first(made, GRID_IMAGES - indices.start))
        self.masks.add(indices, made.masks)
        self.prompts.add(indices, made.prompts)

    def _computed(self) -> Row:
        """What the metrics say of all images; what they say of each goes into its row."""
        values: Row = {}
        for metric in self.metrics:
            values.update(metric.compute())
            for name, column in metric.image_values().items():
                for row, value in zip(self.images, column, strict=True):
                    row[name] = float(value)
        return values


def _metrics(cell: Cell, generator: Generator, cache: Path, once: Once) -> list[Metric]:
    """The metrics that have a meaning for this cell."""
    context = Context(
        data=generator.data,
        cache_dir=layout.statistics(cache),
        task=cell.task.name,
        device=cell.device,
        model_is_embedded=cell.data.name == "embedded",
        reference_count=cell.reference_count,
        stochastic=generator.stochastic,
        makes_images=generator.model.makes_images,
        once=once,
    )
    return build(cell.metrics, compared(context, cell, generator, layout.reference_runs(cache)))


def first(made: Made, count: int) -> tuple[torch.Tensor | None, ...]:
    """The first images of a batch with their sources and masks, where it has any."""
    return tuple(None if part is None else part[: max(0, count)] for part in (made.images, made.sources, made.masks))


def keep_first(shown: Sequence[tuple[torch.Tensor | None, ...]], keeps: Keeps, cell_id: str) -> None:
    """The grid of the first images, and that of what they were made of."""
    images, sources, masks = (None if part[0] is None else torch.cat(part) for part in zip(*shown, strict=True))
    save_grid(images, keeps, cell_id)
    if sources is not None:
        save_sources(sources, masks, keeps, cell_id)


def _rows(seed: int, batch: Batch, columns: Sequence[dict[str, np.ndarray]]) -> list[Row]:
    rows = []
    images = batch.images.numpy()
    sketches = sketch(images) if images[0].size else [None] * len(images)
    for k, (index, prompt) in enumerate(zip(batch.indices, batch.prompts, strict=True)):
        row: Row = {"image_index": index, "seed": seed, "prompt_id": index, "prompt": prompt}
        row["image_sketch"] = sketches[k]
        pixels = images[k] if images[k].size else batch.latents[k].cpu().numpy()
        row["image_sha256"] = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
        for values in columns:
            row.update({name: _number(value[k]) for name, value in values.items()})
        rows.append(row)
    return rows


def _number(value: Any) -> float | None:
    """NaN marks an image that a metric says nothing of."""
    return None if math.isnan(value) else float(value)
