"""Discretisation error against steps, log-log: a straight line's slope is the order of convergence."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from reports.records import Group
from reports.style import Drawing, Looks, axis_label, legend, lines, log_axis, panels, value_axis

TITLE = "Discretisation error against steps"
NEEDS = "needs cells with two or more values of steps and the discretisation error measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"discretisation-{group.slug}"
    selection = group.select("steps", needs=["discretisation_error"], axes=["discretisation_reference"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.0)
    lines(axes, selection, "steps", "discretisation_error", looks)
    _slopes(axes, *(selection.cells[column].to_numpy(float) for column in ("steps", "discretisation_error")))
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["steps"], log=True)
    axes.set_xlabel("steps")
    axes.set_ylabel(axis_label(selection.cells, "discretisation_error"))
    legend(figure, axes)
    return Drawing(name, figure, selection.left_out)


def _slopes(axes: Axes, steps: np.ndarray, error: np.ndarray) -> None:
    """Grey guides with the slopes of order 1 and 2 through the largest error."""
    first, last, top = steps.min(), steps.max(), error.max()
    bottom = error[error > 0].min(initial=top)
    for order in (1, 2):
        end = min(last, first * (top / bottom) ** (1 / order))
        value = top * (first / end) ** order
        axes.plot([first, end], [top, value], color="#AAAAAA", linewidth=0.9, zorder=0)
        where = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 8, "color": "#777777"}
        axes.annotate(f"order {order}", (end, value), **where)
