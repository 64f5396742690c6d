"""Error against the exact solution over denoiser calls, log-log, with the order that each sampler is seen to have."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.records import Group
from reports.style import Drawing, Looks, axis_label, guides, intervals, legend, log_axis, panels, value_axis

TITLE = "Error to the exact solution"
NEEDS = "needs cells with two or more values of steps and the error to the exact solution measured"
FITTED = (40, 160)  # denoiser calls between which the slope is fitted: below, a method is not yet itself
FEWEST = 3  # points that make a slope


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"convergence-{group.slug}"
    if group.cells["error_to_exact"].isna().all():
        return Drawing(name, None)  # no analytic model
    selection = group.select("nfe", needs=["error_to_exact"], free=["steps"], axes=["exact_definition"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.8)
    for label, rows in selection.lines("nfe"):
        bars = intervals(rows, "error_to_exact", "error_to_exact_low", "error_to_exact_high")
        order = slope(rows)
        said = label if order is None else f"{label} ({order:.2f})"
        axes.errorbar(rows["nfe"], rows["error_to_exact"], bars, label=said, **looks(label))
    guides(
        axes, *(selection.cells[column].to_numpy(float) for column in ("nfe", "error_to_exact")), orders=(1, 2, 3, 4)
    )
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["nfe"], log=True)
    axes.set_xlabel("denoiser calls (NFE)")
    axes.set_ylabel(axis_label(selection.cells, "error_to_exact"))
    legend(
        figure, axes, title=f"sampler (slope over {FITTED[0]} to {FITTED[1]} NFE, where it has {FEWEST} points there)"
    )
    return Drawing(name, figure, selection.left_out)


def slope(rows: pd.DataFrame) -> float | None:
    """The order of convergence that a line fitted to log error over log NFE has; None where there is too little."""
    fitted = rows[rows["nfe"].between(*FITTED) & (rows["error_to_exact"] > 0)]
    if fitted["nfe"].nunique() < FEWEST:
        return None
    return float(-np.polyfit(np.log(fitted["nfe"].to_numpy(float)), np.log(fitted["error_to_exact"]), 1)[0])
