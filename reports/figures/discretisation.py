"""Discretisation error against steps, log-log: a straight line's slope is the order of convergence."""

from __future__ import annotations

from reports.records import Group
from reports.style import Drawing, Looks, axis_label, guides, legend, lines, log_axis, panels, value_axis

TITLE = "Discretisation error against steps"
NEEDS = "needs cells with two or more values of steps and the discretisation error measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"discretisation-{group.slug}"
    selection = group.select("steps", needs=["discretisation_error"], axes=["discretisation_reference"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.0)
    lines(axes, selection, "steps", "discretisation_error", looks)
    found = (selection.cells[column].to_numpy(float) for column in ("steps", "discretisation_error"))
    guides(axes, *found, orders=(1, 2))
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["steps"], log=True)
    axes.set_xlabel("steps")
    axes.set_ylabel(axis_label(selection.cells, "discretisation_error"))
    legend(figure, axes)
    return Drawing(name, figure, selection.left_out)
