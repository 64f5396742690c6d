"""How far cells are apart that share prompts and noise: paired differences, with intervals and corrected p.

    images = read_images(Store("results"), cells, ["fid"])
    differences(cells, images, "fid")                    # to the best cell of each comparable group
    differences(cells, images, "fid", to=cell_id)        # to one cell: the converged run, say

gives a frame with a row a cell that has the metric, in the order and with the index of `cells`:

    cell_id, value      the cell and its metric
    group               number of its comparable group: same task, model, data, seed, strength, definition, ...
    to                  cell_id of the group's best (or of `to`): what the difference is to
    difference          value − that cell's value; 0 for that cell itself
    low, high           95 % interval of it, for this comparison alone; NaN where there is none
    n                   images that both have
    p                   two-sided, corrected (Holm) over all comparisons of the call
    tied                p ≥ 0.05: cannot be told from `to`; always so for `to` itself, for equal images and where the
                        interval holds 0
    effect              Cohen's d of the pairs: the mean of their differences over its standard deviation; NaN unpaired
    paired              whether rows of images stand behind it; else the two values' own intervals, which are far wider

What the images' values are. A mean (CLIP score, attributes, PSNR) has them. FID has its influence, whose mean moves as
FID does (harness/metrics/fid.py). A root mean square of relative errors e_i, v = √(mean e²), has
v/2·(1 + e_i²/mean e²): its mean is v, and to first order v moves with it.

Who is best was seen in the same images, so each comparison with it is one of all k(k−1)/2 pairs of its group, and
corrected for as many: of 24 cells that are all the same, the chance that any is called worse than the best is 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness import statistics
from harness.store.parquet_files import joined
from harness.store.records import Store
from harness.store.schema import with_defaults
from harness.verdict.measures import INFLUENCE, ROOT, Measure, bounds, measure, same

ALPHA = 0.05
BEST = "best"
BLOCK = 2048  # pairs whose images' differences are held at once
COLUMNS = ("cell_id", "value", "group", "to", "difference", "low", "high", "n", "p", "effect", "tied", "paired")


def read_images(store: Store, cells: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of images that `differences` needs for these metrics, of these cells alone; prompts as categories."""
    columns = [measure(name).images for name in metrics]
    wanted = ["cell_id", "image_index", "prompt", *dict.fromkeys(column for column in columns if column)]
    table = joined("images", store.tables("images", wanted, list(cells["cell_id"])), wanted)
    for name in ("cell_id", "prompt"):  # a million rows name a few thousand texts
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].combine_chunks().dictionary_encode())
    return table.to_pandas()


def read_cells(store: Store, cell_ids: Sequence[str]) -> pd.DataFrame:
    """The rows of the cells table of `cell_ids`, in that order, as far as they are recorded."""
    cells = with_defaults(joined("cells", store.tables("cells", None, cell_ids)).to_pandas())
    place = cells["cell_id"].map({cell_id: k for k, cell_id in enumerate(cell_ids)})
    return cells.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def differences(
    cells: pd.DataFrame, images: pd.DataFrame | Images | None, metric: str, to: str = BEST, free: Sequence[str] = ()
) -> pd.DataFrame:
    """See the module's docstring. Cells that are not ok, or without the metric, have no row.

    `images`: rows of `read_images`, or the metric's `Images` of these cells and perhaps of more. `free`: columns that
    may differ within a group although they stand in measures.GROUP.
    """
    what = measure(metric)
    chosen = cells[(cells["status"] == "ok") & cells[what.column].notna()]
    found = pd.DataFrame(index=chosen.index, columns=list(COLUMNS), dtype=object)
    found["cell_id"], found["value"] = chosen["cell_id"], chosen[what.column].astype(float)
    found["group"] = groups_of(chosen, what, free)
    found["to"] = _anchors(found, what, to)
    values = images if isinstance(images, Images) else Images(chosen, images, what)
    family: list[tuple[np.ndarray, int]] = []  # rows of one group, and how many comparisons they stand for
    for _, rows in found.groupby("group", sort=True):
        if rows["to"].isna().any():
            continue
        anchor = rows["to"].iloc[0]
        part = to_one(rows, values, anchor)
        found.loc[rows.index, part.columns] = part
        others = rows.index[rows["cell_id"] != anchor]
        k = len(rows)
        family.append((others, k * (k - 1) // 2 if to == BEST else k - 1))
    found["p"] = _corrected(found["p"].astype(float), family)
    for column in ("difference", "low", "high", "n", "effect"):
        found[column] = found[column].astype(float)
    found["paired"] = found["paired"].fillna(False).astype(bool)
    known = found["difference"].notna()
    found["tied"] = known & ~(found["p"] < ALPHA)
    return found


def ties(cells: pd.DataFrame, values: Images, metric: str) -> pd.DataFrame:
    """Of `differences` to the best the columns cell_id, value, group, to and tied alone: the same answers, but with an
    interval only where one can change them.
    """
    what = measure(metric)
    chosen = cells[(cells["status"] == "ok") & cells[what.column].notna()]
    found = pd.DataFrame({"cell_id": chosen["cell_id"], "value": chosen[what.column].astype(float)})
    found["group"] = groups_of(chosen, what)
    found["to"] = _anchors(found, what, BEST)
    itself = (found["cell_id"] == found["to"]).to_numpy()
    size = found["group"].value_counts().to_numpy()
    count, asked = int(np.maximum(size * (size - 1) // 2, size - 1).sum()), int((~itself).sum())
    p = np.ones(len(found))
    if asked:
        others, anchors = (values.places(found.loc[~itself, name]) for name in ("cell_id", "to"))
        # Holm multiplies no p of the asked by less than count − asked + 1: what is above is tied, whatever it is.
        p[~itself] = statistics.holm(p_below(values, anchors, others, ALPHA / (count - asked + 1)), count)
    return found.assign(tied=~(p < ALPHA))


def groups_of(cells: pd.DataFrame, what: Measure, free: Sequence[str] = ()) -> np.ndarray:
    """A number a cell: equal where values of `what` may be compared."""
    columns = [column for column in same(what) if column in cells and column not in free]
    together = np.zeros(len(cells), np.int64)
    for column in columns:
        codes, levels = pd.factorize(cells[column])
        if len(levels) > 1 or (codes < 0).any():  # most columns have one value, which tells nothing apart
            together = pd.factorize(together * (len(levels) + 1) + codes + 1)[0]
    return together


def _anchors(found: pd.DataFrame, what: Measure, to: str) -> pd.Series:
    """What each cell is compared with: null where its group does not hold `to`."""
    if to != BEST:
        home = found.loc[found["cell_id"] == to, "group"]
        return pd.Series(np.where(found["group"].isin(home), to, None), found.index, dtype=object)
    ranked = found.sort_values("value", ascending=not what.higher_is_better, kind="stable")
    best = ranked.drop_duplicates("group").set_index("group")["cell_id"]
    return found["group"].map(best)


class Images:
    """One metric of cells and of their images: `values` (images, cells), NaN where a cell has no such image."""

    def __init__(self, cells: pd.DataFrame, images: pd.DataFrame | None, what: Measure) -> None:
        self.of = cells.set_index("cell_id")[what.column].astype(float)
        self.half = np.full(len(self.of), np.nan)  # half the width of the values' own intervals
        low, high = bounds(what.column)
        if low in cells:
            self.half = (cells[high].astype(float) - cells[low].astype(float)).to_numpy() / 2
        self._places = {cell_id: k for k, cell_id in enumerate(self.of.index)}
        self.values = np.full((0, len(cells)), np.nan)
        self.prompts = np.zeros((0, len(cells)), np.int64)
        if images is not None and what.images is not None and what.images in images:
            self._fill(images, what)
        have = ~np.isnan(self.values)
        # Cells with a number in common have images of the same prompts, and none is missing in one of them alone.
        told = np.concatenate([have, np.where(have, self.prompts, 0)]).T
        self._alike = pd.factorize(pd.Series([row.tobytes() for row in told], dtype=object))[0]

    def _fill(self, images: pd.DataFrame, what: Measure) -> None:
        given = images[what.images].to_numpy(float)
        column = self.of.index.get_indexer(images["cell_id"])
        known = (column >= 0) & ~np.isnan(given)
        numbers, row = np.unique(images["image_index"].to_numpy()[known], return_inverse=True)
        self.values = np.full((len(numbers), len(self.of)), np.nan)
        self.prompts = np.zeros(self.values.shape, np.int64)
        self.values[row, column[known]] = given[known]
        if "prompt" in images:
            self.prompts[row, column[known]] = pd.factorize(images["prompt"])[0][known]
        if what.kind == INFLUENCE:
            self.values += self.of.to_numpy()
        elif what.kind == ROOT:
            square = self.values**2
            count = np.maximum((~np.isnan(square)).sum(0), 1)
            mean = np.nansum(square, 0) / count  # 0 where there is no error at all: v is 0 then, and so is the product
            self.values = (1 + square / np.where(mean > 0, mean, 1)) * (self.of.to_numpy() / 2)

    def places(self, cell_ids: Sequence[str] | pd.Series) -> np.ndarray:
        """The columns of these cells."""
        return np.array([self._places[cell_id] for cell_id in cell_ids], np.int64)

    def against(self, first: np.ndarray, rest: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """The cells of columns `rest` minus those of columns `first`, pair by pair: (which pairs, (images, pairs)),
        those with the same images at once; None: no image is in both.
        """
        for which, rows in self._together(first, rest):
            if rows is None:
                yield which, None
                continue
            for begin in range(0, len(which), BLOCK):
                some = which[begin : begin + BLOCK]
                yield some, self.values[np.ix_(rows, rest[some])] - self.values[np.ix_(rows, first[some])]

    def _together(self, first: np.ndarray, rest: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """(Which pairs, the rows of the images that both of each have); None: of those no image is in both."""
        kind = self._alike[rest]
        alike = kind == self._alike[first]
        for one in np.unique(kind[alike]):
            which = np.flatnonzero(alike & (kind == one))
            rows = np.flatnonzero(~np.isnan(self.values[:, rest[which[0]]]))
            yield which, rows if len(rows) else None
        unlike = np.flatnonzero(~alike)
        if not len(unlike):
            return
        both = ~np.isnan(self.values[:, rest[unlike]]) & ~np.isnan(self.values[:, first[unlike]])
        same = (self.prompts[:, rest[unlike]] == self.prompts[:, first[unlike]]) | ~both
        usable = both.any(0) & same.all(0)
        if (~usable).any():
            yield unlike[~usable], None
        masks: dict[bytes, list[int]] = {}
        for k in np.flatnonzero(usable):
            masks.setdefault(both[:, k].tobytes(), []).append(k)
        for key, chosen in masks.items():
            yield unlike[chosen], np.flatnonzero(np.frombuffer(key, bool))


@dataclass
class Compared:
    """Cells against one, an array each (k,): see the module's docstring; p is not corrected."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    p: np.ndarray
    effect: np.ndarray
    paired: np.ndarray


def compared(values: Images, anchors: int | np.ndarray, others: np.ndarray) -> Compared:
    """The cells of columns `others` (k,) of `values` against those of columns `anchors`, (k,) or one for all.

    Arrays and no frames: the page of a sweep asks for thousands of comparisons.
    """
    k, own = len(others), values.of.to_numpy()
    anchors = np.broadcast_to(anchors, others.shape)
    out = Compared(
        difference=own[others] - own[anchors], low=np.full(k, np.nan), high=np.full(k, np.nan),
        n=np.zeros(k), p=np.ones(k), effect=np.full(k, np.nan), paired=np.zeros(k, bool),
    )  # fmt: skip
    for which, found in values.against(anchors, others):
        if found is None:
            _unpaired(out, which, np.hypot(values.half[anchors[which]], values.half[others[which]]))
            continue
        result = statistics.paired_differences(found)
        out.n[which], out.paired[which] = float(result.n), True
        for name in ("difference", "low", "high", "p", "effect"):
            getattr(out, name)[which] = getattr(result, name)
        if result.n < 2:  # one image has no spread to judge by
            out.low[which] = out.high[which] = np.nan
    holds_0 = (out.low <= 0) & (out.high >= 0)
    out.p[holds_0] = out.p[holds_0].clip(min=1 - statistics.LEVEL)
    itself = others == anchors
    out.difference[itself] = out.low[itself] = out.high[itself] = 0.0
    out.p[itself] = 1.0
    return out


def p_below(values: Images, anchors: np.ndarray, others: np.ndarray, level: float) -> np.ndarray:
    """The p of `compared` as far as it is below `level` ≤ 0.05; where it is not, some p that is not either.

    An interval is looked at only where the images' p is below, as nothing else can lift it; and of that only whether it
    holds 0.
    """
    p = np.ones(len(others))
    for which, found in values.against(anchors, others):
        if found is None:
            p[which] = compared(values, anchors[which], others[which]).p
            continue
        p[which] = statistics.sign_flip_p(found)
        low = np.flatnonzero(p[which] < level)
        p[which[low[statistics.holds_0(found[:, low])]]] = 1 - statistics.LEVEL
    p[others == anchors] = 1.0
    return p


def to_one(rows: pd.DataFrame, values: Images, anchor: str) -> pd.DataFrame:
    """`compared`, of cells of one group to the cell `anchor`: a frame with the index of `rows` (a column cell_id)."""
    found = compared(values, values.places([anchor]), values.places(rows["cell_id"]))
    return pd.DataFrame(vars(found), index=rows.index)


def _unpaired(out: Compared, which: np.ndarray, half: np.ndarray) -> None:
    """From the values' own intervals, as if the cells shared nothing; nothing where one has none (`half` is NaN)."""
    from scipy.special import ndtr, ndtri

    known, half = which[np.isfinite(half)], half[np.isfinite(half)]
    difference = out.difference[known]
    out.low[known], out.high[known] = difference - half, difference + half
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * ndtr(np.abs(difference) / half * ndtri(ALPHA / 2))
    out.p[known] = np.where(half > 0, p, difference == 0)


def _corrected(p: pd.Series, family: Sequence[tuple[pd.Index, int]]) -> pd.Series:
    """Holm over all rows of the family; the pairs that were not asked count as comparisons with p = 1."""
    asked = [place for rows, _ in family for place in rows]
    count = sum(max(comparisons, len(rows)) for rows, comparisons in family)
    out = p.copy()
    out.loc[asked] = statistics.holm(p.loc[asked].to_numpy(float), count)
    return out
