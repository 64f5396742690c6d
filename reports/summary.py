"""The records as a table in the terminal, as at the end of a sweep (harness/verdict/table.py), and remarks on them."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from harness.errors import one_line
from harness.store.records import Store
from harness.verdict.table import EndTable, end_table
from harness.verdict.table import show as show_table

MOST_ROWS = 30
ORDER = ("task", "model", "sampler", "label", "precision", "cfg", "strength", "steps")


def show(cells: pd.DataFrame, console: Console, store: Store | None = None) -> EndTable:
    """The good cells, one a line, in the order of their axes; then how many are not good or not shown."""
    order = [column for column in ORDER if column in cells]
    table = end_table(cells, store, order)
    show_table(table, console, MOST_ROWS)
    for line in remarks(cells):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
    return table


def remarks(cells: pd.DataFrame) -> list[str]:
    """What a reader of the table should know about the records as a whole."""
    good = cells[cells["status"] == "ok"]
    lines = [f"… and {len(good) - MOST_ROWS} more cells"] if len(good) > MOST_ROWS else []
    for status in ("failed", "skipped"):
        count = int((cells["status"] == status).sum())
        if count:
            lines.append(f"{count} {status} cells are in no figure")
    for column, what in (
        ("git_commit", "commits"),
        ("hardware", "kinds of hardware"),
    ):
        count = good[column].nunique()
        if count > 1:
            lines.append(f"the cells come from {count} {what}")
    return lines + incomparable(good)


# What must agree before two cells' values may be compared; beside it the column within whose values alone it must.
DEFINITIONS = {
    "fid": {"fid_extractor": None, "fid_resizer": None, "n_images": None, "reference_count": None},
    "clip_score": {"clip_definition": None},
    "lpips": {"lpips_definition": None},
    "latency_s": {"hardware": None, "threads": None, "timing_preset": None, "workers": None},
    "status": {"model_fingerprint": "model", "data_fingerprint": "data"},
}


def incomparable(good: pd.DataFrame) -> list[str]:
    """A line for each definition that differs between the rows: the table shows them together all the same."""
    lines = []
    for value, definitions in DEFINITIONS.items():
        rows = good[good[value].notna()]
        for column, within in definitions.items():
            for name, same in [(None, rows)] if within is None else rows.groupby(within):
                found = sorted(str(item) for item in same[column].dropna().unique())
                if len(found) > 1:
                    of = "" if name is None else f" of {name}"
                    examples = ", ".join(found[:3]) + ", …" * (len(found) > 3)
                    what = "any value" if value == "status" else value
                    lines.append(f"do not compare {what} across {len(found)} values of {column}{of} ({examples})")
    return lines
