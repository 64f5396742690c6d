"""Error against the exact solution over denoiser calls, log-log, with the order that each sampler is seen to have.

Levels that end at a clean state end with a step of its own kind: the state is replaced by the denoiser's output. What
that step alone is off does not shrink with the number of steps, so it is drawn as the floor that it is.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.records import Group
from reports.style import Drawing, Looks, guides, intervals, log_axis, name_lines, panels, value_axis
from reports.wording import axis_label

TITLE = "Error to the exact solution"
NEEDS = "needs cells with two or more values of steps and the error to the exact solution measured"
FITTED = (40, 160)  # denoiser calls between which the slope is fitted: below, a method is not yet itself
HAIR = 1.02  # some methods make a call more than they are asked for steps
FEWEST = 3  # points that make a slope
CLEAR = 3.0  # times the floor: points nearer to it are bent by it and make no slope
FLOOR = "error_to_exact_floor"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"convergence-{group.slug}"
    if group.cells["error_to_exact"].isna().all():
        return Drawing(name, None)  # no analytic model
    selection = group.select("nfe", needs=["error_to_exact"], free=["steps"], axes=["exact_definition"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.8)
    slopes = {}
    for label, rows in selection.lines("nfe"):
        bars = intervals(rows, "error_to_exact", "error_to_exact_low", "error_to_exact_high")
        slopes[label] = slope(rows)
        axes.errorbar(rows["nfe"], rows["error_to_exact"], bars, label=label, **looks(label))
    guides(axes, selection, "nfe", "error_to_exact", orders=(1, 2, 3, 4), above=2 * _lowest(selection.cells))
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["nfe"], log=True)
    axes.set_xlabel("denoiser calls (NFE)")
    axes.set_ylabel(axis_label(selection.cells, "error_to_exact"))
    _floors(axes, selection.cells)
    names, heading = _named(slopes, selection.cells)
    name_lines(figure, axes, names, heading, looks)
    return Drawing(name, figure, selection.left_out)


def slope(rows: pd.DataFrame) -> float | None:
    """The order of convergence that a line fitted to log error over log NFE has; None where there is too little."""
    fitted = rows[rows["nfe"].between(FITTED[0], HAIR * FITTED[1]) & (rows["error_to_exact"] > 0)]
    fitted = fitted[~(fitted["error_to_exact"] < CLEAR * _column(fitted))]
    if fitted["nfe"].nunique() < FEWEST:
        return None
    return float(-np.polyfit(np.log(fitted["nfe"].to_numpy(float)), np.log(fitted["error_to_exact"]), 1)[0])


def _named(slopes: dict[str, float | None], cells: pd.DataFrame) -> tuple[dict[str, str], str]:
    """What stands at each line, and the heading above all of them."""
    if all(value is None for value in slopes.values()):
        return {label: label for label in slopes}, f"sampler (a slope takes {FEWEST} points from {FITTED[0]} NFE on)"
    names = {label: f"{label} ({'–' if value is None else f'{value:.2f}'})" for label, value in slopes.items()}
    clear = f", clear of the floor by {CLEAR:g} times" if _column(cells).notna().any() else ""
    return names, f"sampler (slope of {FEWEST} points or more from {FITTED[0]} to {FITTED[1]} NFE{clear})"


def _column(rows: pd.DataFrame) -> pd.Series:
    """The floor of each cell; null where its levels end above zero, or where an older record does not say."""
    return rows[FLOOR].astype(float) if FLOOR in rows else pd.Series(np.nan, rows.index)


def _lowest(cells: pd.DataFrame) -> float:
    return float(_column(cells).min()) if _column(cells).notna().any() else 0.0


def _floors(axes: Axes, cells: pd.DataFrame) -> None:
    """A dashed line for each floor, one for schedules that share it; where records do not say it, a word."""
    told = cells.assign(floor=_column(cells)).dropna(subset="floor")
    drawn: list[np.ndarray] = []
    for schedule, rows in told.groupby("schedule"):
        floor = rows.groupby("nfe")["floor"].mean()
        level = floor.to_numpy()
        if any(len(level) == len(other) and np.allclose(level, other, rtol=0.02) for other in drawn):
            continue
        drawn.append(level)
        flat = level.max() < 1.02 * level.min()
        if flat:
            axes.axhline(level.mean(), color="#555555", linewidth=1.1, linestyle=(0, (6, 2)), zorder=1)
        else:
            axes.plot(floor.index, level, color="#555555", linewidth=1.1, linestyle=(0, (6, 2)), zorder=1)
        said = f"floor on {schedule}: its last step, to a clean state, is off by {level[0]:.1e}"
        said += "" if flat else f" to {level[-1]:.1e}"
        where = {"xytext": (4, -3), "textcoords": "offset points", "fontsize": 8, "color": "#333333", "va": "top"}
        axes.annotate(said, (0, level[0]), xycoords=axes.get_yaxis_transform(), **where)
    if drawn:
        axes.set_ylim(bottom=min(axes.get_ylim()[0], min(level.min() for level in drawn) / 2))
    unsaid = cells[_column(cells).isna() & cells["schedule_knobs"].map(_ends_at_zero)]
    if len(unsaid):
        said = "These levels end at a clean state: the last step has an error of its own, which old records do not hold"
        axes.annotate(said, (0.01, 0.01), xycoords="axes fraction", fontsize=8, color="#333333")


def _ends_at_zero(knobs: object) -> bool:
    try:
        return json.loads(str(knobs)).get("end") == "zero"
    except (ValueError, AttributeError):
        return False
