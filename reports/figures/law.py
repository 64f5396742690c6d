"""Distance of the law of the samples to the true law over denoiser calls: what a stochastic sampler is judged by."""

from __future__ import annotations

from reports.records import Group
from reports.style import Drawing, Looks, lines, log_axis, name_lines, panels, value_axis
from reports.wording import axis_label

TITLE = "Distance to the true law"
NEEDS = "needs stochastic cells with two or more values of steps and the distance to the true law measured"


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"law-{group.slug}"
    stochastic = group.cells[group.cells["stochastic"].fillna(False).astype(bool)]
    if stochastic["sliced_wasserstein"].isna().all():
        return Drawing(name, None)  # no analytic model, or samplers that are measured point by point
    selection = Group(group.task, group.model, stochastic).select("nfe", needs=["sliced_wasserstein"], free=["steps"])
    if selection is None:
        return Drawing(name, None, NEEDS)
    figure, (axes,) = panels(1, f"{TITLE}: {group.task}, {group.model}", selection, height=4.0)
    lines(axes, selection, "nfe", "sliced_wasserstein", looks, dodge=0.006, log=True)
    floor = float(selection.cells["sliced_wasserstein_floor"].mean())
    axes.axhline(floor, color="#777777", linewidth=0.9, linestyle="--", zorder=0)
    where = {"xytext": (4, 2), "textcoords": "offset points", "fontsize": 8, "color": "#444444", "va": "bottom"}
    axes.annotate("a perfect sample", (0, floor), xycoords=axes.get_yaxis_transform(), **where)
    log_axis(axes.yaxis)
    value_axis(axes.xaxis, selection.cells["nfe"], log=True)
    axes.set_xlabel("denoiser calls (NFE)")
    axes.set_ylabel(axis_label(selection.cells, "sliced_wasserstein"))
    name_lines(figure, axes, {label: label for label, _ in selection.lines("nfe")}, "", looks)
    return Drawing(name, figure, selection.left_out)
