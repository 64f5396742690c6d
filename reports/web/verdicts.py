"""What the page says of differences, as the other reports compute it: to the best, fronts, pairs, levels of an axis.

Nothing is estimated here. `reports.paired` and `reports.compare` are asked, within a budget that keeps the page of a
large sweep quick to build; what is left out is said on the page, which names the command that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from harness.errors import InputError
from harness.store import schema
from harness.store.records import Store
from harness.store.timings import by_round
from harness.verdict import ratios, words
from harness.verdict.measures import BY_NAME, COST, FLOPS, QUALITY, Measure, bounds
from harness.verdict.paired import Images, compared, differences, groups_of
from reports import compare, matching
from reports.paired import front, read_images

# The first two have their fronts first, where there is no room for all.
COSTS = tuple(dict.fromkeys(("latency_s", "nfe", *(one.column for one in (*COST, FLOPS)))))
RANKED = 40_000  # cells × measures that are compared with the best; of more only those of every table
LED = 40_000  # cells × measures × costs for which fronts are looked for
COMPARED = 12_000  # pairs × measures that are in the file
TIMED = 400  # pairs whose latencies are put in proportion
LEVELS = 7  # of an axis, from which on its levels are not set against one another
BINS = 24  # of the distribution of the differences of images


@dataclass
class Evidence:
    """The cells, the images behind them, and the measures that any of them has."""

    cells: pd.DataFrame
    images: pd.DataFrame
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)
    _values: dict[str, Images] = field(default_factory=dict)
    _groups: dict[str, dict[object, int]] = field(default_factory=dict)

    def values(self, what: Measure) -> Images:
        """The values of one measure, of cells and images: arranged once, asked by every view."""
        if what.column not in self._values:
            have = self.good[self.good[what.column].notna()]
            self._values[what.column] = Images(have, self.images, what)
        return self._values[what.column]

    def groups(self, what: Measure) -> dict[object, int]:
        """Cell → the number of those that two of which may be set side by side, of all cells that have the measure."""
        if what.column not in self._groups:
            have = self.good[self.good[what.column].notna()]
            self._groups[what.column] = dict(zip(have.index, groups_of(have, what, compare.FREE), strict=True))
        return self._groups[what.column]

    @cached_property
    def good(self) -> pd.DataFrame:
        return self.cells[self.cells["status"] == "ok"]


def evidence(cells: pd.DataFrame, store: Store) -> Evidence:
    good = cells[cells["status"] == "ok"]
    filled = [what for what in QUALITY if what.column in good and good[what.column].notna().any()]
    notes = []
    if len(good) * len(filled) > RANKED:
        left = [what.heading for what in filled if what.detail]
        filled = [what for what in filled if not what.detail]
        notes.append(
            f"differences of {', '.join(left)} are not in this file ({len(good)} cells): python reports/plot.py"
        )
    images = read_images(store, good, [what.column for what in filled])
    return Evidence(cells, images, filled, notes)


def to_best(known: Evidence) -> dict[Measure, pd.DataFrame]:
    """Of each measure the frame of `differences`, with the difference in words."""
    found = {}
    for what in known.measures:
        frame = differences(known.cells, known.values(what), what.column)
        texts = [words.difference(row, what.scale) for row in frame[["difference", "low", "high"]].to_dict("records")]
        found[what] = frame.assign(
            said=[t if known_ else "" for t, known_ in zip(texts, frame["difference"].notna(), strict=True)]
        )
    return found


def fronts(known: Evidence) -> dict[tuple[str, str], pd.DataFrame]:
    """(measure, cost) → the frame of `front`, the measures of every table and latency first."""
    costs = [cost for cost in COSTS if cost in known.good and known.good[cost].notna().any()]
    asked = [(what, cost) for cost in costs for what in sorted(known.measures, key=lambda what: what.detail)]
    found, left = {}, LED
    for what, cost in asked:
        size = int((known.good[what.column].notna() & known.good[cost].notna()).sum())
        if size <= left:
            left -= size
            found[what.column, cost] = front(known.cells, known.values(what), what.column, cost)
    if len(found) < len(asked):
        known.notes.append(f"fronts of {len(found)} of {len(asked)} pairs of measure and cost are in this file")
    return found


# ---------------------------------------------------------------------------------------------------------------- pairs


def chosen(known: Evidence, best: dict[Measure, pd.DataFrame]) -> list[object]:
    """The cells of which every pair is compared: all of them, or as many as the budget allows, the best first."""
    good, measures = known.good, max(1, len(known.measures))
    most = int((1 + np.sqrt(1 + 8 * COMPARED / measures)) / 2)
    if len(good) <= most:
        return list(good.index)
    rank = pd.Series(0.0, good.index)
    for what, frame in best.items():
        value = frame["value"] if not what.higher_is_better else -frame["value"]
        rank = rank.add(value.groupby(frame["group"]).rank(pct=True).reindex(good.index).fillna(1.0))
    kept = rank.nsmallest(most).index
    known.notes.append(
        f"pairs of {most} of {len(good)} cells are in this file, those with the best values; of others "
        "`python reports/compare.py A B` says the same, and so does this page under `python -m harness.watch`"
    )
    return list(kept)


def pairs(known: Evidence, places: Sequence[object]) -> pd.DataFrame:
    """A row a pair of `places` and measure, not yet judged: pair (a, b), measure, values, difference, …, histogram."""
    return uncorrected(known, list(combinations(places, 2)))


def uncorrected(known: Evidence, asked: Iterable[tuple[object, object]]) -> pd.DataFrame:
    """The rows of `reports.compare.compare` before they are judged, for many pairs at once.

    place_a, place_b, measure, a, b, difference, low, high, n, p, effect, paired, note; and the differences of the
    images in BINS equal bins from `from` to `until`, `counts`.
    """
    pairs = list(asked)
    parts = []
    for what in known.measures:
        group = known.groups(what)
        near = [(a, b) for a, b in pairs if a in group and group.get(b) == group[a]]
        if not near:
            continue
        values, column = known.values(what), {place: k for k, place in enumerate(group)}
        own = values.of.to_numpy()
        anchors, others = (np.array([column[pair[side]] for pair in near]) for side in (0, 1))
        counts, ends = _histograms(values, anchors, others)
        parts.append(
            pd.DataFrame(
                {
                    "place_a": [a for a, _ in near], "place_b": [b for _, b in near], "measure": what.column,
                    "a": own[anchors], "b": own[others], **vars(compared(values, anchors, others)), "note": "",
                    "counts": counts, "low_bin": ends[:, 0], "high_bin": ends[:, 1],
                }
            )
        )  # fmt: skip
    columns = ["place_a", "place_b", "measure", "a", "b", "difference", "low", "high", "n", "p", "effect", "paired"]
    columns += ["note", "counts", "low_bin", "high_bin"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _histograms(values: Images, anchors: np.ndarray, others: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Counts (BINS,) of the images' differences and the ends of the bins, for each pair of columns."""
    counts, ends = np.zeros((len(others), BINS), np.uint16), np.full((len(others), 2), np.nan)
    for which, found in values.against(anchors, others):
        if found is None or len(found) < 2:
            continue
        finite = np.isfinite(found).all(0)
        which, found = which[finite], found[:, finite]
        low, high = found.min(0).clip(max=0.0), found.max(0).clip(min=0.0)
        high = np.where(high > low, high, low + 1.0)
        at = np.minimum(((found - low) * (BINS / (high - low))).astype(np.int64), BINS - 1)
        at += BINS * np.arange(len(which))
        counted = np.bincount(at.reshape(-1), minlength=BINS * len(which)).reshape(-1, BINS)
        counts[which] = counted.clip(max=65535)
        ends[which] = np.stack([low, high], 1)
    return list(counts), ends


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Each pair judged by itself, as `python reports/compare.py A B` does: Holm over its measures."""
    if rows.empty:
        return rows.assign(verdict="")
    return compare.judged(rows, rows.groupby(["place_a", "place_b"], sort=False).ngroup().to_numpy())


def latency_ratios(known: Evidence, places: Sequence[object], store: Store) -> pd.DataFrame:
    """place_a, place_b, measure, difference (b over a), low, high, n: of costs, as `reports.compare` has them."""
    asked = list(combinations(places, 2))[:TIMED]
    needed = [name for cost in compare.RATIOS for name in (cost, *bounds(cost)) if name in known.cells]
    cells = known.cells.loc[list({place for pair in asked for place in pair}), ["cell_id", *needed]]
    timings = ratios.timings(store, cells)
    timed = {place: by_round(timings[cell_id]) for place, cell_id in cells["cell_id"].items()}
    told, rows = cells.to_dict("index"), []
    for a, b in asked:
        for name in compare.RATIOS:
            row = compare.ratio(BY_NAME[name], told[a], told[b], timed[a], timed[b])
            if row is not None:
                rows.append({"place_a": a, "place_b": b, **row})
    return pd.DataFrame(
        rows, columns=["place_a", "place_b", "measure", "a", "b", "difference", "low", "high", "n", "paired"]
    )


# --------------------------------------------------------------------------------------------------------------- levels


@dataclass(frozen=True)
class Level:
    """Two values of an axis over all cells that share the rest: judged rows, a title a pair, and what it says."""

    axis: str
    a: str
    b: str
    rows: pd.DataFrame
    titles: list[str]
    said: list[str]


def levels(known: Evidence, axes: Sequence[str]) -> list[Level]:
    """As `python reports/compare.py axis=a axis=b`, for every two of an axis's values where they are few."""
    found, left = [], COMPARED
    measured = {column.name for column in (*schema.QUALITY, *schema.COST)}
    cells = known.good[[name for name in known.good if name not in measured]]
    for axis in axes:
        values = list(dict.fromkeys(cells[axis].dropna().sort_values()))
        if not 2 <= len(values) < LEVELS:
            continue
        for a, b in combinations(values, 2):
            try:
                matched = matching.match(cells, f"{axis}={_typed(a)}", f"{axis}={_typed(b)}")
            except InputError:
                continue
            left -= len(matched.pairs) * len(known.measures)
            if left < 0:
                known.notes.append("not all levels of all axes are compared in this file: python reports/compare.py")
                return found
            rows = uncorrected(known, matched.pairs)
            if rows.empty:
                continue
            place = {pair: k for k, pair in enumerate(matched.pairs)}
            rows["pair"] = [place[pair] for pair in zip(rows["place_a"], rows["place_b"], strict=True)]
            rows = compare.judged(rows)
            found.append(Level(axis, _typed(a), _typed(b), rows, matched.titles, compare.said(matched, rows)))
    return found


def _typed(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
