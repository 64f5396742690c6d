"""Latency against steps, a line a sampler, and where the time of a run goes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.records import COST_AXES, Group
from reports.style import Drawing, Looks, legend, lines, panels, value_axis
from reports.wording import asked_steps, axis_label

TITLE = "Latency against steps"
NEEDS = "needs cells with two or more values of steps and latency measured"
PARTS = {  # greys and hatches: colours mean samplers
    "text_s": ("text", "#FFFFFF", "///"),
    "denoise_s": ("denoising", "#BBBBBB", ""),
    "decode_s": ("decoding", "#FFFFFF", "..."),
    "other_s": ("other", "#555555", ""),
}


def draw(group: Group, looks: Looks) -> Drawing:
    name = f"latency-{group.slug}"
    selection = group.select("steps", needs=["latency_s"], axes=COST_AXES)
    if selection is None:
        return Drawing(name, None, NEEDS)
    label, rows = max(selection.lines("steps"), key=lambda line: len(line[1]))
    parted = bool(rows[list(PARTS)].notna().any(axis=None))
    figure, axes = panels(1 + parted, f"{TITLE}: {group.task}, {group.model}", selection)
    lines(axes[0], selection, "steps", "latency_s", looks)
    value_axis(axes[0].xaxis, selection.cells["steps"], log=False)
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlabel(asked_steps(selection.cells))
    axes[0].set_ylabel(axis_label(selection.cells, "latency_s"))
    if parted:
        _parts(axes[1], label, rows)
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)


def _parts(axes: Axes, label: str, rows: pd.DataFrame) -> None:
    """The parts of the mean run of one sampler, stacked."""
    bottom = np.zeros(len(rows))
    for column, (name, colour, hatch) in PARTS.items():
        height = rows[column].fillna(0).clip(lower=0).to_numpy(float)
        axes.bar(range(len(rows)), height, 0.6, bottom, label=name, color=colour, hatch=hatch, edgecolor="#333333")
        bottom += height
    axes.set_xticks(range(len(rows)), [f"{steps:g}" for steps in rows["steps"]])
    axes.set_xlabel(asked_steps(rows))
    axes.set_ylabel("time of a run by part (s, mean of the middle runs)")
    axes.set_title(f"parts of a run, {label}", loc="left", fontsize=8, color="#444444")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left")
