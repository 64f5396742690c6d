"""All that a page shows, as one block (reports/web/columns.py): the records, and what the reports say of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import axes
from harness.store.records import Store
from harness.store.schema import ASKED, CELLS, COST, IDENTITY, IMAGES, QUALITY, WHERE
from harness.verdict.measures import BY_NAME, Measure, bounds
from harness.verdict.names import names
from reports.figures.convergence import slope
from reports.records import groups
from reports.summary import incomparable
from reports.web import diagnoses, overview, pictures, plans, provenance, verdicts
from reports.web.columns import Block
from reports.web.pictures import Pictures
from reports.web.verdicts import Evidence

GROUPS = {"asked": [*IDENTITY, *ASKED], "quality": QUALITY, "cost": COST, "where": WHERE}
LEFT_OUT = ("cell", "schema_version", "plan")  # said elsewhere, or by nothing that a reader compares
CURVES = ("error_to_exact", "discretisation_error", "fid", "clip_score", "sliced_wasserstein", "attributes_all")
MOST_TIMINGS = 60_000  # timed runs in a file
VERDICTS = ("", "better", "worse", "cannot be told apart", "equal", "not comparable")


def build(cells: pd.DataFrame, store: Store, shown: Pictures, title: str, way: str) -> bytes:
    """The block of `cells` (rows as `reports.records.load` gives them)."""
    cells = consolidated(cells)
    block = Block()
    known = verdicts.evidence(cells, store)
    best = verdicts.to_best(known)
    header: dict[str, Any] = {
        "title": title,
        "made": round(1000 * time.time()),
        "rows": len(cells),
        "columns": _columns(cells, block),
        "name": block.codes(_names(cells)),
        "label": block.codes(cells["label"].tolist()),
        "measures": [_measure(what, cells) for what in known.measures],
        "costs": [_measure(BY_NAME[cost], cells) for cost in verdicts.COSTS if cells[cost].notna().any()],
        "axes": _axes(cells),
        "best": {what.column: _to_best(frame, cells, block) for what, frame in best.items()},
        "fronts": {f"{m}|{c}": _front(frame, cells, block) for (m, c), frame in verdicts.fronts(known).items()},
        "overview": overview.answers(known, best, store),
        "pairs": _pairs(known, best, store, block),
        "levels": _levels(known, block),
        "curves": _curves(cells),
        "plans": plans.read(cells, store),
        "diagnoses": diagnoses.read(cells, store),
        "timings": _timings(cells, store, block),
        "provenance": provenance.of(cells, str(store.place)),
        "images": _images(cells, shown, store, block, way),
    }
    header["notes"] = [*incomparable(known.good), *known.notes]
    return block.packed(header)


def consolidated(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells, numbered, in one block of memory a kind: a row or a sorted part of 250 columns costs a tenth then."""
    texts = [name for name in cells if isinstance(cells[name].dtype, pd.StringDtype)]
    return cells.astype(dict.fromkeys(texts, object)).reset_index(drop=True).copy()


def _columns(cells: pd.DataFrame, block: Block) -> list[dict[str, Any]]:
    """What any cell has, with name, unit and meaning; columns that a newer version wrote come last."""
    found = []
    for group, columns in GROUPS.items():
        for column in columns:
            if column.name in cells and column.name not in LEFT_OUT and cells[column.name].notna().any():
                part = {"name": column.name, "kind": column.kind, "unit": column.unit, "meaning": column.meaning}
                found.append({**part, "group": group, **block.column(cells[column.name], column.kind)})
    known = {column.name for column in CELLS} | {"label"}
    for name in (name for name in cells if name not in known and cells[name].notna().any()):
        told = {"name": str(name), "kind": "text", "unit": "", "meaning": "of a newer version", "group": "asked"}
        found.append({**told, **block.column(cells[name], "text")})
    return found


def _names(cells: pd.DataFrame) -> list[str]:
    """What tells a cell from the others; where that says nothing, its id."""
    called = names(cells)
    return [called.of(place) or str(cells.loc[place, "cell_id"]) for place in cells.index]


def _measure(what: Measure, cells: pd.DataFrame) -> dict[str, Any]:
    low, high = bounds(what.column)
    return {
        "column": what.column,
        "heading": what.heading,
        "higher": what.higher_is_better,
        "form": what.form,
        "scale": what.scale,
        "detail": what.detail,
        "low": low if low in cells and cells[low].notna().any() else None,
        "high": high if high in cells and cells[high].notna().any() else None,
        "images": what.images,
    }


def _axes(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """The axes in which the cells differ, as filters and facets; knobs by their text."""
    found = [{"column": "label", "title": "sampler and knobs"}] if cells["label"].nunique() > 1 else []
    wanted = [*axes.PARTS, "status", "order", "stochastic", "hardware", "git_commit", "hostname"]
    for column in wanted:
        if column in cells and cells[column].nunique(dropna=False) > 1 and column not in LEFT_OUT:
            part = axes.PARTS.get(column)
            found.append({"column": column, "title": part.title if part else column.replace("_", " ")})
    return found


def _to_best(frame: pd.DataFrame, cells: pd.DataFrame, block: Block) -> dict[str, Any]:
    full = frame.reindex(cells.index)
    position = {cell_id: k for k, cell_id in enumerate(cells["cell_id"])}
    to = [position.get(cell_id, -1) for cell_id in full["to"]]
    return {
        **{name: block.floats(full[name]) for name in ("difference", "low", "high", "n", "p", "effect")},
        "to": block.ref(np.array(to, np.int32)),
        "group": block.ref(full["group"].fillna(-1).to_numpy(np.int32)),
        "tied": block.ref(full["tied"].eq(True).to_numpy(np.uint8)),
        "paired": block.ref(full["paired"].eq(True).to_numpy(np.uint8)),
        "said": block.codes(full["said"].fillna("").tolist()),
    }


def _front(frame: pd.DataFrame, cells: pd.DataFrame, block: Block) -> dict[str, Any]:
    """state: 0 not compared, 1 on the front, 2 no better than its cheaper leader, 3 worse than it."""
    position = {cell_id: k for k, cell_id in enumerate(cells["cell_id"])}
    full = frame.reindex(cells.index)
    state = np.where(
        full["front"].eq(True), 1, np.where(full["tied"].eq(True), 2, np.where(full["front"].notna(), 3, 0))
    )
    leader = [position.get(cell_id, -1) for cell_id in full["leader"]]
    return {"state": block.ref(state.astype(np.uint8)), "leader": block.ref(np.array(leader, np.int32))}


def _pairs(known: Evidence, best: dict[Measure, pd.DataFrame], store: Store, block: Block) -> dict[str, Any]:
    places = verdicts.chosen(known, best)
    rows = verdicts.judged(verdicts.pairs(known, places))
    ratios = verdicts.latency_ratios(known, places, store)
    return {"cells": [int(place) for place in places], **pair_rows(rows, ratios, block)}


def pair_rows(rows: pd.DataFrame, ratios: pd.DataFrame, block: Block) -> dict[str, Any]:
    """Judged pairs and their ratios of costs, as the page reads them."""
    named = list(dict.fromkeys(rows["measure"]))
    counts = np.stack(rows["counts"].tolist()) if len(rows) else np.zeros((0, verdicts.BINS), np.uint16)
    costs = list(dict.fromkeys(ratios["measure"]))
    return {
        "measures": named,
        "bins": verdicts.BINS,
        **_rows(rows, named, block),
        "low_bin": block.floats(rows["low_bin"]),
        "high_bin": block.floats(rows["high_bin"]),
        "counts": block.ref(counts.astype(np.uint16)),
        "costs": costs,
        "ratios": {
            "a": block.ref(ratios["place_a"].to_numpy(np.int32)),
            "b": block.ref(ratios["place_b"].to_numpy(np.int32)),
            "cost": block.ref(np.array([costs.index(name) for name in ratios["measure"]], np.uint8)),
            **{name: block.floats(ratios[name].astype(float)) for name in ("difference", "low", "high", "n")},
            "paired": block.ref(ratios["paired"].to_numpy(np.uint8)),
        },
    }


def _rows(rows: pd.DataFrame, named: Sequence[str], block: Block) -> dict[str, Any]:
    return {
        "a": block.ref(rows["place_a"].to_numpy(np.int32)),
        "b": block.ref(rows["place_b"].to_numpy(np.int32)),
        "measure": block.ref(np.array([named.index(name) for name in rows["measure"]], np.uint8)),
        **{name: block.floats(rows[name].astype(float)) for name in ("difference", "low", "high", "n", "p", "effect")},
        "verdict": block.ref(np.array([VERDICTS.index(name) for name in rows["verdict"]], np.uint8)),
        "paired": block.ref(rows["paired"].astype(bool).to_numpy(np.uint8)),
    }


def _levels(known: Evidence, block: Block) -> list[dict[str, Any]]:
    found = []
    asked = [axis for axis in axes.PARTS if axis in known.good and not axis.endswith(("_knobs", "fingerprint"))]
    for level in verdicts.levels(known, asked):
        named = list(dict.fromkeys(level.rows["measure"]))
        found.append(
            {
                "axis": level.axis, "a_value": level.a, "b_value": level.b, "titles": level.titles, "said": level.said,
                "measures": named, "pair": block.ref(level.rows["pair"].to_numpy(np.int32)),
                **_rows(level.rows, named, block),
            }
        )  # fmt: skip
    return found


def _curves(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Measures over denoiser calls, a line a variant: the cells that `reports/figures` would show together."""
    found = []
    for group in groups(cells):
        for measure in CURVES:
            if measure not in group.cells or group.cells[measure].isna().all() or group.cells["nfe"].isna().all():
                continue
            chosen = group.select("nfe", needs=[measure], free=["steps"])
            if chosen is None:
                continue
            lines = []
            for label, rows in chosen.lines("nfe"):
                rows = rows[rows[measure].notna() & rows["nfe"].notna()]
                order = slope(rows) if measure == "error_to_exact" else None
                lines.append({"label": label, "cells": [int(place) for place in rows.index], "slope": order})
            found.append(
                {
                    "group": f"{group.task}, {group.model}", "measure": measure, "lines": lines, "held": chosen.held,
                    "left_out": chosen.left_out,
                }
            )  # fmt: skip
    return found


def _timings(cells: pd.DataFrame, store: Store, block: Block) -> dict[str, Any]:
    """Raw samples: cell, seconds, round, warm-up or not, the parts."""
    rows = store.timings(["cell_id", "run", "kind", "round", "total_s", "text_s", "denoise_s", "decode_s"])
    position = {cell_id: k for k, cell_id in enumerate(cells["cell_id"])}
    rows = rows[rows["cell_id"].isin(position)].head(MOST_TIMINGS)
    return {
        "cell": block.ref(rows["cell_id"].map(position).to_numpy(np.int32)),
        "warmup": block.ref((rows["kind"] == "warmup").to_numpy(np.uint8)),
        **{name: block.floats(rows[name]) for name in ("run", "round", "total_s", "text_s", "denoise_s", "decode_s")},
    }


def _images(cells: pd.DataFrame, shown: Pictures, store: Store, block: Block, way: str) -> dict[str, Any]:
    """Which images the tiles show, with their prompts and values; the pictures themselves lie outside the block."""
    columns, rows = pictures.values(cells, shown, store)
    units = {column.name: (column.unit, column.meaning) for column in IMAGES}
    return {
        "way": way,
        "lossless": shown.lossless,
        "ending": "png" if shown.recorded else "webp",
        "tiles": {str(place): indices for place, indices in shown.tiles.items()},
        "sizes": {str(place): size for place, size in shown.sizes.items()},
        "sourced": sorted(shown.sourced),
        "columns": [{"name": name, "unit": units[name][0], "meaning": units[name][1]} for name in columns],
        "cell": block.ref(rows["place"].to_numpy(np.int32)),
        "index": block.ref(rows["image_index"].to_numpy(np.int32)),
        "prompt": block.codes(rows["prompt"].tolist()),
        "values": [block.floats(rows[name]) for name in columns],
    }


def title_of(results: Path) -> str:
    return results.resolve().name
