"""How figures show cells that share prompts and noise: by their differences, which are known far better than values.

A panel of differences has 0 at the best cell. A hollow marker cannot be told from it; the bars are the interval of the
difference, from the images that both have.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from harness.store.records import Store
from harness.verdict.measures import measure
from harness.verdict.names import names
from harness.verdict.words import sentences
from reports.paired import differences, front, read_images
from reports.records import Selection
from reports.style import Looks
from reports.wording import axis_label

METRICS = ("fid", "clip_score", "discretisation_error", "attributes_all")
MARKS = "0 is the best cell; hollow: cannot be told from it; bars: 95 % interval of the difference, image by image."
FREE = ("negative_prompt",)  # cells at cfg 1 do not compute the half that it is for, so they stand in every curve
ABOVE = 38  # letters of a line above a panel
WIDE = 30  # from so many half-widths on a linear axis would hide the interval


class Evidence:
    """The rows of images of a folder of records, read once for all figures of a report."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._images: pd.DataFrame | None = None
        self._read: set[str] = set()

    def _rows(self, cells: pd.DataFrame) -> pd.DataFrame:
        new = cells[~cells["cell_id"].isin(self._read)]
        if len(new) or self._images is None:
            more = read_images(self.store, new, METRICS)
            self._images = more if self._images is None else pd.concat([self._images, more], ignore_index=True)
            self._read |= set(new["cell_id"])
        return self._images[self._images["cell_id"].isin(set(cells["cell_id"]))]

    def differences(self, cells: pd.DataFrame, metric: str) -> pd.DataFrame:
        """To the best of `cells`: see reports/paired.py. Cells that may not be compared with most have no row."""
        found = differences(cells, self._rows(cells), metric, free=FREE)
        return found[found["group"] == found["group"].mode().get(0)] if len(found) else found

    def front(self, cells: pd.DataFrame, metric: str, cost: str) -> pd.DataFrame:
        return front(cells, self._rows(cells), metric, cost)

    def said(self, cells: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
        """In words which cells differ and which are tied, a sentence a metric."""
        found = {measure(name): self.differences(cells, name) for name in metrics}
        lines = sentences({what: rows for what, rows in found.items() if len(rows) > 1}, cells, names(cells))
        return [*lines, MARKS] if lines else []


def difference_lines(
    axes: Axes, selection: Selection, x: str, metric: str, looks: Looks, found: pd.DataFrame, dodge: float, log: bool
) -> None:
    """The difference of `metric` to the best cell over `x`, a line a variant."""
    first, last = selection.cells[x].min(), selection.cells[x].max()
    drawn = list(selection.lines(x))
    for k, (label, rows) in enumerate(drawn):
        rows = rows[rows.index.isin(found.index)]
        shift = dodge * (k - (len(drawn) - 1) / 2)
        place = rows[x].to_numpy(float)
        place = place * (last / first) ** shift if log else place + (last - first) * shift
        points(axes, place, rows, found, label, looks(label), found["tied"])
    axes.axhline(0, color="#888888", linewidth=0.9, zorder=0)
    difference_axis(axes, found, metric, selection.cells)


def points(
    axes: Axes,
    place: np.ndarray,
    rows: pd.DataFrame,
    found: pd.DataFrame,
    label: str,
    look: dict,
    hollow: pd.Series,
    across: np.ndarray | None = None,
) -> None:
    """Differences of `rows` at `place` (N,), with their intervals; where `hollow` is true the marker is."""
    own = found.reindex(rows.index)
    value = own["difference"].to_numpy(float)
    bars = np.stack([value - own["low"].to_numpy(float), own["high"].to_numpy(float) - value])
    bars = np.nan_to_num(bars).clip(min=0)
    axes.errorbar(place, value, bars, across, elinewidth=1.0, label=label, **look)
    open_ = hollow.reindex(rows.index).eq(True).to_numpy()
    style = {**look, "linestyle": "none", "markerfacecolor": "white", "zorder": 5}
    axes.plot(place[open_], value[open_], **style)


def _ends(low: float, high: float) -> tuple[float, float]:
    """Both ends of what is drawn; a little beyond 0 where nothing lies on that side."""
    return min(low, -1e-12), max(high, 1e-12)


def difference_axis(axes: Axes, found: pd.DataFrame, metric: str, cells: pd.DataFrame) -> None:
    """Label, scale and, above the panel, the value that 0 stands for."""
    half = ((found["high"] - found["low"]) / 2)[found["cell_id"] != found["to"]].median()
    most = found["difference"].abs().max()
    label = f"{axis_label(cells, metric)}: difference to the best"
    if half > 0 and most > WIDE * half:
        linear = 10.0 ** np.ceil(np.log10(half))
        axes.set_yscale("symlog", linthresh=linear, linscale=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = found["low"].fillna(0).min(), found["high"].fillna(0).max()
        axes.set_ylim(*(1.5 * end if abs(end) > linear else np.sign(end) * linear * 0.8 for end in _ends(low, high)))
        label += f"; linear up to ±{linear:g}"
    axes.set_ylabel(label)
    best = found.index[found["cell_id"] == found["to"]]
    if len(best):
        what, row = measure(metric), cells.loc[best[0]]
        low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
        width = "" if pd.isna(low) or pd.isna(high) else f" ± {(high - low) / 2 * what.scale:.2g}"
        value = what.form.format(row[metric] * what.scale)
        said = "\n".join(textwrap.wrap(f"0 = {value}{width}: {names(cells).of(best[0])}", ABOVE))
        axes.set_title(said, loc="left", fontsize=8, color="#444444")
    if len(found) and not found["paired"].any():
        said = "no rows of images: intervals of values that share nothing"
        axes.annotate(said, (0.01, 0.01), xycoords="axes fraction", fontsize=8, color="#444444")
