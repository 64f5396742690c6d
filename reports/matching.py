"""Which cell of one side stands beside which of the other: two cells, or two values of an axis over a sweep."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from harness.errors import InputError, nearest
from harness.verdict.names import Names, joined, names
from reports import where
from reports.records import QUALITY_AXES, VARIANT

PREFIX = re.compile(r"[0-9a-f]{3,16}")
# What follows from an axis and is not asked to agree where the axis itself differs.
FOLLOWS = {
    "sampler": ("sampler_knobs", "schedule", "schedule_knobs", "noise"),
    "schedule": ("schedule_knobs",),
    "task": ("task_knobs",),
    "model": ("model_fingerprint", "height", "width"),
    "data": ("data_fingerprint",),
    "cfg": ("guidance_rescale", "guidance_knobs", "negative_prompt"),
    "classifier_scale": ("classifier_fingerprint",),
}
# What makes prompts and noise the same. Without it there are no pairs.
SHARED = ("task", "data", "data_fingerprint", "seed")


@dataclass(frozen=True)
class Matched:
    """`cells`: the cells of both sides; `pairs`: their labels (a, b); `titles`: what each pair has in common."""

    cells: pd.DataFrame
    pairs: list[tuple[object, object]]
    titles: list[str]
    sides: tuple[str, str]
    notes: list[str]


def match(cells: pd.DataFrame, one: str, two: str) -> Matched:
    """InputError where a side names no cell, or nothing of one can be paired with the other."""
    good = cells[cells["status"] == "ok"]
    if good.empty:
        raise InputError(f"no cell ended well ({len(cells)} failed or skipped): nothing to compare")
    if ("=" in one) != ("=" in two):
        raise InputError(f"{one[:60]} and {two[:60]}: name two cells by their ids, or AXIS=VALUE twice")
    if "=" in one:
        return _by_value(good, one, two)
    first, second = _by_id(good, one), _by_id(good, two)
    if first == second:
        raise InputError(f"{one} and {two} are the same cell ({good.loc[first, 'cell_id']}); name two")
    both = good.loc[[first, second]]
    _shared(both)
    called = names(both)
    return Matched(both, [(first, second)], [called.common], (called.of(first), called.of(second)), [])


def _by_id(cells: pd.DataFrame, text: str) -> object:
    ids = cells["cell_id"]
    hint = "the column 'cell' of the table that `python reports/plot.py` ends with has them"
    if not PREFIX.fullmatch(text):
        raise InputError(
            f"{text[:40]!r} is neither the beginning of a cell's id (3 to 16 hexadecimal digits; {hint}) nor AXIS=VALUE"
        )
    found = ids[ids.str.startswith(text)]
    if len(found) == 0:
        raise InputError(
            f"no cell's id begins with {text}; {nearest(text, ids.str[: len(text)].head(12))[:200]}; {hint}"
        )
    if len(found) > 1:
        raise InputError(f"{len(found)} cells' ids begin with {text}: {', '.join(found.head(4))}; give more digits")
    return found.index[0]


def _shared(both: pd.DataFrame) -> None:
    differ = [column for column in SHARED if both[column].nunique(dropna=False) > 1]
    if differ:
        raise InputError(f"the two cells share no prompts or noise: they differ in {joined(differ)}; nothing is paired")


def _by_value(cells: pd.DataFrame, one: str, two: str) -> Matched:
    """Every cell of side one with the cell of side two that agrees in all but what the sides name."""
    conditions = [where.parse([text], "") for text in (one, two)]
    sides = [_side(cells, condition, text) for condition, text in zip(conditions, (one, two), strict=True)]
    both = sides[0].index.intersection(sides[1].index)
    if len(both):
        raise InputError(
            f"{one} and {two} have {len(both)} cells in common, as {cells.loc[both[0], 'cell_id']}; name two sides"
        )
    axes = {name.split(".")[0] for condition in conditions for name in condition.conditions}
    knobs = {f"{name.split('.')[0]}_knobs" for c in conditions for name in c.conditions if "." in name}
    bare = {name for c in conditions for name in c.conditions if "." not in name}
    free = bare | {follows for name in bare for follows in FOLLOWS.get(name, ())} | knobs
    must = [column for column in (*VARIANT, *QUALITY_AXES) if column not in free and column in cells]
    wish = [column for axis in sorted(axes) for column in FOLLOWS.get(axis, ()) if column in ("schedule", "noise")]
    pairs, alone = _pairs(sides[0], sides[1], must, wish)
    if not pairs:
        raise InputError(_nothing(sides[0], sides[1], must, one, two))
    cells = cells.loc[[place for pair in pairs for place in pair]]
    titles = _titles(cells, [first for first, _ in pairs], must)
    notes = [f"{alone} cells have no counterpart on the other side and are left out"] if alone else []
    notes += _followed(cells, pairs, wish)
    return Matched(cells, pairs, titles, (one.strip(), two.strip()), notes)


def _side(cells: pd.DataFrame, condition: where.Where, text: str) -> pd.DataFrame:
    if not condition:
        raise InputError(
            f"{text[:40]!r} names no value: write AXIS=VALUE on both sides, as sampler=unipc sampler=dpmpp"
        )
    return condition(cells)


def _pairs(
    one: pd.DataFrame, two: pd.DataFrame, must: list[str], wish: list[str]
) -> tuple[list[tuple[object, object]], int]:
    """Pairs that agree in `must`; of several candidates the one that agrees in `wish` as well, else none."""
    keyed = [_keyed(side, must, wish) for side in (one, two)]
    often, there = Counter(keyed[0]["key"]), dict[tuple, list[object]]()
    for place, key in keyed[1]["key"].items():
        there.setdefault(key, []).append(place)
    wished = [dict(zip(side.index, map(tuple, side[wish].to_numpy()), strict=True)) for side in keyed]
    pairs = []
    order = [column for column in ("sampler", "schedule", "cfg", "strength", "steps") if column in must]
    for place, key in keyed[0].sort_values(order, kind="stable")["key"].items():
        candidates = there.get(key, [])
        if len(candidates) > 1 or often[key] > 1:
            candidates = [other for other in candidates if wish and wished[1][other] == wished[0][place]]
        if len(candidates) == 1:
            pairs.append((place, candidates[0]))
    return pairs, len(one) + len(two) - 2 * len(pairs)


def _keyed(side: pd.DataFrame, must: list[str], wish: list[str]) -> pd.DataFrame:
    """The columns that pairs are found by, and what must agree as one `key`."""
    needed = side[list(dict.fromkeys(["ended_at", *must, *wish, *_own(side)]))]
    needed = needed.assign(key=list(map(tuple, needed[must].astype(str).to_numpy())))
    # The same question asked again (on another device, say): the latest answer.
    return needed.sort_values("ended_at").drop_duplicates(["key", *wish, *_own(side)], keep="last")


def _own(side: pd.DataFrame) -> list[str]:
    return [column for column in VARIANT if column in side]


def _nothing(one: pd.DataFrame, two: pd.DataFrame, must: list[str], a: str, b: str) -> str:
    """Which columns keep the two sides apart."""
    apart = [c for c in must if not set(one[c].astype(str)) & set(two[c].astype(str))]
    why = (
        f"they never agree in {joined(apart[:4])}" if apart else "several cells of a side differ in what the sides name"
    )
    return f"no cell with {a[:60]} has a counterpart with {b[:60]}: {why}; say more, as sampler=unipc,cfg=3"


def _titles(cells: pd.DataFrame, firsts: list[object], must: list[str]) -> list[str]:
    """What tells one pair from another."""
    shared = names(cells.loc[firsts])
    columns = [column for column in shared.table if column in must and shared.table[column].nunique() > 1]
    told = Names(shared.table[["cell", *columns]], shared.common)
    return [told.of(place) if columns else shared.common for place in firsts]


def _followed(cells: pd.DataFrame, pairs: list[tuple[object, object]], wish: list[str]) -> list[str]:
    """A word where the two sides differ in more than they name, as in the schedule that is a sampler's default."""
    notes = []
    for column in wish:
        differ = {(str(cells.loc[a, column]), str(cells.loc[b, column])) for a, b in pairs}
        differ = sorted(pair for pair in differ if pair[0] != pair[1])
        if differ:
            told = ", ".join(f"{a[:30]} against {b[:30]}" for a, b in differ[:3])
            notes.append(f"the sides also differ in the {column}: {told}")
    return notes
