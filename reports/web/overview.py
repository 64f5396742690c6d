"""The answers in words: the best, the best within a budget of latency, the cheapest that cannot be told from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.errors import InputError
from harness.store.records import Store
from harness.verdict.measures import Measure, same
from harness.verdict.names import Names, names
from harness.verdict.paired import ties
from reports.pick import MOST_GROUPS, Choice, pick
from reports.web.verdicts import Evidence

BUDGETS = 24  # positions of the slider
SEARCHED = 60_000  # cells × measures × budgets that are tried
LEAST = 3  # positions of the slider of a sweep that is larger than that
ASKED = ("fid", "clip_score", "discretisation_error", "error_to_exact", "attributes_all", "sliced_wasserstein")


def answers(known: Evidence, best: dict[Measure, pd.DataFrame], store: Store) -> list[dict[str, Any]]:
    """Of each measure that a reader chooses by: the choices without a budget and at every position of the slider.

    `best`: the measures' differences to the best of all cells.
    """
    found = []
    asked = [what for what in known.measures if what.column in ASKED]
    cells, called = _narrow(known, asked), _Called(known.good)
    for what in asked:
        have = cells[cells[what.column].notna()]
        steps = [{"limit": None, "choices": _picked(have, known, store, what, None, best[what], called)}]
        limits = budgets(have)
        room = max(LEAST, SEARCHED // (len(have) * len(asked)))
        if len(limits) > 1:
            for limit in limits[:: max(1, -(-len(limits) // room))]:
                some = have[have["latency_s"] <= limit]
                ties_of = ties(some, known.values(what), what.column)
                steps.append({"limit": limit, "choices": _picked(some, known, store, what, limit, ties_of, called)})
        found.append({"measure": what.column, "steps": steps})
    return found


def _narrow(known: Evidence, asked: list[Measure]) -> pd.DataFrame:
    """The good cells with what a choice asks of them alone: of 250 columns every part that is taken costs."""
    wanted = {"cell_id", "status", "sampler", "schedule", "steps", "latency_s", "nfe"}
    wanted |= {name for what in asked for name in (what.column, *same(what))}
    return known.good[[name for name in known.good if name in wanted]]


class _Called:
    """The names of any of the cells, made once for all measures that ask of the same ones."""

    def __init__(self, cells: pd.DataFrame) -> None:
        self._cells, self._names = cells, dict[bytes, Names]()

    def __call__(self, places: pd.Index) -> Names:
        key = np.asarray(places).tobytes()
        if key not in self._names:
            self._names[key] = names(self._cells.loc[places])
        return self._names[key]


def budgets(cells: pd.DataFrame) -> list[float]:
    """Latencies at which the answer can change: those recorded, or BUDGETS of them, rounded up to three digits."""
    if "latency_s" not in cells:
        return []
    known = np.sort(cells["latency_s"].dropna().astype(float).unique())
    if len(known) > BUDGETS:
        known = np.quantile(known, np.linspace(0, 1, BUDGETS), method="higher")
    return list(dict.fromkeys(_up(value) for value in known))


def _up(value: float) -> float:
    """Three digits, never below the value: the cell that has it fits the budget."""
    step = 10.0 ** (np.floor(np.log10(value)) - 2) if value > 0 else 1.0
    return float(f"{np.ceil(value / step - 1e-9) * step:.12g}")


def _picked(
    cells: pd.DataFrame,
    known: Evidence,
    store: Store,
    what: Measure,
    limit: float | None,
    found: pd.DataFrame,
    called: _Called,
) -> list[dict[str, Any]]:
    cost = "latency_s" if known.good["latency_s"].notna().any() else "nfe"
    try:
        budgets = {} if limit is None else {"latency": limit}
        picked = pick(cells, store, what, budgets, known.values(what), cost, found, called(cells.index))
    except InputError:
        return []
    place = {label: k for k, label in enumerate(known.cells.index)}
    return [_told(choice, place) for choice in picked.choices[:MOST_GROUPS]]


def _told(choice: Choice, place: dict[object, int]) -> dict[str, Any]:
    return {
        "best": place[choice.best],
        "cheapest": place[choice.cheapest],
        "tied": [place[label] for label in choice.tied],
        "said": choice.sentences,
    }
