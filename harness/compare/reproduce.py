"""Run a recorded cell again and say what differs: `python -m harness.reproduce CELL_ID [--results DIR]`.

On the platform that recorded it (same hardware, system, threads and library versions) every image must be the same bit
for bit. Elsewhere rounding differs: there the numbers must lie within their recorded 95 % intervals. What changed
around it (versions, commit, weights, data) is named either way; times are shown and never decide.

CELL_ID may be the beginning of one. Exit codes: 0 the same, 1 different, 2 cannot be told.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cell import Cell
from harness.errors import InputError, one_line
from harness.executors.base import SESSION, Record
from harness.store import layout
from harness.store.records import Store
from harness.store.schema import COST, QUALITY
from harness.store.sketch import psnr, squared_error

PLATFORM = ("device", "hardware", "platform", "threads", "torch_version", "diffusers_version")
SURROUNDINGS = ("python_version", "hostname", "git_commit", "git_dirty", "model_fingerprint", "data_fingerprint")
COUNTED = ("steps_run", "order", "stochastic", "plan", "nfe", "flops")  # the same on every machine
MEASURED = [c.name for c in QUALITY if f"{c.name}_low" in {column.name for column in QUALITY}]
TIMES = [c.name for c in COST if c.name in ("latency_s", "images_per_s", "peak_memory_mib")]
SAME = 1e-6  # relative: a number computed twice from the same images


@dataclass
class Comparison:
    """Then and now. `changed`: (what, then, now) around the cell; `numbers`: (name, then, now, verdict)."""

    changed: list[tuple[str, Any, Any]]
    same_platform: bool
    images: str = ""
    images_same: bool | None = None  # None: the record has no hashes
    numbers: list[tuple[str, Any, Any, str]] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        wrong = any(verdict in ("differs", "outside its interval") for *_, verdict in self.numbers)
        return wrong or (self.same_platform and self.images_same is False)


def find(store: Store, beginning: str) -> Mapping[str, Any]:
    """The row of the one recorded cell whose id begins so."""
    recorded = store.recorded()
    found = sorted(cell_id for cell_id in recorded if cell_id.startswith(beginning.lower()))
    if not recorded:
        raise InputError(f"no records in {store.place}: give --results DIR")
    if len(found) != 1:
        what = f"{len(found)} cells: {', '.join(found[:5])}" if found else f"none of the {len(recorded)} cells"
        raise InputError(f"{beginning!r} is the beginning of {what}; `python -m harness.store list` counts them")
    (row,) = store.rows(found)
    if row["status"] != "ok":
        raise InputError(
            f"cell {found[0]} has nothing to reproduce: it is recorded as {row['status']} ({row['error']})"
        )
    return row


def cell_of(row: Mapping[str, Any], allow_pickle: bool = False) -> Cell:
    """The recorded question. `allow_pickle`: whoever runs it again says so; a record cannot say it for them."""
    cell = _recorded(row)
    if not cell.has_id(row["cell_id"]):
        raise InputError(f"cell {row['cell_id']} was changed after it was recorded: its question has another id")
    trusted = [cell.model, *(metric for metric in cell.metrics if not isinstance(metric, str))]
    if not allow_pickle and any(group.get("allow_pickle") for group in trusted):
        raise InputError(
            f"cell {row['cell_id']} was recorded with allow_pickle=true: it may read pickled weights "
            f"({one_line(cell.model.get('path'))}); say --allow-pickle if you trust their author"
        )
    return cell


def _recorded(row: Mapping[str, Any]) -> Cell:
    try:
        return Cell.from_canonical(row["cell"])
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"cell {row['cell_id']} was recorded by schema version {row['schema_version']} and its question cannot be "
            f"read any more ({error}); check out commit {row['git_commit']} to run it"
        ) from error


def run_again(cell: Cell, results: Path, session: str, report: Callable[[str, int], None]) -> Record:
    """The cell's record, made in a folder that is thrown away; reference runs come from the results' cache."""
    module, _, name = session.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        layout.borrow_cache(results, Path(folder))
        return getattr(importlib.import_module(module), name)(folder).run(cell, report)


def compare(row: Mapping[str, Any], images: pd.DataFrame, record: Record) -> Comparison:
    now = record.cell
    changed = [(name, row.get(name), now.get(name)) for name in (*PLATFORM, *SURROUNDINGS)]
    changed = [(name, then, value) for name, then, value in changed if then != value]
    found = Comparison(changed, same_platform=not any(name in PLATFORM for name, *_ in changed))
    _compare_images(found, images, pd.DataFrame(record.images))
    for name in COUNTED:
        if row.get(name) != now.get(name):
            found.numbers.append((name, row.get(name), now.get(name), "differs"))
    for name in MEASURED:
        if row.get(name) is not None or now.get(name) is not None:
            found.numbers.append((name, row.get(name), now.get(name), _verdict(found, row, name, now.get(name))))
    for name in TIMES:
        if row.get(name) is not None:
            found.numbers.append((name, row[name], now.get(name), "not judged"))
    return found


def _compare_images(found: Comparison, then: pd.DataFrame, now: pd.DataFrame) -> None:
    both = then.merge(now, on="image_index", how="outer", suffixes=("", "_now"))
    if then["image_sha256"].isna().all():
        found.images = "the record has no hashes of its images: they are judged by the numbers"
        return
    other = both[both["image_sha256"] != both["image_sha256_now"]]
    found.images_same = other.empty
    found.images = f"{len(both) - len(other)} of {len(both)} images are the same bit for bit"
    sketches = [other[name].dropna() for name in ("image_sketch", "image_sketch_now") if name in other]
    if len(sketches) == 2 and len(sketches[0]) == len(sketches[1]) == len(other) > 0:
        error = squared_error(*(np.stack(list(column)) for column in sketches))
        found.images += f"; the others differ by a PSNR of about {psnr(error.mean()):.1f} dB"


def _verdict(found: Comparison, row: Mapping[str, Any], name: str, value: float | None) -> str:
    then = row.get(name)
    if then is None or value is None:
        return "differs"
    if abs(then - value) <= SAME * abs(then):
        return "same"
    if found.same_platform and found.images_same is not None:
        return "differs"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return "no interval"
    return "within its interval" if low <= value <= high else "outside its interval"


def show(row: Mapping[str, Any], found: Comparison, console: Console) -> None:
    say = {"markup": False, "highlight": False, "soft_wrap": True}
    where = "same platform" if found.same_platform else "another platform"
    console.print(one_line(f"cell {row['cell_id']}: {row['task']} {row['model']} {row['sampler']}, {where}"), **say)
    for name, then, now in found.changed:
        console.print(f"  {one_line(f'{name}: was {then}, is {now}')}", **say)
    console.print(f"  {found.images}", **say)
    table = Table(header_style="bold")
    for heading in ("number", "recorded", "now", ""):
        table.add_column(heading, justify="left" if heading in ("number", "") else "right")
    for name, then, now, verdict in found.numbers:
        texts = [_text(value) for value in (then, now)]
        if len("".join(texts)) > 60:  # a plan
            texts = ["…", "…"]
        table.add_row(name, *map(Text, texts), verdict)
    console.print(table)
    if found.differs:
        console.print("different", **say)
    elif found.images_same:
        console.print("the same, bit for bit", **say)
    else:
        console.print("the same within the recorded intervals", **say)


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else one_line(value)


def main(words: Sequence[str] | None = None, session: str = SESSION) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell_id", help="id of a recorded cell, or its beginning")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records (default: results)")
    parser.add_argument("--device", help="run on this device instead of the recorded one")
    parser.add_argument("--allow-pickle", action="store_true", help="read pickled weights where the cell did")
    asked = parser.parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        store = Store(asked.results)
        row = find(store, asked.cell_id)
        cell = cell_of(row, asked.allow_pickle)
        if asked.device:
            cell = replace(cell, device=asked.device)
        images = store.images(["image_index", "image_sha256", "image_sketch"], [row["cell_id"]])
        now = _as_it_is(run_again(cell, asked.results, session, lambda what, count: None), cell)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # the device is not here, the weights are gone, memory is short
        print(f"error: the cell could not be run: {one_line(f'{type(error).__name__}: {error}')}", file=sys.stderr)
        return 2
    found = compare(row, images, now)
    show(row, found, console)
    return 1 if found.differs else 0


def _as_it_is(record: Record, cell: Cell) -> Record:
    """The record with the fingerprints of the weights and data that were really there."""
    from harness.data.load import fingerprint as data_fingerprint
    from harness.models.load import fingerprint as model_fingerprint

    record.cell["model_fingerprint"] = model_fingerprint(cell.model)
    record.cell["data_fingerprint"] = data_fingerprint(cell.data)
    return record
