"""How figures look: colour-blind safe, readable on paper, every text at least 8 pt, no text read as mathematics."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from reports.lettering import fit, named_ends
from reports.records import Selection

WIDTH = 7.2  # inches: the text width of A4 and of US Letter
LINE_PT = 11.5  # height of one line of small text
LEGEND_PT = 13.0  # height of one line of a legend
LETTER_IN = 0.07  # width of a letter of 8 pt
MOST_BELOW = 8  # samplers named in a legend below the panels: of more the legend stands beside them
# Okabe and Ito's colours without yellow, which is too faint on white; beside them marker and line style differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
SETTINGS = {
    "text.parse_math": False,  # a prompt or name with two dollar signs is no formula
    "text.usetex": False,  # nor ever input of LaTeX, whatever the reader's own settings are
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "errorbar.capsize": 2,
    "legend.frameon": False,
    "svg.hashsalt": "diffusion-sampler-harness",  # the same records give the same file
}

PRECISIONS = ("fp32", "bf16", "fp16")
BOUNDS = {"latency_s": ("latency_low", "latency_high")}  # the intervals not named after their column


@dataclass(frozen=True)
class Drawing:
    """A figure under its file name, or `figure=None` and the reason in `note`. Notes are told in the terminal.

    No figure and no note: the figure has no meaning for these cells, and nobody would miss it.
    """

    name: str
    figure: Figure | None
    note: str = ""


def settings() -> AbstractContextManager[None]:
    return matplotlib.rc_context(SETTINGS)


class Looks:
    """Colour, marker and line style of each label: the same in every figure of a report."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.index = {label: k for k, label in enumerate(dict.fromkeys(labels))}

    def __call__(self, label: str) -> dict:
        k = self.index[label]
        return {
            "color": COLOURS[k % len(COLOURS)],
            "marker": MARKERS[k % len(MARKERS)],
            "linestyle": DASHES[(k + k // len(COLOURS)) % len(DASHES)],
        }


def panels(
    count: int, title: str, selection: Selection, height: float = 3.3, notes: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """A row of axes under a title, with room for `legend`; what is held and what is left out stand in small print."""
    notes = [*notes, f"held: {selection.held}" if selection.held else "", selection.left_out]
    labels = list(selection.cells["label"].unique())
    if len(labels) > MOST_BELOW:
        side = LETTER_IN * max(map(len, labels)) + 0.8
        figure = titled(title, notes, max(height, len(labels) * LEGEND_PT / 72 + 0.8), WIDTH + side)
    else:
        figure = titled(title, notes, height + -(-len(labels) // _columns(labels)) * LEGEND_PT / 72)
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _columns(labels: Sequence[str], width: float = WIDTH) -> int:
    """Of a legend below the panels."""
    return max(1, min(len(labels), int(100 * width / WIDTH) // (max(map(len, labels)) + 9)))


def titled(title: str, notes: Sequence[str], height: float, width: float = WIDTH) -> Figure:
    """An empty figure whose body is `height` inches high, under a title and notes that wrap."""
    width = max(width, 0.095 * len(title))
    small = [line for note in notes if note for line in textwrap.wrap(note, int(15 * width))]
    head = (LINE_PT * len(small) + 24) / 72
    total = height + head
    figure = Figure(figsize=(width, total), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - head / total), w_pad=0.06, h_pad=0.04, wspace=0.04)
    figure.text(0.01, 1 - 5 / 72 / total, title, fontsize=10.5, fontweight="bold", va="top")
    below = 1 - 21 / 72 / total
    figure.text(0.01, below, "\n".join(small), fontsize=8, color="#444444", va="top", linespacing=1.15)
    return figure


def legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """One legend for all panels, where it can cover nothing: below them, or beside them where many are named."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    # Samplers first; matplotlib would list plain lines before them.
    order = sorted(range(len(handles)), key=lambda k: not isinstance(handles[k], ErrorbarContainer))
    handles, labels = [handles[k] for k in order], [labels[k] for k in order]
    if sum(isinstance(handle, ErrorbarContainer) for handle in handles) > MOST_BELOW:
        figure.legend(handles, labels, loc="outside right upper", handlelength=3.2, title=title, labelspacing=0.35)
    else:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=_columns(labels), handlelength=3.2, title=title
        )


def name_lines(figure: Figure, axes: Axes, names: dict[str, str], heading: str, looks: Looks) -> None:
    """The lines of one panel by `names` of their labels: in a legend, or of many at their right ends."""
    drawn = {container.get_label(): container for container in axes.containers if container.get_label() in names}
    if len(drawn) <= MOST_BELOW:
        for label, container in drawn.items():
            container.set_label(names[label])
        legend(figure, axes, title=heading or None)
        return
    ends = []
    for label, container in drawn.items():
        x, y = container.lines[0].get_data()
        ends.append((names[label], float(x[-1]), float(y[-1]), looks(label)["color"]))
    named_ends(axes, ends, heading)


def guides(axes: Axes, selection: Selection, x: str, y: str, orders: Sequence[int], above: float = 0.0) -> None:
    """Faint lines with the slopes of these orders of convergence, from the largest value of column `y` down."""
    inside = selection.cells["label"].nunique() > MOST_BELOW
    x, y = (selection.cells[column].to_numpy(float) for column in (x, y))
    first, last, top = x.min(), x.max(), y.max()
    bottom = max(y[y > 0].min(initial=top), above)
    for order in orders:
        end = min(last, first * (top / bottom) ** (1 / order))
        value = top * (first / end) ** order
        axes.plot([first, end], [top, value], color="#C4C4C4", linewidth=0.9, zorder=0)
        where = {"textcoords": "offset points", "fontsize": 8, "color": "#777777"}
        if inside:  # right of the axes stand the names of the lines
            where |= {"xytext": (-3, -3), "ha": "right", "va": "top"}
        else:
            where |= {"xytext": (3, 3)}
        axes.annotate(f"order {order}", (end, value), **where)


def intervals(rows: pd.DataFrame, column: str, low: str, high: str) -> np.ndarray:
    """Lengths of the error bars, shape (2, rows); 0 where a record has no interval."""
    value = rows[column].to_numpy(float)
    below, above = value - rows[low].to_numpy(float), rows[high].to_numpy(float) - value
    return np.nan_to_num(np.stack([below, above])).clip(min=0)


def lines(
    axes: Axes, selection: Selection, x: str, column: str, looks: Looks, dodge: float = 0.0, log: bool = False
) -> None:
    """`column` over `x`, a line a variant, with its intervals; `dodge` sets lines apart by that share of the axis."""
    drawn = [(label, rows[rows[column].notna()]) for label, rows in selection.lines(x)]
    low, high = BOUNDS.get(column, (f"{column}_low", f"{column}_high"))
    first, last = selection.cells[x].min(), selection.cells[x].max()
    for k, (label, rows) in enumerate(drawn):
        shift = dodge * (k - (len(drawn) - 1) / 2)
        place = rows[x].to_numpy(float)
        place = place * (last / first) ** shift if log else place + (last - first) * shift
        bars = intervals(rows, column, low, high) if low in rows else None
        axes.errorbar(place, rows[column], bars, label=label, **looks(label))


def value_axis(axis: Axis, values: Sequence[float], log: bool) -> None:
    """Ticks at the very values that were swept."""
    ticks = sorted(set(values))
    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    kept = _spread(ticks, log)
    axis.set_major_locator(FixedLocator(kept))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_axis(axis: Axis) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    decades = np.log10(high / low) if low > 0 else 1
    subs = (1.0, 2.0, 5.0) if decades > 0.8 else (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    if decades > 3:
        subs = (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _spread(ticks: list[float], log: bool, share: float = 0.055) -> list[float]:
    """The ticks that leave room for each other's labels, first and last always."""
    place = np.log(ticks) if log else np.asarray(ticks, float)
    room = share * (place[-1] - place[0])
    kept = [0]
    for k in range(1, len(ticks) - 1):
        if place[k] - place[kept[-1]] >= room and place[-1] - place[k] >= room:
            kept.append(k)
    return [ticks[k] for k in sorted({*kept, len(ticks) - 1})]


def save(drawing: Drawing, folder: Path, formats: Sequence[str]) -> list[Path]:
    """The figure in every format; the files' paths."""
    assert drawing.figure is not None
    fit(drawing.figure)
    paths = [folder / f"{drawing.name}.{kind}" for kind in formats]
    for path in paths:
        drawing.figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths
