"""One cell from beginning to end: load what it needs, generate and measure quality, time it, write its record."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import protocols
from harness.cell import Cell
from harness.data.load import load as load_data
from harness.executors.base import Part, Record
from harness.measure import cost, parcel, rounds
from harness.measure.cost import Row
from harness.measure.generator import Generator
from harness.measure.quality import Pass, Report
from harness.measure.remembered import Remembered
from harness.models.base import Model
from harness.models.load import load as load_model
from harness.store import layout, places, plans
from harness.store.place import Keeps


@dataclass
class _Begun:
    """A cell, or a part of one, whose images are made."""

    row: Row
    timings: list[Row]
    quality: Pass
    seconds: float  # it took so far


class Session:
    """A worker's memory between cells, and the order of a cell's work: load, time, generate and measure, record."""

    def __init__(self, results_dir: str | Path, keeps: Keeps | None = None) -> None:
        """`keeps`: takes grids and plans where that is not the results folder itself."""
        self.keeps: Keeps = keeps or places.at(results_dir)
        self.cache = layout.cache(results_dir)
        self.model_key: tuple | None = None
        self.model: Model | None = None
        self.remembered = Remembered()  # by that model
        self.load_s = 0.0
        self.memo: dict[Any, Any] = {}
        self.timed: dict[str, rounds.Timed] = {}  # timed in turn with an earlier cell, to be recorded with their own

    # ------------------------------------------------------------------------------------------ what cells share

    def _model(self, cell: Cell) -> Model:
        if self.model is None or cell.model_key != self.model_key:
            self._drop_model()
            torch.set_num_threads(cell.cpu_threads)
            began = time.perf_counter()
            self.model = load_model(cell.model, cell.precision, cell.device, cell.fitted)
            self.load_s, self.model_key = time.perf_counter() - began, cell.model_key
        return self.model

    def _drop_model(self) -> None:
        self.model, self.model_key = None, None
        self.remembered = Remembered()
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
        return self._ended(cell, self._begun(cell, range(cell.n_images), report), report)

    def part(self, cell: Cell, indices: range, report: Report) -> Part:
        """These images of the cell and what was measured of them; the first part times the cell as well."""
        begun = self._begun(cell, indices, report)
        left = (begun.row, begun.timings, begun.seconds, begun.quality.gathered())
        return Part(cell.cell_id, indices.start, begun.row["hardware"], parcel.packed(left))

    def join(self, cell: Cell, parts: Sequence[Part], report: Report) -> Record:
        """The record of a cell whose parts were made anywhere: the whole cell's, bit for bit."""
        hardware = sorted({part.hardware for part in parts})
        if len(hardware) > 1:
            raise ValueError(f"its parts ran on different hardware, {' and '.join(hardware)}: pin one kind")
        left = [parcel.unpacked(part.content) for part in sorted(parts, key=lambda part: part.start)]
        report("loading", 0)
        begun = _Begun(*left[0][:2], self._pass(cell), sum(seconds for _, _, seconds, _ in left))
        for *_, gathered in left:
            begun.quality.take(gathered)
        return self._ended(cell, begun, report)

    def _begun(self, cell: Cell, indices: range, report: Report) -> _Begun:
        """Timed, where the cell begins here, and these images made."""
        began = time.perf_counter()
        row: Row = {**cell.columns(), "started_at": _now(), "load_average": cost.load_average()}
        report("loading", 0)
        quality = self._pass(cell)
        row.update(load_s=self.load_s, **quality.generator.columns(), **cost.environment())
        row["hardware"] = cost.hardware(cell.device)
        timings: list[Row] = []
        if cell.timing != "off" and indices.start == 0:
            before = time.perf_counter()
            self.time_together([cell], report)
            timed = self.timed.pop(cell.cell_id)
            began += time.perf_counter() - before - timed.seconds  # other cells' timing is no time of this one
            timings = [{**run, "batch": cell.timing_batch} for run in timed.rows]
            row.update(timed.columns)
        quality.make(indices, report)
        return _Begun(row, timings, quality, time.perf_counter() - began)

    def _ended(self, cell: Cell, begun: _Begun, report: Report) -> Record:
        """The record, once all images are made."""
        began, row, generator = time.perf_counter(), begun.row, begun.quality.generator
        if generator.plan is not None and cell.implementation == "native":
            row["plan_id"] = plans.keep(generator.plan, generator.levels, self.keeps)
        row.update(begun.quality.finish(self.keeps, report))
        row.update(protocols.judged(cell.protocol, row))
        row.update(flops=generator.flops(row["nfe"]), status="ok", ended_at=_now())
        row["cell_s"] = begun.seconds + time.perf_counter() - began
        return Record(cell=row, images=begun.quality.images, timings=begun.timings)

    def _pass(self, cell: Cell) -> Pass:
        return Pass(cell, self._generator(cell, self._model(cell)), self.cache, self._once)

    def _generator(self, cell: Cell, model: Model) -> Generator:
        size = (model.size[0], model.size[1])
        data = self._once(("data", cell.data, cell.data_fingerprint, size), lambda: load_data(cell.data, size))
        return Generator(cell, model, data, self.remembered)

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
            same = all(getattr(cell, k) == getattr(first, k) for k in ("model_key", "timing", "timing_batch"))
            if same and cell.cell_id not in self.timed:
                try:
                    generator = self._generator(cell, model)
                    runs[cell.cell_id] = partial(generator.timed, range(cell.timing_batch))
                except Exception:
                    if cell is first:
                        raise  # any other fails by itself in its own turn
        self.timed |= rounds.time_block(runs, cost.PRESETS[first.timing], first.device)

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
        return {"nfe": nfe, "flops": generator.flops(nfe)}

    def peak_mib(self, cell: Cell) -> float:
        """Peak memory while a batch of the cell's size is made, MiB: of the GPU, else of the process."""
        generator = self._generator(cell, self._model(cell))
        with cost.PeakMemory(cell.device) as peak:
            generator.batch(range(min(cell.batch_size, cell.n_images)))
        return peak.columns()["peak_memory_mib"]


def _now() -> int:
    """Milliseconds since 1970, UTC: what the records' time columns take."""
    return int(time.time() * 1000)
