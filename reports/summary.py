"""The records as a table in the terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
        table.add_row(*(Text("–" if pd.isna(row[name]) else COLUMNS[name][1].format(row[name])) for name in filled))
    if len(good):
        console.print(table)
    for line in remarks(cells):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
        ("fid_extractor", "FID extractors"),
    ):
        count = good[column].nunique()
        if count > 1:
            lines.append(f"the cells come from {count} {what}")
    return lines
