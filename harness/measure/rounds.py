"""Timing the cells of one loaded model in rounds: each of them once a round, in random order, until each has enough.

Timed one after the other, a burst of another program falls on one cell and passes for its latency. In rounds it falls
on all, and ratios are paired (harness/store/timings.py). A block is bounded, so that the first finished cell need not
wait for long; what it has no room for begins the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.measure.cost import Marks, Preset, Row, one_run, summarise
from harness.store import timings

BLOCK_S = 45.0  # the longest that a block may be timed, as its first runs foretell it
LEAST_CELLS = 3  # that a block takes however slow they are: a busy machine, whose first runs crawl, needs pairs most


@dataclass
class Timed:
    """What a cell's timing leaves: a row a run, and columns of its record."""

    rows: list[Row] = field(default_factory=list)
    columns: Row = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(row["total_s"] for row in self.rows)

    def enough(self, preset: Preset) -> bool:
        total = [row["total_s"] for row in self.rows if row["kind"] == "timed"]
        return len(total) >= preset.runs and sum(total) >= preset.seconds


class Block:
    """One sitting. `runs`: what a run of each cell is, by cell id; the first may raise, others that do drop out.

    A run sets the marks `start`, `text`, `step` (once a denoiser call), `denoise`, `decode`, in that order, so that the
    parts add up to the whole. Whatever lies between the last step and `denoise` belongs to the sampler.
    """

    def __init__(self, runs: Mapping[str, Callable[[Marks], None]], preset: Preset, device: str) -> None:
        self.runs, self.preset, self.device = runs, preset, device
        self.first = next(iter(runs))
        self.name = f"{self.first}-{time.time_ns() // 1_000_000}"
        self.cells: dict[str, Timed] = {}
        self.order = np.random.default_rng(int.from_bytes(self.first.encode(), "big"))

    def time(self) -> dict[str, Timed]:
        """Warm up, then time every cell that the block has room for."""
        began = time.perf_counter()
        self._first_runs()
        done = 1
        while done < self.preset.warmup_runs or time.perf_counter() - began < self.preset.warmup_seconds:
            self._round("warmup", None, list(self.cells))
            done += 1
        number = 0
        while waiting := [cell_id for cell_id, timed in self.cells.items() if not timed.enough(self.preset)]:
            self._round("timed", number, waiting)
            number += 1
        drift = self._drift()
        for timed in self.cells.values():
            timed.columns = {**summarise(timed.rows), "timing_cells": len(self.cells), "timing_drift": drift}
        return self.cells

    def _first_runs(self) -> None:
        """A first run of each cell in the order given; it says how long the cell will take, and whether it works."""
        expected = 0.0
        for cell_id in self.runs:
            self.cells[cell_id] = Timed()
            self._run(cell_id, "warmup", None, None)
            if cell_id in self.cells:
                once = self.cells[cell_id].seconds
                expected += max((self.preset.warmup_runs + self.preset.runs) * once, self.preset.seconds)
                if expected > BLOCK_S and len(self.cells) > LEAST_CELLS:
                    del self.cells[cell_id]
                    return

    def _round(self, kind: str, number: int | None, members: list[str]) -> None:
        for position, k in enumerate(self.order.permutation(len(members))):
            self._run(members[k], kind, number, position)

    def _run(self, cell_id: str, kind: str, number: int | None, position: int | None) -> None:
        timed = self.cells.get(cell_id)
        if timed is None:
            return
        place = {"run": len(timed.rows), "kind": kind, "block": self.name, "round": number, "position": position}
        try:
            timed.rows.append({**place, "started_at": time.time(), **one_run(self.runs[cell_id], self.device)})
        except Exception:
            if cell_id == self.first:
                raise
            del self.cells[cell_id]  # it fails by itself in its own turn, and says why

    def _drift(self) -> bool | None:
        """Whether the machine's pace changed over the rounds that all cells have; None where they are too few."""
        columns = [[row["total_s"] for row in timed.rows if row["kind"] == "timed"] for timed in self.cells.values()]
        common = min(map(len, columns))
        seconds = np.array([column[:common] for column in columns]).T
        return timings.drifted(seconds) if common >= timings.DRIFT_ROUNDS else None


def time_block(runs: Mapping[str, Callable[[Marks], None]], preset: Preset, device: str) -> dict[str, Timed]:
    """Timings of the cells of `runs` (at least one) by id; what the block had no room for is not in it."""
    return Block(runs, preset, device).time()
