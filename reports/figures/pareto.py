"""Quality against latency with the cells that no other cell beats in both."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.records import COST_AXES, FID_AXES, Group, Selection
from reports.style import Drawing, Looks, intervals, legend, log_axis, panels
from reports.wording import axis_label

TITLE = "Quality against latency"
NEEDS = "needs two or more cells with latency and with FID or CLIP score measured"
LOWER_IS_BETTER = {"fid": True, "clip_score": False}
FREE = ("cfg", "precision", "guidance_rescale", "guidance_knobs")
MOST_NAMED = 9
TOO_NEAR = 0.06  # share of a panel that a number needs


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"pareto-{group.slug}"
    timed = Group(group.task, group.model, group.cells[group.cells["latency_s"].notna()])
    axes_held = [axis for axis in (*COST_AXES, *FID_AXES) if axis != "peak_memory_kind"]
    selection = timed.select("steps", needs=list(LOWER_IS_BETTER), free=FREE, axes=axes_held, lines=False)
    if selection is None or len(selection.cells) < 2:
        return Drawing(name, None, NEEDS)
    columns = [column for column in LOWER_IS_BETTER if selection.cells[column].notna().any()]
    figure, axes = panels(len(columns), f"{TITLE}: {group.task}, {group.model}", selection, height=4.3)
    for panel, column in zip(axes, columns, strict=True):
        _panel(panel, selection, column, looks)
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)


def front(latency: np.ndarray, quality: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """Indices of the cells that no other beats in both, fastest first."""
    worse = quality if lower_is_better else -quality
    kept, best = [], np.inf
    for k in np.lexsort((worse, latency)):
        if worse[k] < best:
            kept.append(int(k))
            best = worse[k]
    return np.array(kept, int)


def _panel(axes: Axes, selection: Selection, column: str, looks: Looks) -> None:
    cells = selection.cells[selection.cells[column].notna()]
    for label, rows in selection.lines("latency_s"):
        rows = rows[rows[column].notna()]
        bars = {
            "xerr": intervals(rows, "latency_s", "latency_low", "latency_high"),
            "yerr": intervals(rows, column, f"{column}_low", f"{column}_high"),
        }
        style = {**looks(label), "linestyle": "none"}
        axes.errorbar(rows["latency_s"], rows[column], **bars, elinewidth=0.6, capsize=0, label=label, **style)
    found = front(cells["latency_s"].to_numpy(float), cells[column].to_numpy(float), LOWER_IS_BETTER[column])
    best = cells.iloc[found]
    axes.margins(0.12)  # room for the numbers
    axes.step(
        best["latency_s"], best[column], where="post", color="#000000", linewidth=1, zorder=1, label="Pareto front"
    )
    axes.plot(
        *(best["latency_s"], best[column]), linestyle="none", marker="o", markersize=10, markerfacecolor="none",
        markeredgecolor="#000000", zorder=4,
    )  # fmt: skip
    if column == "fid" and cells["fid"].min() > 0 and cells["fid"].max() > 10 * cells["fid"].min():
        log_axis(axes.yaxis)
    log_axis(axes.xaxis)
    _name(axes, cells, best, column)
    axes.set_xlabel(axis_label(cells, "latency_s"))
    axes.set_ylabel(axis_label(cells, column))


def _name(axes: Axes, cells: pd.DataFrame, best: pd.DataFrame, column: str) -> None:
    """Numbers at the front's cells, and what they are in a list above the panel."""
    heading = "Pareto front:"
    if len(best) > MOST_NAMED:
        heading = f"Pareto front ({MOST_NAMED} of its {len(best)} cells):"
        best = best.iloc[np.unique(np.linspace(0, len(best) - 1, MOST_NAMED).round().astype(int))]
    several = {axis for axis in ("cfg", "precision") if cells[axis].nunique() > 1}
    points = best[["latency_s", column]].to_numpy(float)
    offset = (-8, -8) if LOWER_IS_BETTER[column] else (-8, 8)
    style = {"fontsize": 8, "textcoords": "offset points", "ha": "right", "va": "center"}
    for first, last in _close(axes, points):
        number = str(first + 1) if first == last else f"{first + 1}–{last + 1}"
        axes.annotate(number, points[first], xytext=offset, **style)
    names = []
    for number, row in enumerate(best.itertuples(), start=1):
        words = [row.label, f"{row.steps} steps"]
        words += [f"cfg {row.cfg:g}"] if "cfg" in several else []
        words += [row.precision] if "precision" in several else []
        names.append(f"{number}  {', '.join(words)}")
    axes.set_title("\n".join([heading, *names]), loc="left", fontsize=8, linespacing=1.2)


def _close(axes: Axes, points: np.ndarray) -> list[tuple[int, int]]:
    """Runs of neighbours on the front that are too near each other for a number each: (first, last) of each run."""
    place = (axes.transScale + axes.transLimits).transform(points)  # shares of the panel's width and height
    runs = [(0, 0)]
    for k in range(1, len(place)):
        if np.abs(place[k] - place[runs[-1][0]]).max() < TOO_NEAR:
            runs[-1] = (runs[-1][0], k)
        else:
            runs.append((k, k))
    return runs
