"""Where cells come from, and the words that make each again."""

from __future__ import annotations

import json
import shlex
from functools import cache
from typing import Any

import pandas as pd
import yaml

from harness import axes
from harness.paths import CONF, NOT_KNOBS

SAID = ("hardware", "hostname", "platform", "python_version", "torch_version", "diffusers_version", "git_commit",
        "git_dirty", "threads", "workers", "timing_preset")  # fmt: skip
MOST = 12  # values of a column that are counted one by one


def of(cells: pd.DataFrame, results: str) -> dict[str, Any]:
    """`counts`: how many cells have which value; `commands`: each cell's own words; `again`: bit for bit."""
    counts = {}
    for column in SAID:
        if column in cells and cells[column].notna().any():
            found = cells[column].astype(object).map(str, na_action="ignore").value_counts()
            rest = [["… and others", int(found.iloc[MOST:].sum())]] if len(found) > MOST else []
            counts[column] = [[str(value), int(count)] for value, count in found.head(MOST).items()] + rest
    ended = pd.to_datetime(cells["ended_at"], utc=True).dropna()
    span = [int(moment.timestamp() * 1000) for moment in (ended.min(), ended.max())] if len(ended) else None
    again = f"python -m harness.reproduce {{}} --results {shlex.quote(results)}"
    return {"counts": counts, "span": span, "again": again, "commands": [command(text) for text in cells["cell"]]}


def command(text: object) -> str:
    """The sweep of one cell whose canonical form is `text`; "" where that cannot be read."""
    try:
        asked = json.loads(str(text))
        words = [word for name, value in asked.items() for word in _words(name, value)]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join(["python -m harness.sweep", *words])


@cache
def _usual(name: str) -> dict[str, Any]:
    """What a file of conf/ says by itself: words that repeat it say nothing. Nothing where it is not there any more."""
    try:
        found = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    return found if isinstance(found, dict) else {}


def _words(name: str, value: Any) -> list[str]:
    """`sampler=dpmpp sampler.order=2`: of an axis only what can be asked and is not said by conf/ already."""
    axis = axes.AXIS.get(name)
    if axis is None or not axis.asked or not axis.kept or value is None:
        return []
    if axis.group and isinstance(value, dict):
        usual = _usual(f"{name}/{value['name']}")
        knobs = {
            key: knob for key, knob in value.items() if key not in NOT_KNOBS and not isinstance(knob, (dict, list))
        }
        own = {key: knob for key, knob in knobs.items() if key not in usual or usual[key] != knob}
        return [f"{name}={value['name']}", *(_word(f"{name}.{key}", knob) for key, knob in own.items())]
    usual = _usual("sweep").get(name)
    if value == usual:
        return []
    if isinstance(value, dict):
        before = usual if isinstance(usual, dict) else {}
        return [_word(f"{name}.{key}", knob) for key, knob in value.items() if before.get(key) != knob]
    if isinstance(value, list):
        return [shlex.quote(f"{name}=[{','.join(map(str, value))}]")]
    return [_word(name, value)]


def _word(name: str, value: Any) -> str:
    if value is None:
        return f"{name}=null"
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        return shlex.quote(f"{name}='{value}'")
    return shlex.quote(f"{name}={value}")
