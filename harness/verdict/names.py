"""How a report calls cells: what they have in common once, and of each only what tells it from the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness import axes

NOTHING = "–"
LONGEST = 40  # letters of a value
SHORTEST_ID = 4  # letters of a cell's id
# Column → how it is shown. A cell's name has those in which the cells differ, in this order.
KNOBS_OF = {axes.KNOBS[axis.name]: axis.name for axis in axes.AXES if axis.variant and axis.name in axes.KNOBS}
SHOWN = {part.name: part for part in axes.told(axes.NAME) if part.name not in KNOBS_OF}
# How it was run, and what was there: said only where the axes alone leave two cells with one name.
CIRCUMSTANCES = (*(part.name for part in axes.told(axes.LAST)), "hardware", "workers")
ALWAYS = ("sampler", "steps")
IN_COMMON = tuple(part.name for part in SHOWN.values() if part.common and part.name not in ALWAYS)  # where all agree
DIFFERING = tuple(column for column in SHOWN if column in axes.KNOBS.values())  # of these the knobs that differ
BARE = tuple(column for column, part in SHOWN.items() if part.words == "{}" and column not in DIFFERING)


@dataclass(frozen=True)
class Names:
    """`table`: text columns that tell the cells apart, index of the cells. `common`: what all agree on, in words."""

    table: pd.DataFrame
    common: str

    def of(self, place: object, but: Sequence[str] = ()) -> str:
        """A cell in words, as `dpmpp at 20 steps`; without the columns `but`."""
        row = self._rows[place]
        said = {column: phrase(column, row[column]) for column in self._telling if column not in but}
        steps = said.pop("steps", "")
        first = " ".join(said.pop(column) for column in BARE if said.get(column))
        rest = ", ".join(part for part in [first, *said.values()] if part)
        return f"{rest} at {steps}" if rest and steps else rest or steps

    def list(self, places: Sequence[object], most: int = 6) -> str:
        """Cells in words, those that differ in the steps alone together: `20, 30 and 50 steps`."""
        telling = self._telling
        most += len(places) == most + 1  # the last one is as short as "1 more"
        some: dict[str, list[object]] = {}
        for place in places[:most]:
            some.setdefault(self.of(place, but=("steps",)), []).append(place)
        parts = []
        for rest, chosen in some.items():
            if "steps" not in telling:
                parts += [rest or self.of(place) for place in chosen]
                continue
            steps = joined([self._rows[place]["steps"] for place in chosen]) + " steps"
            parts.append(f"{rest} at {steps}" if rest else steps)
        if len(places) > most:
            parts.append(f"{len(places) - most} more")
        return joined(parts)

    @cached_property
    def _rows(self) -> dict[object, dict[str, str]]:
        return self.table.to_dict("index")  # pandas takes a row out of a table in the time of a hundred

    @cached_property
    def _telling(self) -> list[str]:
        several = [column for column in self.table if self.table[column].nunique() > 1]
        return [column for column in several if column != "cell"] or [c for c in ALWAYS if c in self.table]


def names(cells: pd.DataFrame) -> Names:
    """Names for these cells (rows of the cells table); no value in them is longer than 40 letters."""
    columns = {}
    for column in SHOWN:
        if column in cells and (column in ALWAYS or cells[column].nunique(dropna=False) > 1):
            columns[column] = _plain(cells[column])
    for knobs, owner in KNOBS_OF.items():
        if knobs in cells and owner in cells:
            said = _knobs(cells, knobs, owner)
            if said.any():
                own = columns.get(owner, _plain(cells[owner]))
                columns[owner] = (own + " " + said).str.strip()
    for column in DIFFERING:
        if column in columns:
            columns[column] = _differing(cells[column])
    table = pd.DataFrame({column: columns[column] for column in SHOWN if column in columns}, index=cells.index)
    for column in CIRCUMSTANCES:
        if table.duplicated().any() and column in cells and cells[column].nunique(dropna=False) > 1:
            table[column] = _plain(cells[column])
    table.insert(0, "cell", _short_ids(cells["cell_id"]))
    common = [phrase(column, plain(cells[column].iloc[0])) for column in IN_COMMON if _agreed(cells, column)]
    return Names(table, ", ".join(common))


def headings(table: pd.DataFrame) -> list[str]:
    return [SHOWN[column].title if column in SHOWN else column.replace("_", " ") for column in table]


def joined(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def plain(value: object) -> str:
    """A value as a reader writes it: printable, at most 40 letters."""
    if value is None or value is pd.NA or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return NOTHING
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _plain(values: pd.Series) -> pd.Series:
    """Each value as a reader writes it: of thousands of cells a few differ."""
    codes, levels = pd.factorize(values, use_na_sentinel=False)
    return pd.Series(np.array([plain(level) for level in levels], dtype=object)[codes], values.index)


def phrase(column: str, value: str) -> str:
    if value in (NOTHING, ""):
        return ""
    return axes.PARTS[column].words.replace("{}", value) if column in axes.PARTS else value


def _agreed(cells: pd.DataFrame, column: str) -> bool:
    return column in cells and len(cells) > 0 and cells[column].notna().all() and cells[column].nunique() == 1


def _short_ids(ids: pd.Series) -> pd.Series:
    """The first letters of the ids, as many as tell all apart."""
    length = next(n for n in range(SHORTEST_ID, 17) if n == 16 or not ids.str[:n].duplicated().any())
    return ids.str[:length]


def _knobs(cells: pd.DataFrame, knobs: str, owner: str) -> pd.Series:
    """Of each cell the knobs in which it differs from others of the same sampler (or schedule)."""
    said = pd.Series("", cells.index, dtype=object)
    kinds = cells[[owner, knobs]].drop_duplicates()
    mixed = kinds.loc[kinds[owner].duplicated(), owner]
    for _, rows in cells[cells[owner].isin(mixed)].groupby(owner, dropna=False, sort=False):
        said[rows.index] = _differing(rows[knobs])
    return said


def _differing(texts: pd.Series) -> pd.Series:
    read = {text: _read(text) for text in texts.unique()}
    every = sorted({name for one in read.values() for name in one})
    several = [name for name in every if len({json.dumps(one.get(name), sort_keys=True) for one in read.values()}) > 1]
    told = {
        text: " ".join(f"{plain(name)}={plain(one[name])}" for name in several if name in one)
        for text, one in read.items()
    }
    return texts.map(told)


def _read(text: object) -> dict[str, object]:
    try:
        knobs = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return knobs if isinstance(knobs, dict) else {}
