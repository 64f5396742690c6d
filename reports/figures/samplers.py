"""Which sampler to take: a table of samplers by denoiser calls for each measure of quality, best first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from reports.apart import Evidence
from reports.records import FID_AXES, Group
from reports.style import WIDTH, Drawing, Looks, titled
from reports.wording import axis_label

TITLE = "Which sampler at which number of denoiser calls"
NEEDS = "needs cells of two or more samplers at two or more numbers of denoiser calls, as +experiment=samplers makes"
PICK = 10  # calls at which samplers are ranked: the budget nearest to it
MOST_BUDGETS = 8
ROW = 0.185  # inches
LABELS = 1.75  # inches for the names
CELL = 0.42  # inches
MOST_SHADES = 24  # the last one holds all that is worse
SHADES = colormaps["cividis"]


@dataclass(frozen=True)
class Measure:
    column: str
    more_is_better: bool = False

    def better(self, values: pd.Series) -> pd.Series:
        """The values turned so that less is better."""
        return -values if self.more_is_better else values


MEASURES = (Measure("discretisation_error"), Measure("fid"), Measure("attributes_all", more_is_better=True))


def draw(group: Group, looks: Looks, evidence: Evidence) -> Drawing:
    """Rows are samplers, columns budgets of calls; a sampler that cannot use a budget up shows what it does with less.

    Deterministic samplers come first, ranked by discretisation error at about PICK calls; then the others, by FID.
    """
    name = f"samplers-{group.slug}"
    needs = [measure.column for measure in MEASURES]
    selection = _together(group).select(
        "nfe", needs=needs, free=["steps"], axes=[*FID_AXES, "discretisation_reference"], lines=False
    )
    if selection is None or selection.cells["label"].nunique() < 2:
        return Drawing(name, None, NEEDS)
    cells, columns = selection.cells, budgets(selection.cells)
    if len(columns) < 2:
        return Drawing(name, None, NEEDS)
    tables = {m: table(cells, m, columns) for m in MEASURES if cells[m.column].notna().any()}
    order, ranked = ranking(tables, columns)
    notes = [
        f"held: {selection.held}" if selection.held else "",
        f"Rows by their value at {ranked} calls. Bold: cannot be told from the best of its column; framed: better than "
        "all others of it. Colour: each shade is what cannot be told from its best, brightest where that is the "
        "panel's best. Star: fewest calls of the brightest. Slanted: what fewer calls give, where a sampler cannot use "
        "all of them up.",
        dear(cells, tables),
        selection.left_out,
    ]
    width = max(WIDTH, LABELS + CELL * len(columns) * len(tables))
    title = f"{TITLE}: {group.task}, {group.model}"
    figure = titled(title, notes, ROW * len(order) + 0.75, width)
    for k, (axes, (measure, values)) in enumerate(
        zip(np.atleast_1d(figure.subplots(1, len(tables), sharey=True)), tables.items(), strict=True)
    ):
        _heat(axes, measure, values, order, columns, cells, evidence)
        if k == 0:
            axes.set_yticks(np.arange(len(order)) + 0.5, order)
            axes.set_ylim(len(order), 0)
        axes.set_xlabel("denoiser calls at most")
    return Drawing(name, figure, selection.left_out)


def _together(group: Group) -> Group:
    """Stochastic samplers have no discretisation error and name no reference: they stand with those that have one."""
    named = group.cells["discretisation_reference"]
    return group if named.isna().all() else replace(group, cells=group.cells.fillna({named.name: named.mode()[0]}))


def budgets(cells: pd.DataFrame) -> list[float]:
    """Numbers of calls that at least half as many samplers use up as use the commonest one; MOST_BUDGETS at most."""
    used = cells.groupby("nfe")["label"].nunique()
    common = sorted(used[used >= used.max() / 2].index)
    if len(common) > MOST_BUDGETS:
        common = [common[round(k)] for k in np.linspace(0, len(common) - 1, MOST_BUDGETS)]
    return [float(nfe) for nfe in common]


def table(cells: pd.DataFrame, measure: Measure, columns: list[float]) -> pd.DataFrame:
    """A row a label and budget: value, low, high and nfe of the cell with the most calls that the budget pays for."""
    measured = cells[cells[measure.column].notna()].sort_values("nfe")
    rows = []
    for label, own in measured.groupby("label", sort=True):
        for budget in columns:
            paid = own[own["nfe"] <= budget]
            if not paid.empty:
                cell = paid.iloc[-1]
                value = cell[measure.column]
                ends = [cell.get(f"{measure.column}_{end}", np.nan) for end in ("low", "high")]
                low, high = (value if pd.isna(end) else end for end in ends)
                rows.append((label, budget, value, low, high, cell["nfe"], paid.index[-1]))
    return pd.DataFrame(rows, columns=["label", "budget", "value", "low", "high", "nfe", "place"])


def dear(cells: pd.DataFrame, tables: dict[Measure, pd.DataFrame]) -> str:
    """Which samplers are in no column, because their cheapest cell takes more calls than the last one pays for."""
    shown = {label for values in tables.values() for label in values["label"]}
    least = cells[~cells["label"].isin(shown)].groupby("label")["nfe"].min()
    named = ", ".join(f"{label} ({calls:g} calls)" for label, calls in least.items())
    return f"More calls than any column pays for: {named}." if named else ""


def ranking(tables: dict[Measure, pd.DataFrame], columns: list[float]) -> tuple[list[str], str]:
    """Labels, best first, and at how many calls: by the first measure that has the label, in the measures' order."""
    pick = min(columns, key=lambda budget: abs(budget - PICK))
    order: list[str] = []
    for measure, values in tables.items():
        at = values[values["budget"] == pick].set_index("label")["value"]
        order += [label for label in measure.better(at).sort_values().index if label not in order]
    for values in tables.values():  # what has no cell that this budget pays for
        order += [label for label in values["label"].unique() if label not in order]
    return order, f"{pick:g}"


def shades(evidence: Evidence, cells: pd.DataFrame, column: str) -> pd.Series:
    """A number a cell: 0 cannot be told from the best of all, 1 not from the best of the others, and so on.

    Cells of one number are no worse than their best beyond chance; so no shade shows less than an interval.
    """
    out, rest, number = pd.Series(dtype=int), cells[cells[column].notna()], 0
    while len(rest):
        found = evidence.differences(rest, column)
        same = found.index[found["tied"]] if number < MOST_SHADES - 1 else rest.index
        out = pd.concat([out, pd.Series(number, same)]).astype(int)
        rest, number = rest.drop(same), number + 1
    return out


def fastest(measure: Measure, values: pd.DataFrame) -> pd.Series:
    """The row of fewest calls among those of shade 0; the better one of equals."""
    found = values[values["shade"] == 0]
    return found.assign(rank=measure.better(found["value"])).sort_values(["nfe", "rank", "budget"]).iloc[0]


def leading(evidence: Evidence, cells: pd.DataFrame, values: pd.DataFrame, column: str) -> pd.Series:
    """Of each row whether it cannot be told from the best of its column (budget)."""
    out = pd.Series(False, values.index)
    for _, rows in values.groupby("budget"):
        found = evidence.differences(cells.loc[rows["place"]], column)
        out[rows.index] = rows["place"].map(found["tied"]).eq(True).to_numpy()
    return out


def _heat(
    axes: Axes,
    measure: Measure,
    values: pd.DataFrame,
    order: list[str],
    columns: list[float],
    cells: pd.DataFrame,
    evidence: Evidence,
) -> None:
    number = shades(evidence, cells.loc[values["place"].unique()], measure.column)
    values = values.assign(shade=values["place"].map(number), bold=leading(evidence, cells, values, measure.column))
    alone = values.groupby("budget")["bold"].sum() == 1
    among = values.groupby("budget").size()
    quick = fastest(measure, values)
    bright = 1 - values["shade"].rank(method="average").sub(1) / max(len(values) - 1, 1)
    bright = 1 - (bright.max() - bright) / (np.ptp(bright) or 1)  # one brightness a shade: its share of cells decides
    for row in values.itertuples():
        x, y = columns.index(row.budget), order.index(row.label)
        colour = SHADES(bright[row.Index])
        dark = np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
        if row.bold and alone[row.budget] and among[row.budget] > 1:
            frame = {"facecolor": "none", "edgecolor": "black", "linewidth": 1.6, "zorder": 3}
            axes.add_patch(Rectangle((x + 0.03, y + 0.06), 0.94, 0.88, **frame))
        looks = {"color": "white" if dark else "black", "weight": "bold" if row.bold else "normal", "fontsize": 8}
        looks["style"] = "italic" if row.nfe < row.budget else "normal"
        axes.text(x + 0.5, y + 0.54, _short(row.value), ha="center", va="center", **looks)
        if row.Index == quick.name:
            axes.scatter(
                [x + 0.88], [y + 0.2], marker="*", s=42, color="#D55E00", edgecolor="white", linewidth=0.5, zorder=4
            )
    missing = [k for k, label in enumerate(order) if label not in set(values["label"])]
    if missing and cells[cells["label"].isin([order[k] for k in missing])]["stochastic"].eq(True).all():
        said = "they draw noise: no limit\nto measure against"
        axes.text(len(columns) / 2, np.mean(missing) + 0.5, said, color="#666666", fontsize=8, ha="center", va="center")
    axes.set_xlim(0, len(columns))
    axes.set_xticks(np.arange(len(columns)) + 0.5, [f"{budget:g}" for budget in columns])
    axes.set_title(axis_label(cells, measure.column))
    axes.grid(False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _short(value: float) -> str:
    """Two significant digits in as little room as they take: .0086, .80, 4.1, 23, 140."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    digits = max(0, 1 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and not text.startswith("1") else text
