"""The records as a table in the terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import one_line

MOST_ROWS = 30
COLUMNS = {
    "task": ("task", "{}"),
    "model": ("model", "{}"),
    "label": ("sampler", "{}"),
    "steps": ("steps", "{:.0f}"),
    "cfg": ("cfg", "{:g}"),
    "strength": ("strength", "{:g}"),
    "precision": ("prec.", "{}"),
    "n_images": ("N", "{:.0f}"),
    "fid": ("FID", "{:.2f}"),
    "clip_score": ("CLIP", "{:.2f}"),
    "discretisation_error": ("disc. err.", "{:.4f}"),
    "error_to_exact": ("err. to exact", "{:.2e}"),
    "sliced_wasserstein": ("sliced W2", "{:.3f}"),
    "latency_s": ("latency s", "{:.3f}"),
    "peak_memory_mib": ("mem. MiB", "{:.0f}"),
    "nfe": ("NFE", "{:.0f}"),
}


def show(cells: pd.DataFrame, console: Console) -> None:
    """The good cells, one a line, in the order of their axes; then how many are not good or not shown."""
    good = cells[cells["status"] == "ok"].sort_values(
        ["task", "model", "label", "precision", "cfg", "strength", "steps"]
    )
    table = Table(header_style="bold", pad_edge=False)
    filled = [name for name in COLUMNS if good[name].notna().any()]
    for name in filled:
        table.add_column(COLUMNS[name][0], justify="left" if COLUMNS[name][1] == "{}" else "right", no_wrap=True)
    for _, row in good.head(MOST_ROWS).iterrows():
        table.add_row(
            *(Text("–" if pd.isna(row[name]) else one_line(COLUMNS[name][1].format(row[name]))) for name in filled)
        )
    if len(good):
        console.print(table)
    for line in remarks(cells):
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


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
