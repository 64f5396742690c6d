"""The plans of the cells, read from results/plans: weights call by call, order conditions, which cells share one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from harness.store import layout
from harness.store.records import Store
from reports.figures.coefficients import MOST_BYTES, Weights, parsed
from samplers.conditions import residuals
from samplers.core import plan_json
from samplers.core.levels import NoiseLevels, RectifiedFlow

MOST = 400  # plans in a file
DIGITS = 6
DEGREES = 4  # of the solutions that are put into a plan's order conditions


def read(cells: pd.DataFrame, store: Store) -> list[dict[str, Any]]:
    """A plan each: its id, the positions of the cells that ran it, its weights and levels."""
    if "plan_id" not in cells:
        return []
    found = []
    ids = cells["plan_id"]
    for plan_id, places in pd.Series(range(len(cells)), index=ids.to_numpy()).groupby(level=0, sort=False):
        if len(found) == MOST:
            break
        weights = _weights(store, str(plan_id))
        if weights is not None:
            found.append({"id": str(plan_id), "cells": [int(place) for place in places], **weights})
    return found


def _weights(store: Store, plan_id: str) -> dict[str, Any] | None:
    try:
        name = layout.plan(plan_id)
        if store.place.look(name).size > MOST_BYTES:
            return None
        text = store.place.read(name)
        plan = json.loads(text)
        return {**_said(plan, parsed(plan)), "missed": _missed(text)}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return None


def _said(plan: dict[str, Any], weights: Weights) -> dict[str, Any]:
    used = np.abs(weights.states).sum(0) > 0, np.abs(weights.x0).sum(0) > 0
    sums = weights.states.sum(1), (weights.states.sum(1) + weights.x0.sum(1))
    return {
        "states": _rounded(weights.states[:, : _last(used[0])].T),
        "outputs": _rounded(weights.x0[:, : _last(used[1])].T),
        "noise": _rounded(weights.noise),
        "ends": [bool(end) for end in weights.ends],
        "sigma": _rounded([stage["level"][1] / stage["level"][0] for stage in plan["stages"]]),
        "sums": _rounded(sums[1]),
        "order": plan.get("capabilities", {}).get("order"),
    }


def _missed(text: bytes) -> Any:
    """What each step misses of solutions of degree 1, 2, …: (DEGREES, steps); None where noise is drawn."""
    try:
        saved = plan_json.loads(text)
        levels = NoiseLevels(saved.alpha, saved.sigma, saved.time, RectifiedFlow())  # all given: no process is asked
        return _rounded(residuals(levels, saved.plan)[:, :DEGREES].T)
    except ValueError:
        return None


def _last(used: np.ndarray) -> int:
    return int(np.flatnonzero(used)[-1]) + 1 if used.any() else 0


def _rounded(values: Any) -> Any:
    array = np.asarray(values, float)
    if array.ndim == 2:
        return [_rounded(row) for row in array]
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in array]
