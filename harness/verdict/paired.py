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
    tied                p ≥ 0.05: cannot be told from `to`; always so for `to` itself and for equal images
    paired              whether rows of images stand behind it; else the two values' own intervals, which are far wider

What the images' values are. A mean (CLIP score, attributes, PSNR) has them. FID has its influence, whose mean moves as
FID does (harness/metrics/fid.py). A root mean square of relative errors e_i, v = √(mean e²), has
v/2·(1 + e_i²/mean e²): its mean is v, and to first order v moves with it.

Who is best was seen in the same images, so each comparison with it is one of all k(k−1)/2 pairs of its group, and
corrected for as many: of 24 cells that are all the same, the chance that any is called worse than the best is 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from harness import statistics
from harness.store import Store
from harness.verdict.measures import INFLUENCE, ROOT, Measure, measure, same

ALPHA = 0.05
BEST = "best"
COLUMNS = ("cell_id", "value", "group", "to", "difference", "low", "high", "n", "p", "tied", "paired")


def read_images(store: Store, cells: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of images that `differences` needs for these metrics, of these cells alone."""
    columns = [measure(name).images for name in metrics]
    wanted = ["cell_id", "image_index", "prompt", *dict.fromkeys(column for column in columns if column)]
    return store.images(wanted, list(cells["cell_id"]))


def differences(cells: pd.DataFrame, images: pd.DataFrame | None, metric: str, to: str = BEST) -> pd.DataFrame:
    """See the module's docstring. Cells that are not ok, or without the metric, have no row."""
    what = measure(metric)
    chosen = cells[(cells["status"] == "ok") & cells[what.column].notna()]
    found = pd.DataFrame(index=chosen.index, columns=list(COLUMNS), dtype=object)
    found["cell_id"], found["value"] = chosen["cell_id"], chosen[what.column].astype(float)
    found["group"] = groups_of(chosen, what)
    found["to"] = _anchors(found, what, to)
    values = Images(chosen, images, what)
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
    for column in ("difference", "low", "high", "n"):
        found[column] = found[column].astype(float)
    found["paired"] = found["paired"].fillna(False).astype(bool)
    known = found["difference"].notna()
    found["tied"] = known & ~(found["p"] < ALPHA)
    return found


def groups_of(cells: pd.DataFrame, what: Measure) -> np.ndarray:
    """A number a cell: equal where values of `what` may be compared."""
    columns = [column for column in same(what) if column in cells]
    codes = [pd.factorize(cells[column].astype(object))[0] for column in columns]
    return pd.factorize(pd.Series(list(map(tuple, np.stack(codes, 1))), dtype=object))[0]


def _anchors(found: pd.DataFrame, what: Measure, to: str) -> pd.Series:
    """What each cell is compared with: null where its group does not hold `to`."""
    if to != BEST:
        home = found.loc[found["cell_id"] == to, "group"]
        return pd.Series(np.where(found["group"].isin(home), to, None), found.index, dtype=object)
    ranked = found.sort_values("value", ascending=not what.higher_is_better, kind="stable")
    best = ranked.drop_duplicates("group").set_index("group")["cell_id"]
    return found["group"].map(best)


class Images:
    """The images' values of one metric as columns, one a cell; NaN where a cell has no such image."""

    def __init__(self, cells: pd.DataFrame, images: pd.DataFrame | None, what: Measure) -> None:
        self.of = cells.set_index("cell_id")[what.column].astype(float)
        self.bounds: dict[str, float] = {}
        low, high = _bounds(what.column)
        if low in cells:
            width = (cells[high].astype(float) - cells[low].astype(float)).to_numpy() / 2
            self.bounds = dict(zip(cells["cell_id"], width, strict=True))
        self.values, self.prompts = pd.DataFrame(), pd.DataFrame()
        if images is None or what.images is None or what.images not in images:
            return
        rows = images[images[what.images].notna() & images["cell_id"].isin(set(cells["cell_id"]))]
        if rows.empty:
            return
        rows = rows.drop_duplicates(["cell_id", "image_index"], keep="last")
        told = rows.assign(code=pd.factorize(rows["prompt"])[0] if "prompt" in rows else 0)
        wide = told.pivot(index="image_index", columns="cell_id", values=[what.images, "code"])
        self.prompts = wide["code"].fillna(-1)
        self.values = _per_image(wide[what.images].astype(float), self.of, what.kind)

    def against(self, anchor: str, others: pd.Series) -> Iterator[tuple[list[object], statistics.Paired | None]]:
        """Others minus anchor: (labels of `others`, comparison), those with the same images at once; None: no pairs."""
        masks: dict[bytes | None, list[object]] = {}
        for place, cell_id in others.items():
            mask = self._shared(anchor, cell_id)
            masks.setdefault(None if mask is None else mask.tobytes(), []).append(place)
        for key, places in masks.items():
            if key is None:
                yield places, None
                continue
            mask = np.frombuffer(key, bool)
            candidate = self.values[others.loc[places].tolist()].to_numpy()[mask]
            baseline = np.repeat(self.values[anchor].to_numpy()[mask][:, None], len(places), 1)
            yield places, statistics.paired(baseline, candidate)

    def _shared(self, anchor: str, other: str) -> np.ndarray | None:
        """Which images both have, as a mask; None where they are no pairs."""
        if anchor not in self.values or other not in self.values:
            return None
        both = (self.values[anchor].notna() & self.values[other].notna()).to_numpy()
        a, b = self.prompts[anchor].to_numpy()[both], self.prompts[other].to_numpy()[both]
        return both if both.any() and (a == b).all() else None


def _per_image(values: pd.DataFrame, cell_values: pd.Series, kind: str) -> pd.DataFrame:
    """Values whose mean is the cell's value, or moves as it does."""
    of = cell_values.reindex(values.columns).astype(float)
    if kind == INFLUENCE:
        return values + of
    if kind == ROOT:
        square = values**2
        return (1 + square / square.mean().replace(0, 1)) * (of / 2)  # no error at all: v is 0 and so is the product
    return values


def _bounds(column: str) -> tuple[str, str]:
    stem = "latency" if column == "latency_s" else column
    return f"{stem}_low", f"{stem}_high"


def to_one(rows: pd.DataFrame, values: Images, anchor: str) -> pd.DataFrame:
    """Difference, interval, n, p (not corrected) and whether paired, of cells of one group to the cell `anchor`.

    `rows` has the columns cell_id and value.
    """
    own = values.of[anchor]
    out = pd.DataFrame({"difference": rows["value"] - own, "low": np.nan, "high": np.nan, "n": 0.0, "p": 1.0})
    out["paired"] = False
    for places, result in values.against(anchor, rows["cell_id"]):
        if result is None:
            for place in places:
                _unpaired(out, place, values.bounds.get(anchor), values.bounds.get(rows.loc[place, "cell_id"]))
            continue
        out.loc[places, "n"], out.loc[places, "paired"] = float(result.n), True
        for name in ("difference", "low", "high", "p"):
            out.loc[places, name] = getattr(result, name)
        if result.n < 2:  # one image has no spread to judge by
            out.loc[places, ["low", "high"]] = np.nan
    out.loc[rows["cell_id"] == anchor, ["difference", "low", "high", "p"]] = (0.0, 0.0, 0.0, 1.0)
    return out


def _unpaired(out: pd.DataFrame, place: object, one: float | None, two: float | None) -> None:
    """From the two values' own intervals, as if their cells shared nothing."""
    if one is None or two is None or not np.isfinite([one, two]).all():
        return
    half = float(np.hypot(one, two))
    difference = out.loc[place, "difference"]
    out.loc[place, "low"], out.loc[place, "high"] = difference - half, difference + half
    if half > 0:
        from scipy import stats

        out.loc[place, "p"] = 2 * stats.norm.sf(abs(difference) / half * stats.norm.isf(ALPHA / 2))
    else:
        out.loc[place, "p"] = float(difference == 0)


def _corrected(p: pd.Series, family: Sequence[tuple[pd.Index, int]]) -> pd.Series:
    """Holm over all rows of the family; the pairs that were not asked count as comparisons with p = 1."""
    asked = [place for rows, _ in family for place in rows]
    more = sum(count - len(rows) for rows, count in family)
    out = p.copy()
    out.loc[asked] = statistics.holm(np.r_[p.loc[asked].to_numpy(float), np.ones(more)])[: len(asked)]
    return out
