"""Quality against the number of steps, a line a sampler, as differences to the best cell."""

from __future__ import annotations

from reports.apart import Evidence, difference_lines
from reports.records import FID_AXES, Group
from reports.style import Drawing, Looks, legend, panels, value_axis
from reports.wording import asked_steps

TITLE = "FID and CLIP score against steps"
NEEDS = "needs cells with two or more values of steps and FID or CLIP score measured"


def draw(group: Group, looks: Looks, evidence: Evidence) -> Drawing:
    name = f"steps-{group.slug}"
    selection = group.select("steps", needs=["fid", "clip_score"], axes=FID_AXES)
    if selection is None:
        return Drawing(name, None, NEEDS)
    columns = [column for column in ("fid", "clip_score") if selection.cells[column].notna().any()]
    notes = evidence.said(selection.cells, columns)
    figure, axes = panels(len(columns), f"{TITLE}: {group.task}, {group.model}", selection, notes=notes)
    for panel, column in zip(axes, columns, strict=True):
        found = evidence.differences(selection.cells, column)
        difference_lines(panel, selection, "steps", column, looks, found, dodge=0.006, log=True)
        value_axis(panel.xaxis, selection.cells["steps"], log=True)
        panel.set_xlabel(asked_steps(selection.cells))
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)
