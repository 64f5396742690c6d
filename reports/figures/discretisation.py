"""Discretisation error against steps, log-log: a straight line's slope is the order of convergence."""

from __future__ import annotations

from reports.records import Group
from reports.style import Drawing, Looks, guides, lines, log_axis, name_lines, panels, value_axis
from reports.wording import asked_steps, axis_label

TITLE = "Discretisation error against steps"
NEEDS = "needs cells with two or more values of steps and the discretisation error measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"discretisation-{group.slug}"
    selection = group.select("steps", needs=["discretisation_error"], axes=["discretisation_reference"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.0)
    lines(axes, selection, "steps", "discretisation_error", looks)
    guides(axes, selection, "steps", "discretisation_error", orders=(1, 2))
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["steps"], log=True)
    axes.set_xlabel(asked_steps(selection.cells))
    axes.set_ylabel(axis_label(selection.cells, "discretisation_error"))
    name_lines(figure, axes, {label: label for label, _ in selection.lines("steps")}, "", looks)
    return Drawing(name, figure, selection.left_out)
