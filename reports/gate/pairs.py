"""Which cell of the candidate answers which of the baseline: matched by what was asked, not by how it was run.

A cell's id is a hash of everything, machine and batch size included, so two runs of one question have two ids. The key
is what decides the images: task, model, data, sampler, schedule, guidance, ... Free are batch size, device, threads,
timing, the list of metrics, and the number of images (those that both have are compared).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from harness import axes
from harness.errors import InputError
from harness.paths import CONF
from harness.store.records import Store
from harness.store.schema import with_defaults

KNOBS = {axes.KNOBS[group]: group for group in axes.GROUPS if group in axes.KNOBS}  # column → its group
# What was asked and decides the images. Columns that a run finds out (`value` is None) are not asked.
KEY = [part.name for axis in axes.changing(*axes.MADE) if axis.asked for part in axis.parts if part.value is not None]


@dataclass(frozen=True)
class Pairs:
    """`cells`: one row a key with the columns of both sides as `NAME_b` and `NAME_c` (null where a side has none)."""

    cells: pd.DataFrame
    new: int  # cells that the candidate alone has
    doubled: list[str]  # what was said twice on one side

    def both(self, status: str = "ok") -> pd.DataFrame:
        return self.cells[(self.cells["status_b"] == status) & (self.cells["status_c"] == status)]


def read(folder: Path, what: str) -> pd.DataFrame:
    """The cells of one side. InputError where there are none."""
    if not Store(folder).files("cells"):
        raise InputError(f"{what} {folder} is not a folder of records (it has no cells/): give a results folder")
    cells = Store(folder).cells()
    if cells.empty:
        raise InputError(f"{what} {folder} holds no readable record")
    return cells


def match(baseline: pd.DataFrame, candidate: pd.DataFrame) -> Pairs:
    """Every cell of the baseline with the candidate's answer to it."""
    sides, doubled = [], []
    for name, cells in (("baseline", baseline), ("candidate", candidate)):
        keyed = cells.assign(key=keys(cells)).sort_values("ended_at", kind="stable")
        twice = keyed["key"].duplicated(keep="last")
        if twice.any():
            doubled.append(f"{int(twice.sum())} cells of the {name} ask what a later one asks: the latest is compared")
        sides.append(keyed[~twice])
    left, right = sides
    joined = left.merge(right, on="key", how="left", suffixes=("_b", "_c"))
    joined = joined.sort_values("key", kind="stable", ignore_index=True).assign(label=_labels)
    return Pairs(joined, int((~right["key"].isin(left["key"])).sum()), doubled)


def keys(cells: pd.DataFrame) -> pd.Series:
    """One text a cell: equal where the same was asked. A knob that a record is too old to have had its default."""
    cells, parts = with_defaults(cells), []
    for column in KEY:
        values = cells[column] if column in cells else pd.Series(None, cells.index, dtype=object)
        if column in KNOBS:
            parts.append([_knobs(KNOBS[column], *pair) for pair in zip(cells[KNOBS[column]], values, strict=True)])
        else:
            parts.append([_plain(value) for value in values])
    return pd.Series(["\x1f".join(row) for row in zip(*parts, strict=True)], index=cells.index, dtype=object)


@cache
def _knobs(group: str, name: object, text: object) -> str:
    given = _read(text) if isinstance(text, str) else {}
    return json.dumps({**_defaults(group, str(name)), **given}, sort_keys=True)


@cache
def _defaults(group: str, name: str) -> dict:
    path = CONF / group / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        return {}
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return axes.knobs(values)


def _plain(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.12g}" if isinstance(value, (float, np.floating)) else str(value)


def _labels(cells: pd.DataFrame) -> pd.Series:
    """A name for people: what every reader asks, then only what tells the cell from others of that name."""
    parts = [cells[f"{column}_b"].astype(str) for column in ("task", "sampler", "schedule")]
    parts.append(cells["steps_b"].map("{:.0f} steps".format))
    parts.append(cells["cfg_b"].map("cfg {:g}".format))
    names = pd.Series([" · ".join(row) for row in zip(*parts, strict=True)], cells.index, dtype=object)
    for _, group in cells[names.duplicated(keep=False)].groupby(names):
        for column in KEY:
            values = group[f"{column}_b"].map(lambda value: _plain(value))
            if values.nunique() > 1:
                said = _differing(values) if column.endswith("_knobs") else column + " " + values
                names[group.index] += " · " + said
    return names


def _differing(texts: pd.Series) -> pd.Series:
    """Of knobs as JSON, only those that differ."""
    knobs = pd.DataFrame([_read(text) for text in texts], index=texts.index).map(json.dumps)
    several = [knob for knob in knobs if knobs[knob].nunique() > 1]
    return pd.Series([" ".join(f"{k}={row[k]}" for k in several) for _, row in knobs.iterrows()], texts.index)


def _read(text: str) -> dict:
    try:
        knobs = json.loads(text or "{}")
    except ValueError:
        knobs = text
    return knobs if isinstance(knobs, dict) else {"knobs": text}
