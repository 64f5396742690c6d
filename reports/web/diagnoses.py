"""What `python -m harness.diagnose` found of the plans that the cells ran: results/diagnoses, a file a cell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.store import layout
from harness.store.records import Store

MOST = 60  # diagnoses in a file
MOST_BYTES = 4 << 20
VERSION = 1  # of the files that are read
DIGITS = 4
STEP = ("from", "to", "local", "euler", "arrives", "share", "amplifies")
COEFFICIENT = ("call", "back", "weight", "moves", "log_error")
LEVEL = ("level", "ratio", "moves", "log_error")


def read(cells: pd.DataFrame, store: Store) -> list[dict[str, Any]]:
    """A diagnosis each, of a plan that one of the cells ran with the same model and CFG scale: `plan`, its id; `said`,
    what it was diagnosed with; `error`, `start`, `steps`, `curvature`, `coefficients` and `levels` as in the file.
    """
    if "plan_id" not in cells:
        return []
    ran = set(zip(cells["plan_id"], cells["model"], cells["cfg"].astype(float), strict=True))
    found = []
    for name in store.place.names(f"{layout.diagnoses(Path()).name}/"):
        one = _one(store, name) if name.endswith(".json") else None
        if one is not None and (one["plan"], one["model"], one["cfg"]) in ran:
            found.append(one)
        if len(found) == MOST:
            break
    return found


def _one(store: Store, name: str) -> dict[str, Any] | None:
    """None for what is no diagnosis, or one of another version."""
    try:
        if store.place.look(name).size > MOST_BYTES:
            return None
        told = json.loads(store.place.read(name))
        if told["version"] != VERSION:
            return None
        model, cfg = str(told["model"]), float(told["cfg"])
        steps = [{"calls": [int(call) for call in step["calls"][:2]], **_numbers(step, STEP)} for step in told["steps"]]
        return {
            "plan": str(told["plan_id"]),
            "model": model,
            "cfg": cfg,
            "said": f"{model}, CFG {cfg:g}, {int(told['images'])} images",
            "error": _number(told["error"]),
            "start": _numbers(told["start"], ("arrives", "share")),
            "steps": steps,
            "curvature": {key: [_number(value) for value in told["curvature"][key]] for key in ("ratios", "dD", "d2D")},
            "coefficients": [_numbers(row, COEFFICIENT) for row in told["coefficients"] or []],
            "levels": [_numbers(row, LEVEL) for row in told["levels"] or []],
        }
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None


def _numbers(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float | None]:
    return {name: _number(row[name]) for name in names}


def _number(value: Any) -> float | None:
    """To DIGITS digits; None for none, and for what is not finite."""
    number = math.nan if value is None else float(value)
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None
