"""Which sampler, schedule and steps within a budget, and which others cannot be told from that choice.

    python reports/pick.py --latency 0.5 --by fid
    python reports/pick.py --nfe 10 --by discretisation_error --where cfg=3
    python reports/pick.py --latency 0.5 --memory 1200 --by clip
    python reports/pick.py --cost 0.8 --price-per-hour 2.5 --by fid

    [--results DIR] [--where CONDITIONS] [--table FILE.csv|.tex|.md]

Budgets are upper limits: latency in seconds for timing_batch images, memory in MiB, nfe in denoiser calls an
image, energy in J an image, cost as the price of 1,000 images (of a sweep with price_per_hour=, or --price-per-hour).
Cells are compared pair by pair where they share prompts and noise; where the recorded cells fall into groups that
cannot be compared (other strengths, seeds, models, ...) each group has its own choice. Needs neither torch nor Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich.console import Console

from harness.errors import InputError, interruptible, one_line
from harness.store.records import Store
from harness.verdict import table, words
from harness.verdict.measures import BY_NAME, COST, QUALITY, Measure, bounds, measure
from harness.verdict.names import Names, joined, names
from harness.verdict.paired import Images, differences, read_images
from reports import options
from reports.records import COST_AXES

BUDGETS = {"latency": ("latency_s", "s"), "memory": ("peak_memory_mib", "MiB"), "nfe": ("nfe", "calls")}
BUDGETS |= {"energy": ("energy_j_per_image", "J/image"), "cost": ("cost_per_1000", "for 1,000 images")}
NOT_RECORDED = {
    "latency_s": "; sweep with timing=quick",
    "cost_per_1000": "; give --price-per-hour PRICE, or sweep with price_per_hour=PRICE",
}
MOST_GROUPS = 8  # choices that are told one by one
MOST_RUNNERS = 12  # rows of the table, the choice included
# What makes two costs two costs of one thing.
SAME_COST = [axis for axis in COST_AXES if axis != "peak_memory_kind"]


@dataclass(frozen=True)
class Choice:
    """One comparable group: the best cell within the budget, those tied with it, and the sentences that say so.

    `cheapest`: of the best and those tied with it, the one that costs least.
    """

    best: object
    tied: list[object]
    cheapest: object
    sentences: list[str]


@dataclass(frozen=True)
class Picked:
    """`asked`: the cells that were considered; `fits`: those within the budgets; `found`: their differences."""

    choices: list[Choice]
    asked: pd.DataFrame
    fits: pd.DataFrame
    found: pd.DataFrame


def pick(
    cells: pd.DataFrame,
    store: Store,
    by: Measure,
    budgets: dict[str, float],
    images: pd.DataFrame | Images | None = None,
    cost: str | None = None,
    found: pd.DataFrame | None = None,
    called: Names | None = None,
) -> Picked:
    """InputError where nothing fits, or nothing was measured.

    `images`: rows of `read_images`, or the measure's Images, where they are at hand already. `cost`: a column that
    says what is cheap; None: that of the first budget, NFE where there is none. `found`: the differences of the cells
    that fit to their best, or their `ties` alone, and `called`: their names, where they are known.
    """
    good = _measured(cells, by, budgets)
    fits = good
    for name, limit in budgets.items():
        fits = fits[fits[BUDGETS[name][0]] <= limit]
    if fits.empty:
        raise InputError(_nothing_fits(good, budgets))
    called = names(fits) if called is None else called
    images = read_images(store, fits, [by.column]) if images is None else images
    found = differences(fits, images, by.column) if found is None else found.loc[fits.index]
    choices, several = [], found["group"].nunique() > 1
    for _, rows in found.groupby("group", sort=False):
        where = words.where(rows, found, called) if several else ""
        choices.append(_choice(rows, fits, by, budgets, called, where, cost))
    return Picked(choices, good, fits, found)


def _measured(cells: pd.DataFrame, by: Measure, budgets: dict[str, float]) -> pd.DataFrame:
    good = cells[cells["status"] == "ok"]
    if good.empty:
        raise InputError(f"no cell ended well ({len(cells)} failed or skipped): nothing to pick from")
    have = good[good[by.column].notna()]
    if have.empty:
        known = [what.column for what in QUALITY if good[what.column].notna().any()]
        raise InputError(f"no cell has {by.column} measured; measured here: {', '.join(known) or 'nothing'}")
    for name in budgets:
        column = BUDGETS[name][0]
        if have[column].isna().all():
            why = NOT_RECORDED.get(column, "")
            if column == "energy_j_per_image":
                why = f": {'; '.join(have['energy_definition'].dropna().unique()[:2]) or 'recorded before it was'}"
            raise InputError(f"--{name}: no cell with {by.column} has {column} recorded{why}")
        have = have[have[column].notna()]
        if have.empty:
            raise InputError(f"no cell has {by.column} and all of {', '.join(BUDGETS[n][0] for n in budgets)}")
    return have


def _nothing_fits(good: pd.DataFrame, budgets: dict[str, float]) -> str:
    """Each budget with the least that any cell costs."""
    called = names(good)
    parts = []
    for name, limit in budgets.items():
        column, unit = BUDGETS[name]
        least = good[column].astype(float).idxmin()
        if good.loc[least, column] > limit:
            lowest = f"{good.loc[least, column]:.3g} {unit} ({called.of(least)[:80]})"
            parts.append(f"{name} ≤ {limit:g} {unit}: the least is {lowest}")
    if not parts:
        both = joined([f"{name} ≤ {limit:g}" for name, limit in budgets.items()])
        return f"no cell meets {both} together, though each alone is met; raise one"
    return f"nothing fits {'; '.join(parts)}"


def _choice(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    by: Measure,
    budgets: dict[str, float],
    called: Names,
    where: str,
    cost: str | None = None,
) -> Choice:
    cost = cost or (BUDGETS[next(iter(budgets))][0] if budgets else "nfe")
    best = rows.index[rows["cell_id"] == rows["to"]][0]
    costs = cells[cost].astype(float).fillna(np.inf)
    tied = list(
        costs.loc[[place for place in rows.index[rows["tied"]] if place != best]].sort_values(kind="stable").index
    )
    cheapest = costs.loc[[best, *tied]].idxmin()
    lines = [f"{by.heading}{where}: {_fully(cells.loc[best], called.of(best))}: {_told(cells.loc[best], by, budgets)}"]
    if len(rows) == 1:
        lines.append("it is the only cell within the budget")
        return Choice(best, tied, best, lines)
    worse = len(rows) - len(tied) - 1
    if tied:
        lines.append(f"cannot be told from it ({len(tied)} of {len(rows) - 1} others): {called.list(tied)}")
        if costs[cheapest] < costs[best]:
            lines.append(
                f"the cheapest of them: {_fully(cells.loc[cheapest], called.of(cheapest))}: "
                f"{_told(cells.loc[cheapest], by, budgets)}"
            )
    else:
        lines.append(f"all {worse} others within the budget are worse for sure")
    return Choice(best, tied, cheapest, lines)


def _fully(row: pd.Series, name: str) -> str:
    """Sampler, schedule and steps always: what is to be typed."""
    return f"sampler={row['sampler']} schedule={row['schedule']} steps={row['steps']}" + (
        f" ({name})" if len(name) > len(f"{row['sampler']} at {row['steps']} steps") else ""
    )


def _told(row: pd.Series, by: Measure, budgets: dict[str, float]) -> str:
    parts = [f"{by.heading} {by.form.format(row[by.column] * by.scale)}"]
    for name in budgets or ("latency", "nfe"):
        what = BY_NAME[BUDGETS[name][0]]
        if pd.notna(row[what.column]):
            parts.append(f"{what.form.format(row[what.column])} {BUDGETS[name][1]}")
    return ", ".join(parts)


def notes(fits: pd.DataFrame, cells: pd.DataFrame, budgets: dict[str, float], choices: int) -> list[str]:
    """What a reader should know before believing the choice."""
    out = []
    if choices > 1:
        out.append(f"{choices} groups of cells that cannot be compared with one another: --where narrows to one")
    if "latency" in budgets or not budgets:
        for column in SAME_COST:
            values = fits[column].dropna().unique()
            if len(values) > 1:
                told = ", ".join(str(value)[:30] for value in values[:3])
                out.append(f"latency was measured under {len(values)} values of {column} ({told}): not one budget")
        high = bounds("latency_s")[1]
        limit = budgets.get("latency")
        if limit is not None:
            near = ((fits[high].astype(float) > limit) & (fits["latency_s"] <= limit)).sum()
            if near:
                out.append(f"of {near} of the cells that fit, latency's interval reaches beyond {limit:g} s")
    if "memory" in budgets and fits["peak_memory_kind"].nunique() > 1:
        kinds = sorted(fits["peak_memory_kind"].dropna().unique())
        out.append(f"memory was measured in {len(kinds)} ways ({joined(kinds)}): not one budget")
    for name, column in {"energy": "energy_definition", "cost": "price_per_hour"}.items():
        ways = fits[column].dropna().unique()
        if name in budgets and len(ways) > 1:
            told = "; ".join(str(way)[:60] for way in ways[:3])
            out.append(f"{name} was measured under {len(ways)} values of {column} ({told}): not one budget")
    bad = int((cells["status"] != "ok").sum())
    return [*out, *([f"{bad} failed or skipped cells were not considered"] if bad else [])]


def _shown(choices: list[Choice], fits: pd.DataFrame, by: Measure, found: pd.DataFrame) -> table.EndTable:
    """The choices with those that cannot be told from them, as a table."""
    places = [place for choice in choices[:MOST_GROUPS] for place in [choice.best, *choice.tied][:MOST_RUNNERS]]
    rows = fits.loc[places]
    costs = [what for what in COST if what.column != "images_per_s" and rows[what.column].notna().any()]
    lines = [line for choice in choices[:MOST_GROUPS] for line in choice.sentences]
    if len(choices) > MOST_GROUPS:
        lines.append(f"… and {len(choices) - MOST_GROUPS} groups more")
    return table.EndTable(rows, names(rows), {by: found.loc[places]}, costs, lines)


def main(given: Sequence[str] | None = None) -> int:
    asked = _arguments(given)
    console = Console(width=None if sys.stdout.isatty() else table.NARROW)

    def work() -> int:
        by = measure(asked.by)
        budgets = {name: getattr(asked, name) for name in BUDGETS if getattr(asked, name) is not None}
        for name, limit in budgets.items():
            if not limit > 0:
                raise InputError(f"--{name} {limit:g} is not valid: a budget is a number above 0")
        cells = options.read(asked)
        picked = pick(cells, Store(asked.results), by, budgets)
        shown = _shown(picked.choices, picked.fits, by, picked.found)
        said = " and ".join(f"{name} ≤ {limit:g} {BUDGETS[name][1]}" for name, limit in budgets.items()) or "no budget"
        _line(console, f"best {by.heading} within {said}: {len(picked.fits)} of {len(picked.asked)} cells fit")
        table.show(shown, console)
        for line in notes(picked.fits, cells, budgets, len(picked.choices)):
            _line(console, f"note: {line}")
        for path in options.write_table(shown, asked.table):
            _line(console, f"written: {path}")
        return 0

    return options.guarded(work)


def _line(console: Console, text: object) -> None:
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which sampler, schedule and steps within a budget.")
    parser.add_argument("--by", default="fid", help="the measure that decides: fid, clip, discretisation_error, …")
    parser.add_argument("--latency", type=float, metavar="S", help="at most so many seconds a run")
    parser.add_argument("--memory", type=float, metavar="MIB", help="at most so much peak memory")
    parser.add_argument("--nfe", type=float, metavar="CALLS", help="at most so many denoiser calls an image")
    parser.add_argument("--energy", type=float, metavar="J", help="at most so many joules an image")
    parser.add_argument("--cost", type=float, metavar="PRICE", help="at most this price of 1,000 images")
    options.add(parser)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(interruptible(main))
