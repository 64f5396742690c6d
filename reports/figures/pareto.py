"""Quality against a cost, and the cells that are worth it: the Pareto front of what can be told apart."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from harness.verdict.measures import bounds
from harness.verdict.names import joined
from reports.apart import Evidence, difference_axis, points
from reports.records import COST_AXES, FID_AXES, Group, Selection
from reports.style import LINE_PT, Drawing, Looks, intervals, legend, log_axis, panels
from reports.wording import axis_label

# What a cost is called, in the title and in the figure's name; the columns that must agree where it is compared.
COSTS = {
    "latency_s": ("latency", "pareto", COST_AXES),
    "energy_j_per_image": ("energy", "pareto-energy", (*COST_AXES, "energy_definition")),
    "cost_per_1000": ("cost", "pareto-cost", (*COST_AXES, "price_per_hour")),
}
LOWER_IS_BETTER = {"fid": True, "clip_score": False}
FREE = ("cfg", "precision", "guidance_rescale", "guidance_knobs")
MOST_NAMED = 8
LETTERS = 36  # of a line above a panel
MOST_TIED = 3  # tied cells that are named beside the one that leads them
TOO_NEAR = 0.06  # share of a panel that a number needs
NOTE = (
    "Ringed and numbered: on the front, better than every cell as cheap, beyond chance. Hollow: dearer than a cell "
    "of the front and not to be told from it. Bars: 95 % intervals; of quality, of the difference to the best cell."
)


def draw(group: Group, looks: Looks, evidence: Evidence, cost: str = "latency_s") -> Drawing:
    called, file, same = COSTS[cost]
    name = f"{file}-{group.slug}"
    known = Group(group.task, group.model, group.cells[group.cells[cost].notna()])
    if known.cells.empty and cost != "latency_s":  # most machines count no joules, most sweeps know no price
        return Drawing(name, None, "")
    axes_held = [axis for axis in (*same, *FID_AXES) if axis != "peak_memory_kind"]
    selection = known.select("steps", needs=list(LOWER_IS_BETTER), free=FREE, axes=axes_held, lines=False)
    if selection is None or len(selection.cells) < 2:
        return Drawing(name, None, f"needs two or more cells with {called} and with FID or CLIP score measured")
    columns = [column for column in LOWER_IS_BETTER if selection.cells[column].notna().any()]
    led = {column: evidence.front(selection.cells, column, cost) for column in columns}
    said = {column: _said(selection.cells, led[column]) for column in columns}
    title, lines = f"Quality against {called}: {group.task}, {group.model}", max(map(len, said.values()))
    figure, axes = panels(len(columns), title, selection, 3.4 + lines * LINE_PT / 72, notes=[NOTE])
    for panel, column in zip(axes, columns, strict=True):
        _panel(panel, selection, (cost, column), looks, evidence, led[column])
        panel.set_title(
            "\n".join([panel.get_title(loc="left"), *said[column]]), loc="left", fontsize=8, linespacing=1.2
        )
    legend(figure, axes[0])
    return Drawing(name, figure, selection.left_out)


def _panel(
    axes: Axes, selection: Selection, asked: tuple[str, str], looks: Looks, evidence: Evidence, led: pd.DataFrame
) -> None:
    """`asked`: the columns across and up."""
    cost, column = asked
    cells = selection.cells[selection.cells[column].notna()]
    found = evidence.differences(cells, column)
    for label, rows in selection.lines(cost):
        rows = rows[rows.index.isin(found.index)]
        low, high = bounds(cost)
        across = intervals(rows, cost, low, high) if low in rows else None
        look = {**looks(label), "linestyle": "none"}
        points(axes, rows[cost].to_numpy(float), rows, found, label, look, led["tied"], across)
    best = cells.loc[led.index[led["front"] & led.index.isin(found.index)]]
    height = found["difference"].reindex(best.index).astype(float)
    axes.margins(0.12)  # room for the numbers
    axes.step(best[cost], height, where="post", color="#000000", linewidth=1, zorder=1, label="Pareto front")
    axes.plot(
        *(best[cost], height), linestyle="none", marker="o", markersize=10, markerfacecolor="none",
        markeredgecolor="#000000", zorder=6,
    )  # fmt: skip
    difference_axis(axes, found, column, cells)
    log_axis(axes.xaxis)
    _number(axes, best.assign(height=height), asked)
    axes.set_xlabel(axis_label(cells, cost))


def _number(axes: Axes, best: pd.DataFrame, asked: tuple[str, str]) -> None:
    """Numbers at the front's cells, those that are named."""
    cost, column = asked
    points = best.loc[_named(best.index), [cost, "height"]].to_numpy(float)
    offset = (-8, -8) if LOWER_IS_BETTER[column] else (-8, 8)
    style = {"fontsize": 8, "textcoords": "offset points", "ha": "right", "va": "center"}
    for first, last in _close(axes, points) if len(points) else []:
        number = str(first + 1) if first == last else f"{first + 1}–{last + 1}"
        axes.annotate(number, points[first], xytext=offset, **style)


def _named(places: pd.Index) -> pd.Index:
    """The front's cells that have room for a name."""
    if len(places) <= MOST_NAMED:
        return places
    return places[np.unique(np.linspace(0, len(places) - 1, MOST_NAMED).round().astype(int))]


def _said(cells: pd.DataFrame, led: pd.DataFrame) -> list[str]:
    """The cells of the front by their numbers, the cheapest first, each with those that are no better and dearer."""
    best = led.index[led["front"]]
    some = f" ({MOST_NAMED} of its {len(best)} cells)" if len(best) > MOST_NAMED else ""
    lines = [f"Pareto front{some}:"]
    for number, place in enumerate(_named(best), start=1):
        tied = led.index[led["tied"] & (led["leader"] == cells.loc[place, "cell_id"])]
        words = [_called(cells, other) for other in tied[:MOST_TIED]]
        words += [f"{len(tied) - MOST_TIED} more"] if len(tied) > MOST_TIED else []
        text = f"{number}  {_called(cells, place)}{f'; dearer, no better: {joined(words)}' if words else ''}"
        lines += textwrap.wrap(text, LETTERS, subsequent_indent="    ", max_lines=2, placeholder=" …")
    return lines


def _called(cells: pd.DataFrame, place: object) -> str:
    """A cell by what tells it from the others of the panel."""
    row = cells.loc[place]
    words = [str(row["label"])] if cells["label"].nunique() > 1 else []
    words.append(f"{row['steps']:g} steps")
    words += [f"cfg {row['cfg']:g}"] if cells["cfg"].nunique() > 1 else []
    words += [str(row["precision"])] if cells["precision"].nunique() > 1 else []
    return " ".join(words)


def _close(axes: Axes, points: np.ndarray) -> list[tuple[int, int]]:
    """Runs of neighbours on the front that are too near each other for a number each: (first, last) of each run."""
    place = (axes.transScale + axes.transLimits).transform(points)  # shares of the panel's width and height
    runs = [(0, 0)]
    for k in range(1, len(place)):
        if np.abs(place[k] - place[runs[-1][0]]).max() < TOO_NEAR:
            runs[-1] = (runs[-1][0], k)
        else:
            runs.append((k, k))
    return runs
