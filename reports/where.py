"""`--where`: which cells a report looks at.

    --where sampler=unipc|dpmpp,steps=10..20          both must hold; | are choices, .. a range with both ends
    --where sampler=unipc --where sampler=dpmpp       the same column again adds choices
    --where sampler.order=2,cfg=..5                   knobs of a sampler, schedule, task or guidance; open ranges
    --where "negative_prompt=a,b"                     text after = that holds no further = belongs to the value

Columns are those of the cells table (harness/store/schema.py). Names and values that no record has are an InputError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.axes import KNOBS
from harness.errors import InputError, nearest
from harness.store.schema import CELLS

KINDS = {column.name: column.kind for column in CELLS}
# Asked or found out before anything is measured: what people filter by, so what a wrong name is answered with.
OFFERED = (
    *("sampler", "steps", "cfg", "schedule", "strength", "precision", "task", "model", "data", "implementation"),
    *("noise", "seed", "n_images", "nfe", "status", "device", "hardware"),
)
CONDITION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=(.*)", re.DOTALL)
MOST_NAMED = 12


@dataclass(frozen=True)
class Where:
    """Column (or `sampler.KNOB`) → its choices, each a text or a range (low, high)."""

    conditions: dict[str, tuple[str | tuple[float, float], ...]]
    option: str = "--where "  # what an error begins with

    def __bool__(self) -> bool:
        return bool(self.conditions)

    def __call__(self, cells: pd.DataFrame) -> pd.DataFrame:
        """The cells that meet every condition; InputError where one names what no cell has."""
        kept = pd.Series(True, cells.index)
        for name, choices in self.conditions.items():
            values = _values(cells, name)
            met = [_meets(values, choice) for choice in choices]
            for choice, hits in zip(choices, met, strict=True):
                if not hits.any() and not isinstance(choice, tuple):
                    raise InputError(f"{self.option}{name}={choice[:40]}: no cell has it; {_known(choice, values)}")
            here = pd.concat(met, axis=1).any(axis=1)
            if not here.any():
                raise InputError(f"{self.option}{name}: no cell lies in {_said(choices)}; {_known('', values)}")
            kept &= here
        if self and not kept.any():
            raise InputError(f"{self.option}{self}: no cell meets all of it, though each part is met; leave one out")
        return cells[kept]

    def among(self, cells: pd.DataFrame) -> pd.DataFrame:
        """The cells that meet every condition, of a side that may have none."""
        try:
            return self(cells)
        except InputError:
            return cells.iloc[:0]

    def __str__(self) -> str:
        return ",".join(f"{name}={_said(choices)}" for name, choices in self.conditions.items())


def parse(words: Sequence[str], option: str = "--where ") -> Where:
    """The conditions of every `--where`. InputError, which begins with `option`, where one cannot be read."""
    conditions: dict[str, tuple[str | tuple[float, float], ...]] = {}
    for word in words:
        for name, text in _split(word, option):
            if name.split(".")[0] not in (*KINDS, *KNOBS) or ("." in name and name.split(".")[0] not in KNOBS):
                raise InputError(f"{option}{name[:40]}: unknown column; {nearest(name, OFFERED)}")
            choices = tuple(_choice(name, part.strip()) for part in text.split("|"))
            conditions[name] = (*conditions.get(name, ()), *choices)
    return Where(conditions, option)


def _split(word: str, option: str) -> list[tuple[str, str]]:
    """`a=1,b=2` in its parts; a piece without = goes on with the value before it."""
    parts: list[tuple[str, str]] = []
    for piece in word.split(","):
        found = CONDITION.fullmatch(piece)
        if found:
            parts.append((found[1], found[2].strip()))
        elif parts:
            name, text = parts[-1]
            parts[-1] = (name, f"{text},{piece}")
        else:
            raise InputError(
                f"{option}{word[:60]!r} is not valid: write COLUMN=VALUE, as in sampler=unipc,steps=10..20"
            )
    return parts


def _choice(name: str, text: str) -> str | tuple[float, float]:
    low, dots, high = text.partition("..")
    if not dots:
        return text
    try:
        bounds = float(low) if low.strip() else -math.inf, float(high) if high.strip() else math.inf
    except ValueError:
        if KINDS.get(name) in ("int", "float"):
            raise InputError(f"{name}={text[:40]}: a range is two numbers, as in {name}=10..20") from None
        return text
    if KINDS.get(name) == "text":
        raise InputError(f"{name}={text[:40]}: {name} holds names, which have no range; write {name}=A|B")
    if not bounds[0] <= bounds[1]:
        raise InputError(f"{name}={text[:40]}: an empty range; write the smaller number first")
    return bounds


def _values(cells: pd.DataFrame, name: str) -> pd.Series:
    column, dot, knob = name.partition(".")
    if not dot:
        return cells[column] if column in cells else pd.Series(None, cells.index, dtype=object)
    knobs = cells[KNOBS[column]].map(_read)
    known = sorted({key for one in knobs for key in one})
    if knob not in known:
        end = nearest(knob, known) if known else f"no cell has a knob of its {column}"
        raise InputError(f"{name[:40]}: no {column} here has that knob; {end[:300]}")
    return knobs.map(lambda one: one.get(knob))


def _read(text: object) -> dict:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _meets(values: pd.Series, choice: str | tuple[float, float]) -> pd.Series:
    if isinstance(choice, tuple):
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
        return (numbers >= choice[0]) & (numbers <= choice[1])
    return values.map(lambda value: _same(value, choice)).astype(bool)


def _same(value: object, text: str) -> bool:
    """Whether a recorded value is what was typed: numbers by value, truth as true or false, nothing as null."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return text in ("", "null")
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return text.lower() == str(bool(value)).lower()
    try:
        return math.isclose(float(value), float(text), rel_tol=1e-9)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value) == text


def _known(text: str, values: pd.Series) -> str:
    found = list(dict.fromkeys(_plain(value) for value in values.dropna().tolist()))
    if not found:
        return "no cell has that column filled"
    if len(found) <= MOST_NAMED:
        return nearest(text, [value[:40] for value in found])[:380]
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    if len(numbers):
        return f"{len(found)} values from {numbers.min():g} to {numbers.max():g}"
    return nearest(text, found[:MOST_NAMED])[:300] + f", and {len(found) - MOST_NAMED} more"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _said(choices: Sequence[str | tuple[float, float]]) -> str:
    return "|".join(c if isinstance(c, str) else "..".join(map(_bound, c)) for c in choices)


def _bound(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else ""
