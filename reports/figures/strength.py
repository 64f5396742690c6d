"""img2img and inpaint: what more strength does to quality and to the likeness with the source."""

from __future__ import annotations

from reports.records import FID_AXES, Group
from reports.style import Drawing, Looks, legend, lines, panels, value_axis
from reports.wording import axis_label

TITLE = "Quality and likeness with the source over strength"
NEEDS = "needs img2img or inpaint cells with two or more values of strength"
LIKENESS = {
    "img2img": ("lpips", "feature_distance", "psnr", "ssim"),
    "inpaint": ("psnr_outside", "lpips", "feature_distance", "psnr", "ssim"),
}


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"strength-{group.slug}"
    if group.task not in LIKENESS:
        return Drawing(name, None, "no img2img or inpaint cells")
    selection = group.select("strength", needs=["fid", "clip_score", *LIKENESS[group.task]], axes=FID_AXES)
    if selection is None:
        return Drawing(name, None, NEEDS)
    measured = [c for c in LIKENESS[group.task] if selection.cells[c].notna().any()][:1]
    columns = [c for c in ("fid", "clip_score") if selection.cells[c].notna().any()] + measured
    figure, axes = panels(len(columns), f"{TITLE}: {group.task}, {group.model}", selection, height=3.1)
    for panel, column in zip(axes, columns, strict=True):
        lines(panel, selection, "strength", column, looks, dodge=0.012)
        value_axis(panel.xaxis, selection.cells["strength"], log=False)
        panel.set_xlabel("strength")
        panel.set_ylabel(axis_label(selection.cells, column))
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)
