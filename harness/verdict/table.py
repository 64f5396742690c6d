"""The end table: of a sweep, of `reports/plot.py`, `compare.py` and `pick.py`. One code, torch-free.

A row a cell; beside each value the paired difference to the best cell it may be compared with, and whether that can be
told from chance. Below the table the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import one_line
from harness.store.records import Store
from harness.store.timings import Ratio
from harness.verdict import measures, ratios, words
from harness.verdict.measures import COST, QUALITY, Measure
from harness.verdict.names import NOTHING, Names, headings, names
from harness.verdict.paired import differences, read_images

FIRST = 2  # measures that stand before the costs
NARROW = 120  # letters a line where the output is no terminal
LEGEND = (
    "In brackets: difference to the best cell, from the same prompts and noise, with its 95 % interval; tied: cannot "
    "be told from the best (p ≥ 0.05, Holm over the sweep)."
)
RATIOS = "latency: times as long as the fastest cell timed in the same rounds, with the 95 % interval of that ratio."
DRIFT = "drift: the machine changed its pace while these cells were timed; time them again when it is quiet."
UNPAIRED = "*: recorded without values of images, so compared by the two values' own intervals, which are far wider."


@dataclass(frozen=True)
class EndTable:
    """`found`: of each measure the frame of `differences`; `cells` are the good ones, in the order of the rows."""

    cells: pd.DataFrame
    called: Names
    found: dict[Measure, pd.DataFrame]
    costs: list[Measure]
    sentences: list[str] = field(default_factory=list)
    ratios: dict[object, Ratio | None] = field(default_factory=dict)  # of latencies, see ratios.py

    def texts(self, most: int | None = None) -> dict[str, list[str]]:
        """Heading → a text for each of the first `most` rows: what tells the cells apart, the two first measures, what
        it cost, the other measures."""
        places = self.cells.index[:most]
        out = dict(zip(headings(self.called.table), self.called.table.loc[places].to_numpy().T.tolist(), strict=True))
        measured = {
            what.heading + "*" * _unpaired(found): _texts(what, found, self.cells.loc[places])
            for what, found in sorted(self.found.items(), key=lambda item: item[0].detail)
            if not words.all_equal(found)
        }
        first = list(measured)[:FIRST]
        out |= {heading: measured.pop(heading) for heading in first}
        for what in self.costs:
            out[what.heading] = [self._cost(what, place) for place in places]
        return out | measured

    @property
    def drifted(self) -> set[object]:
        """The cells that were timed while the machine changed its pace."""
        flags = self.cells.get("timing_drift", pd.Series(dtype=object))
        return {place for place, flag in flags.items() if pd.notna(flag) and bool(flag)}

    def _cost(self, what: Measure, place: object) -> str:
        value = self.cells.loc[place, what.column]
        if pd.isna(value):
            return NOTHING
        text, said = what.form.format(value), []
        if what.column == "latency_s":
            if place in self.ratios:
                ratio = self.ratios[place]
                said.append("fastest" if ratio is None else f"×{ratio.ratio:.2f}, {ratio.low:.2f}–{ratio.high:.2f}")
            if place in self.drifted:
                said.append("drift")
        return f"{text} ({', '.join(said)})" if said else text

    def numbers(self) -> pd.DataFrame:
        """The same as numbers, a column each: value, its difference to the best, bounds, p, tied; and the cell's id."""
        parts = [self.cells[["cell_id"]], self.called.table.drop(columns="cell")]
        for what, found in self.found.items():
            part = found[["value", "difference", "low", "high", "p", "tied", "paired"]].reindex(self.cells.index)
            best = found["to"].reindex(self.cells.index).rename("best")
            part = pd.concat([part, best], axis=1)
            ends = ["", *(f"_{name}" for name in part.columns[1:])]
            parts.append(part.set_axis([what.column + end for end in ends], axis=1))
        parts.append(self.cells[[what.column for what in self.costs]])
        return pd.concat(parts, axis=1)


def end_table(cells: pd.DataFrame, store: Store | None, order: Sequence[str] = ()) -> EndTable:
    """The table of the good ones of `cells`, in their order or sorted by the columns `order`."""
    good = cells[cells["status"] == "ok"]
    if order:
        good = good.sort_values(list(order), kind="stable")
    filled = [what for what in QUALITY if what.column in good and good[what.column].notna().any()]
    images = None if store is None or len(good) < 2 else read_images(store, good, [what.column for what in filled])
    called = names(good)
    found = {what: differences(good, images, what.column) for what in filled}
    costs = [what for what in COST if what.column in good and good[what.column].notna().any()]
    faster = {} if store is None else ratios.to_fastest(good, store)
    said = [*words.sentences(found, good, called), *words.verdicts(good, called)]
    return EndTable(good, called, found, costs, said, faster)


def show(table: EndTable, console: Console, most: int | None = None) -> None:
    """Print it, folded into as many tables as the width asks for, and what it says in words."""
    width = console.width if console.is_terminal else NARROW
    if len(table.cells):
        if table.called.common:
            _line(console, f"all cells: {table.called.common}")
        for part in _folded(table, width, most):
            console.print(part)
    for sentence in table.sentences:
        _line(console, sentence)
    if table.ratios:
        _line(console, RATIOS)
    if table.drifted:
        _line(console, DRIFT)
    compared = [found for found in table.found.values() if len(_others(found))]
    if compared:
        _line(console, LEGEND)
        if any(_unpaired(found) for found in compared):
            _line(console, UNPAIRED)


def _folded(table: EndTable, width: int, most: int | None) -> list[Table]:
    """Tables that begin with the cells' names and share the other columns out, none wider than `width`."""
    columns = {one_line(heading): texts for heading, texts in table.texts(most).items()}
    lengths = {heading: max(map(len, [heading, *texts])) + 3 for heading, texts in columns.items()}
    first = [one_line(heading) for heading in headings(table.called.table)]
    left = [heading for heading in columns if heading not in first]
    parts: list[list[str]] = []
    for heading in left:
        room = width - sum(lengths[name] for name in (parts[-1] if parts else []))
        if parts and lengths[heading] <= room:
            parts[-1].append(heading)
        else:
            parts.append([*first, heading])
    return [_table(chosen, columns, len(first)) for chosen in parts or [first]]


def _table(chosen: Sequence[str], columns: dict[str, list[str]], names_first: int) -> Table:
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, heading in enumerate(chosen):
        numeric = k >= names_first or all(_is_number(text) for text in columns[heading])
        table.add_column(Text(heading), justify="right" if numeric and k < names_first else "left", no_wrap=True)
    for row in zip(*(columns[heading] for heading in chosen), strict=True):
        table.add_row(*(Text(one_line(text)) for text in row))
    return table


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("e-", "", 1).isdigit() or text == NOTHING


def _texts(what: Measure, found: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    compared = found["to"].value_counts()
    rows = found.reindex(cells.index).to_dict("index")
    return [_text(what, rows[place], compared, cells.loc[place]) for place in cells.index]


def _text(what: Measure, row: dict, compared: pd.Series, cell: pd.Series) -> str:
    """`2.03 (+0.013 ± 0.012, tied)`, `2.02 (best)`, or where there is nothing to compare with `2.02 ± 0.78`."""
    if pd.isna(row["value"]):
        return NOTHING
    value = what.form.format(row["value"] * what.scale)
    if pd.isna(row["difference"]) or compared.get(row["to"], 0) < 2:
        low, high = measures.bounds(what.column)
        half = (cell[high] - cell[low]) / 2 if low in cell else math.nan
        return value if pd.isna(half) or what.detail else f"{value} ± {words.amount(half * what.scale)}"
    if what.detail:
        return value if row["tied"] else f"{value} worse"
    if row["cell_id"] == row["to"]:
        return f"{value} (best)"
    if row["difference"] == row["low"] == row["high"] == 0:
        return f"{value} (equal)"
    return f"{value} ({words.difference(row, what.scale)}{', tied' if row['tied'] else ''})"


def _unpaired(found: pd.DataFrame) -> bool:
    return len(_others(found)) > 0 and not _others(found)["paired"].any()


def _others(found: pd.DataFrame) -> pd.DataFrame:
    """The rows that are compared with another cell."""
    return found[found["to"].notna() & (found["cell_id"] != found["to"])]


def _line(console: Console, text: str) -> None:
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
