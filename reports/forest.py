"""The figure of `compare.py`: a panel a measure, a bar a pair, zero in the middle."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.verdict.measures import BY_NAME
from reports.matching import Matched
from reports.style import COLOURS, Drawing, titled

MOST_PAIRS = 24  # rows of a panel
ROW = 0.2  # inches
MOST_SIDE = 60  # letters of a side's name in the title
LOOKS = {
    "better": {"color": COLOURS[0], "marker": "o", "label": "B better"},
    "worse": {"color": COLOURS[1], "marker": "s", "label": "B worse"},
    "cannot be told apart": {"color": "#777777", "marker": "D", "fillstyle": "none", "label": "cannot be told apart"},
}


def draw(matched: Matched, found: pd.DataFrame) -> Drawing:
    """`found`: the rows of reports/compare.py that were judged."""
    one, two = (side if len(side) <= MOST_SIDE else side[: MOST_SIDE - 1] + "…" for side in matched.sides)
    name = "compare-" + re.sub(r"[^\w=.]+", "-", f"{one}-{two}".lower())[:80].strip("-")
    measures = [measure for measure in BY_NAME if (found["measure"] == measure).any() and _any_width(found, measure)]
    shown = range(min(len(matched.pairs), MOST_PAIRS))
    notes = ["B − A with 95 % intervals; filled: significant (Holm over all that was compared)", *matched.notes]
    if len(matched.pairs) == 1 and matched.titles[0]:
        notes.insert(0, f"both: {matched.titles[0]}")
    if len(matched.pairs) > MOST_PAIRS:
        notes.append(f"{MOST_PAIRS} of {len(matched.pairs)} pairs are drawn; --table FILE.csv has all")
    columns = 1 if len(measures) == 1 else 2
    lines = -(-len(measures) // columns)
    figure = titled(f"A: {one}   B: {two}", notes, max(1, lines) * (len(shown) * ROW + 0.75) + 0.4)
    _panels(figure, matched, found, measures, lines, columns, shown)
    return Drawing(name, figure)


def _any_width(found: pd.DataFrame, measure: str) -> bool:
    """Whether anything moved: a panel of zeros says nothing that the table does not."""
    rows = found[found["measure"] == measure]
    return bool((rows[["difference", "low", "high"]].fillna(0) != 0).any(axis=None))


def _panels(
    figure: Figure, matched: Matched, found: pd.DataFrame, measures: list[str], lines: int, columns: int, shown: range
) -> None:
    if not measures:
        figure.text(0.5, 0.3, "nothing differs: the images are the same", ha="center", fontsize=9)
        return
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, measure in zip(grid, measures, strict=False):
        _panel(axes, found[(found["measure"] == measure) & found["pair"].isin(shown)], measure)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_yticks(*([list(shown), [matched.titles[k] for k in shown]] if len(shown) > 1 else [[]]))
    for axes in grid[len(measures) :]:
        axes.set_visible(False)
    seen = {}
    for axes in grid:
        seen |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=3)


def _panel(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    what = BY_NAME[measure]
    axes.axvline(0, color="#000000", linewidth=0.8)
    for verdict, look in LOOKS.items():
        mine = rows[rows["verdict"] == verdict]
        if len(mine):
            middle = mine["difference"].to_numpy(float) * what.scale
            bounds = mine[["low", "high"]].to_numpy(float).T * what.scale
            bars = np.nan_to_num(np.abs(bounds - middle))
            axes.errorbar(middle, mine["pair"], xerr=bars, linestyle="none", **look)
    better = "→ better" if what.higher_is_better else "← better"
    axes.set_xlabel(f"{what.heading}: B − A   ({better})")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
