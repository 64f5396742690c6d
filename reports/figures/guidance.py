"""What classifier-free guidance trades: FID against CLIP score over the scale, and FID against the scale."""

from __future__ import annotations

import matplotlib.patheffects as effects
from matplotlib.axes import Axes

from reports.records import FID_AXES, Group, Selection
from reports.style import Drawing, Looks, intervals, legend, lines, panels, value_axis
from reports.wording import axis_label

TITLE = "FID and CLIP score over the CFG scale"
NEEDS = "needs cells with two or more values of cfg and FID or CLIP score measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"cfg-{group.slug}"
    selection = group.select("cfg", needs=["fid", "clip_score"], axes=FID_AXES)
    if selection is None:
        return Drawing(name, None, NEEDS)
    columns = [column for column in ("fid", "clip_score") if selection.cells[column].notna().any()]
    if len(columns) == 2:
        figure, (curve, panel) = panels(2, f"{TITLE}: {group.task}, {group.model}", selection)
        _curve(curve, selection, looks)
    else:
        figure, (panel,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection)
    lines(panel, selection, "cfg", columns[0], looks, dodge=0.006)
    value_axis(panel.xaxis, selection.cells["cfg"], log=False)
    panel.set_xlabel("CFG scale (1 = off)")
    panel.set_ylabel(axis_label(selection.cells, columns[0]))
    legend(figure, panel)
    return Drawing(name, figure, selection.left_out)


def _curve(axes: Axes, selection: Selection, looks: Looks) -> None:
    """FID over CLIP score; the scale stands at the points of the first line, and at the ends of a second one."""
    drawn = list(selection.lines("cfg"))
    for k, (label, rows) in enumerate(drawn):
        rows = rows[rows["fid"].notna() & rows["clip_score"].notna()]
        bars = {
            "xerr": intervals(rows, "clip_score", "clip_score_low", "clip_score_high"),
            "yerr": intervals(rows, "fid", "fid_low", "fid_high"),
        }
        axes.errorbar(rows["clip_score"], rows["fid"], **bars, elinewidth=0.7, label=label, **looks(label))
        for position, row in enumerate(rows.itertuples()):
            if k == 0 or (len(drawn) == 2 and position in (0, len(rows) - 1)):
                axes.annotate(
                    f"{row.cfg:g}",
                    (row.clip_score, row.fid),
                    xytext=(5, 5),
                    textcoords="offset points",
                    fontsize=8,
                    color=looks(label)["color"],
                    path_effects=[effects.withStroke(linewidth=2, foreground="white")],
                )
    axes.set_xlabel(axis_label(selection.cells, "clip_score"))
    axes.set_ylabel(axis_label(selection.cells, "fid"))
    where = f", at {drawn[0][0]}" if len(drawn) > 2 else ""
    axes.set_title(f"numbers: CFG scale{where}", loc="left", fontsize=8, color="#444444")
