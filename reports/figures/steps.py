"""Quality against the number of steps, a line a sampler."""

from __future__ import annotations

from reports.records import FID_AXES, Group
from reports.style import Drawing, Looks, legend, lines, log_axis, panels, value_axis
from reports.wording import axis_label

TITLE = "FID and CLIP score against steps"
NEEDS = "needs cells with two or more values of steps and FID or CLIP score measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"steps-{group.slug}"
    selection = group.select("steps", needs=["fid", "clip_score"], axes=FID_AXES)
    if selection is None:
        return Drawing(name, None, NEEDS)
    columns = [column for column in ("fid", "clip_score") if selection.cells[column].notna().any()]
    figure, axes = panels(len(columns), f"{TITLE}: {group.task}, {group.model}", selection)
    for panel, column in zip(axes, columns, strict=True):
        lines(panel, selection, "steps", column, looks, dodge=0.006, log=True)
        value_axis(panel.xaxis, selection.cells["steps"], log=True)
        panel.set_xlabel("steps")
        panel.set_ylabel(axis_label(selection.cells, column))
        if column == "fid" and selection.cells["fid"].max() > 10 * selection.cells["fid"].min() > 0:
            log_axis(panel.yaxis)
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)
