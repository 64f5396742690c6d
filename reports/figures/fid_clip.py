"""FID against CLIP score, a point a guidance scale: the curve of model cards (2205.11487, fig. 4a)."""

from __future__ import annotations

from harness.verdict.measures import bounds
from reports.records import FID_AXES, Group
from reports.style import Drawing, Looks, intervals, legend, panels
from reports.wording import axis_label

TITLE = "FID against CLIP score over the CFG scale"


def draw(group: Group, looks: Looks) -> Drawing:
    """Down and to the right is better. Bars are the values' own intervals: the curve is read against other people's."""
    name = f"fid-clip-{group.slug}"
    both = Group(group.task, group.model, group.cells[group.cells[["fid", "clip_score"]].notna().all(axis=1)])
    selection = both.select("cfg", needs=["fid"], axes=FID_AXES)
    if selection is None:  # the CFG curve says what is missing
        return Drawing(name, None, "")
    figure, (panel,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.2)
    for label, rows in selection.lines("cfg"):
        bars = [intervals(rows, column, *bounds(column)) for column in ("fid", "clip_score")]
        panel.errorbar(rows["clip_score"], rows["fid"], *bars, elinewidth=0.8, label=label, **looks(label))
        for row in rows.itertuples():
            style = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 8, "color": looks(label)["color"]}
            panel.annotate(f"{row.cfg:g}", (row.clip_score, row.fid), **style)
    panel.set_xlabel(axis_label(selection.cells, "clip_score"))
    panel.set_ylabel(axis_label(selection.cells, "fid"))
    panel.margins(0.1)
    legend(figure, panel)
    return Drawing(name, figure, selection.left_out)
