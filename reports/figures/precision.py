"""What a lower precision saves and what it costs: latency, peak memory, FID."""

from __future__ import annotations

import numpy as np

from reports.records import COST_AXES, FID_AXES, Group
from reports.style import BOUNDS, PRECISIONS, Drawing, Looks, intervals, legend, panels
from reports.wording import axis_label

TITLE = "Latency, memory and FID by precision"
NEEDS = "needs cells with two or more precisions and latency or memory measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"precision-{group.slug}"
    needs = ["latency_s", "peak_memory_mib"]
    selection = group.select("precision", needs=needs, axes=[*COST_AXES, *FID_AXES, "batch_size"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    columns = [column for column in (*needs, "fid") if selection.cells[column].notna().any()]
    figure, axes = panels(len(columns), f"{TITLE}: {group.task}, {group.model}", selection, height=3.1)
    found = [*(p for p in PRECISIONS if p in set(selection.cells["precision"]))]
    variants = list(selection.lines("precision"))
    for panel, column in zip(axes, columns, strict=True):
        for k, (label, rows) in enumerate(variants):
            rows = rows[rows[column].notna()]
            place = np.array([found.index(p) for p in rows["precision"]]) + 0.12 * (k - (len(variants) - 1) / 2)
            low, high = BOUNDS.get(column, (f"{column}_low", f"{column}_high"))
            bars = intervals(rows, column, low, high) if low in rows else None
            panel.errorbar(place, rows[column], bars, label=label, **{**looks(label), "linestyle": "none"})
        panel.set_xticks(range(len(found)), found)
        panel.set_xlim(-0.5, len(found) - 0.5)
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
        panel.set_xlabel("precision")
        panel.set_ylabel(axis_label(selection.cells, column))
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)
