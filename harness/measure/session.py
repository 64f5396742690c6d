"""One cell from beginning to end: load what it needs, generate and measure quality, time it, write its record."""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.cell import Cell
from harness.executors.base import Notable, Record
from harness.measure import cost, rounds
from harness.measure.generator import Encoded, Generator
from harness.measure.limits import compared_with
from harness.measure.mask_share import MaskShare
from harness.measure.prompt_lengths import PromptLengths
from harness.metrics.base import Batch
from harness.metrics.context import Context
from harness.metrics.load import build
from harness.models import load as models
from harness.models.base import Model
from harness.store import layout, places
from harness.store.places import Place
from harness.store.sketch import sketch
from harness.store.tiles import save_grid, save_sources
from samplers.core import plan_json
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan

GRID_IMAGES = 8  # the first prompts of the data: the same in every cell
Report = Callable[[str, int], None]  # what is going on, images done


class Session:
    """A worker's memory between cells: the loaded model and what was computed with it, data, scorers."""

    def __init__(self, results_dir: str | Path) -> None:
        self.place = places.at(results_dir)
        self.cache = layout.cache(results_dir)
        self.model_key: tuple | None = None
        self.model: Model | None = None
        self.load_s = 0.0
        self.memo: dict[Any, Any] = {}
        self.timed: dict[str, rounds.Timed] = {}  # timed in turn with an earlier cell, to be recorded with their own

    # ------------------------------------------------------------------------------------------ what cells share

    def _model(self, cell: Cell) -> Model:
        if self.model is None or cell.model_key != self.model_key:
            self._drop_model()
            torch.set_num_threads(cell.cpu_threads)
            began = time.perf_counter()
            self.model = models.load(cell.model, cell.precision, cell.device, cell.fitted)
            self.load_s, self.model_key = time.perf_counter() - began, cell.model_key
        return self.model

    def _drop_model(self) -> None:
        self.model, self.model_key = None, None
        self.memo = {key: value for key, value in self.memo.items() if key[0] not in ("encoded", "flops")}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def after_failure(self) -> None:
        """Keep nothing that a failed cell may have left half-made or too large."""
        self._drop_model()

    # ------------------------------------------------------------------------------------------------- one cell

    def run(self, cell: Cell, report: Report) -> Record:
        began = time.perf_counter()
        row: dict[str, Any] = {
            **cell.columns(),
            "started_at": _now(),
            "load_average": cost.load_average(),
        }
        report("loading", 0)
        model = self._model(cell)
        generator = self._generator(cell, model)
        row.update(load_s=self.load_s, **generator.columns(), **self._where(cell))
        if generator.plan is not None and cell.implementation == "native":
            row["plan_id"] = keep_plan(generator.plan, generator.levels, self.place)
        timings: list[dict[str, Any]] = []
        if cell.timing != "off":
            before, timed = time.perf_counter(), self._timing(cell, report)
            began += time.perf_counter() - before - timed.seconds  # other cells' timing is no time of this one
            timings = timed.rows
            row.update(timed.columns)
        quality, images = self._quality(cell, generator, report)
        row.update(quality, flops=self._flops(cell, generator, quality["nfe"]))
        row.update(status="ok", cell_s=time.perf_counter() - began, ended_at=_now())
        return Record(cell=row, images=images, timings=timings)

    def _generator(self, cell: Cell, model: Model) -> Generator:
        from harness.data import load as data

        size = (model.size[0], model.size[1])
        known = self._once(("data", cell.data, cell.data_fingerprint, size), lambda: data.load(cell.data, size))
        return Generator(cell, model, known, self._once(("encoded",), Encoded))

    def _where(self, cell: Cell) -> dict[str, Any]:
        return {
            **cost.environment(),
            "hardware": self._once(("hardware", cell.device), lambda: cost.hardware(cell.device)),
        }

    def time_together(self, cells: Sequence[Cell], report: Report) -> None:
        """Time the first of `cells` in turn with those after it that share its model; each run finds its own."""
        first = cells[0]
        if first.cell_id in self.timed:
            return
        report("loading", 0)
        model = self._model(first)
        report("timing", 0)
        runs: dict[str, Callable[[cost.Marks], None]] = {}
        for cell in cells:
            same = (cell.model_key, cell.timing, cell.timing_batch) == (
                first.model_key,
                first.timing,
                first.timing_batch,
            )
            if same and cell.cell_id not in self.timed:
                try:
                    runs[cell.cell_id] = self._timed_run(cell, self._generator(cell, model))
                except Exception:
                    if cell is first:
                        raise  # any other fails by itself in its own turn
        self.timed |= rounds.time_block(runs, cost.PRESETS[first.timing], first.device)

    def _timed_run(self, cell: Cell, generator: Generator) -> Callable[[cost.Marks], None]:
        return lambda marks: generator.timed(range(cell.timing_batch), marks)

    def _timing(self, cell: Cell, report: Report) -> rounds.Timed:
        """What was timed before, in turn with other cells, else now."""
        self.time_together([cell], report)
        timed = self.timed.pop(cell.cell_id)
        for row in timed.rows:
            row["batch"] = cell.timing_batch
        return timed

    def _quality(self, cell: Cell, generator: Generator, report: Report) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Generate every image once, feed the metrics batch by batch; cell columns and a row an image."""
        metrics = self._metrics(cell, generator)
        rows: list[dict[str, Any]] = []
        shown: list[tuple[torch.Tensor | None, ...]] = []  # images, sources, masks
        masks, prompts = MaskShare(generator.data), PromptLengths(generator.model, cell.negative_prompt)
        began, generating, memory, calls = time.perf_counter(), 0.0, {}, 0
        for start in range(0, cell.n_images, cell.batch_size):
            indices = range(start, min(start + cell.batch_size, cell.n_images))
            with cost.PeakMemory(cell.device) as peak:
                tick = time.perf_counter()
                made = generator.batch(indices)
                generating += time.perf_counter() - tick
            calls += made.calls
            memory = memory or peak.columns()  # the first batch: later ones add what metrics hold
            batch = Batch(
                images=made.images,
                prompts=made.prompts,
                indices=list(indices),
                sources=made.sources,
                masks=made.masks,
                latents=made.latents,
            )
            rows += _image_rows(cell, batch, [metric.update(batch) for metric in metrics])
            if generator.model.makes_images:
                shown.append(_first(made, GRID_IMAGES - start))
            masks.add(indices, made.masks)
            prompts.add(indices, made.prompts)
            report("images", indices.stop)
        for word in (*masks.words(), *prompts.words()):
            report(Notable(word), cell.n_images)
        report("metrics", cell.n_images)
        values: dict[str, Any] = {}
        for metric in metrics:
            values.update(metric.compute())
            for name, column in metric.image_values().items():
                for row, value in zip(rows, column, strict=True):
                    row[name] = float(value)
        if shown:
            _keep_first(shown, self.place, cell.cell_id)
        values.update(
            memory,
            nfe=round(calls / cell.n_images),
            mask_share=masks.mean,
            prompts_truncated=prompts.truncated,
            images_per_s=cell.n_images / generating,
            quality_s=time.perf_counter() - began,
        )
        return values, rows

    def _metrics(self, cell: Cell, generator: Generator) -> list[Any]:
        """The metrics that have a meaning for this cell."""
        context = Context(
            data=generator.data,
            cache_dir=layout.statistics(self.cache),
            task=cell.task.name,
            device=cell.device,
            model_is_embedded=cell.data.name == "embedded",
            reference_count=cell.reference_count,
            stochastic=generator.stochastic,
            makes_images=generator.model.makes_images,
            once=self._once,
            **compared_with(cell, generator, layout.reference_runs(self.cache)),
        )
        return build(cell.metrics, context)

    # ---------------------------------------------------------------------- one cell, piece by piece (harness.compare)

    def timer(self, cell: Cell) -> Callable[[], float]:
        """Each call runs the cell's timed batch once, end to end, and says how many seconds it took."""
        generator = self._generator(cell, self._model(cell))

        def once() -> float:
            marks = cost.Marks(cell.device)
            generator.timed(range(cell.timing_batch), marks)
            return sum(seconds for _, seconds in marks.seconds())

        return once

    def cost(self, cell: Cell) -> dict[str, float | None]:
        """What does not depend on the machine: denoiser calls and FLOPs of an image."""
        generator = self._generator(cell, self._model(cell))
        nfe = generator.batch(range(1)).calls
        return {"nfe": nfe, "flops": self._flops(cell, generator, nfe)}

    def peak_mib(self, cell: Cell) -> float:
        """Peak memory while a batch of the cell's size is made, MiB: of the GPU, else of the process."""
        generator = self._generator(cell, self._model(cell))
        with cost.PeakMemory(cell.device) as peak:
            generator.batch(range(min(cell.batch_size, cell.n_images)))
        return peak.columns()["peak_memory_mib"]

    def _flops(self, cell: Cell, generator: Generator, nfe: int) -> float | None:
        """FLOPs of one image: one denoiser call, one decoding and one text encoding are counted, calls multiply.

        None for a model without a network: a formula has no matrix products to count.
        """
        if not generator.model.networks:
            return None
        key = ("flops", cell.model_key, cell.cfg == 1)
        text, call, decode = self._once(key, generator.count_flops)
        return float(text + nfe * call + decode)


def keep_plan(plan: Plan, levels: NoiseLevels, place: Place) -> str:
    """Put the plan among the results, once however many cells have it; its id, by which it is found there."""
    text = plan_json.dumps(plan, levels)
    plan_id = plan_json.identity(text)
    if not place.exists(layout.plan(plan_id)):
        place.put(layout.plan(plan_id), text.encode())
    return plan_id


def _first(made: Any, count: int) -> tuple[torch.Tensor | None, ...]:
    """The first images of a batch with their sources and masks, where it has any."""
    return tuple(None if part is None else part[: max(0, count)] for part in (made.images, made.sources, made.masks))


def _keep_first(shown: list[tuple[torch.Tensor | None, ...]], place: Place, cell_id: str) -> None:
    images, sources, masks = (None if part[0] is None else torch.cat(part) for part in zip(*shown, strict=True))
    save_grid(images, place, cell_id)
    if sources is not None:
        save_sources(sources, masks, place, cell_id)


def _image_rows(cell: Cell, batch: Batch, columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    images = batch.images.numpy()
    sketches = sketch(images) if images[0].size else [None] * len(images)
    for k, (index, prompt) in enumerate(zip(batch.indices, batch.prompts, strict=True)):
        row = {"image_index": index, "seed": cell.seed, "prompt_id": index, "prompt": prompt}
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


def _now() -> int:
    """Milliseconds since 1970, UTC: what the records' time columns take."""
    return int(time.time() * 1000)
