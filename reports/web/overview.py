"""The answers in words: the best, the best within a budget of latency, the cheapest that cannot be told from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.errors import InputError
from harness.store.records import Store
from harness.verdict.measures import Measure
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
    for what in asked:
        have = known.good[known.good[what.column].notna()]
        steps = [{"limit": None, "choices": _picked(known, store, what, None, best[what])}]
        limits = budgets(have)
        room = max(LEAST, SEARCHED // (len(have) * len(asked)))
        if len(limits) > 1:
            for limit in limits[:: max(1, -(-len(limits) // room))]:
                steps.append({"limit": limit, "choices": _picked(known, store, what, limit, None)})
        found.append({"measure": what.column, "steps": steps})
    return found


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
    known: Evidence, store: Store, what: Measure, limit: float | None, found: pd.DataFrame | None
) -> list[dict[str, Any]]:
    cost = "latency_s" if known.good["latency_s"].notna().any() else "nfe"
    try:
        budgets = {} if limit is None else {"latency": limit}
        picked = pick(known.cells, store, what, budgets, known.values(what), cost, found)
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
