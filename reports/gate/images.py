"""The images that both sides have, as flat arrays sorted by pair and image number. No Python runs per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.store.parquet_files import joined
from harness.store.records import Store
from harness.store.sketch import PROJECTIONS, squared_error
from reports.gate.pairs import Pairs

NAMES = ("image_index", "prompt", "image_sha256", "image_sketch")


@dataclass(frozen=True)
class Side:
    """One side's images: `pair` (N,) numbers rows of Pairs.cells; rows are sorted by (pair, image number)."""

    table: pa.Table
    order: np.ndarray  # rows of the table that belong to a pair, sorted, one an image
    key: np.ndarray  # pair << 32 | image number, of those rows

    def floats(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Column `name` at `rows` (positions in `order`); NaN where null."""
        column = pc.cast(self.table[name], pa.float64()).to_numpy()
        return column[self.order[rows]]


class PairedImages:
    """Images of `pairs` that both folders have a row of, with the same prompt."""

    def __init__(self, pairs: Pairs, baseline: Path, candidate: Path, metrics: Sequence[str]) -> None:
        both = pairs.both()
        same_data = both["data_fingerprint_b"] == both["data_fingerprint_c"]
        cells = both[same_data]
        self.cells = pairs.cells
        columns = ["cell_id", *NAMES, *metrics]
        self.sides = [
            _side(folder, cells[f"cell_id_{side}"], columns) for folder, side in ((baseline, "b"), (candidate, "c"))
        ]
        left, right = self.sides
        shared, self.left, self.right = np.intersect1d(left.key, right.key, assume_unique=True, return_indices=True)
        self.pair = shared >> 32
        other = self._other_prompts()
        self._counts = np.bincount(self.pair, minlength=len(pairs.cells))
        # One prompt that differs means that the pairs are none: the whole cell is left out, and said.
        bad = np.bincount(self.pair[other], minlength=len(pairs.cells)) > 0
        self._bad_prompts = bad
        keep = ~bad[self.pair]
        self.left, self.right, self.pair = self.left[keep], self.right[keep], self.pair[keep]
        self._same_data = same_data.reindex(pairs.cells.index, fill_value=False)

    @cached_property
    def pairable(self) -> pd.Series:
        """Which pairs have images to compare."""
        usable = (self._counts > 0) & ~self._bad_prompts
        return pd.Series(usable, self.cells.index)

    def why(self, cells: pd.DataFrame) -> list[str]:
        """Why a pair has nothing to compare, where it has not."""
        reasons = np.select(
            [~self._same_data.to_numpy(), self._bad_prompts, self._counts == 0],
            ["other data", "the prompts differ", "they share no image"],
            "other bytes, and no sketches to say how far apart; quality decides",
        )
        return list(reasons[cells.index])

    def golden(self) -> pd.DataFrame:
        """By pair: mean and largest squared error, share of equal bytes, n; null where nothing tells how far apart."""
        known = [_filled(side.table["image_sketch"])[side.order] for side in self.sides]
        error = np.full(len(self.pair), np.nan)
        left, right = self.sides
        codes = _codes(left.table["image_sha256"], right.table["image_sha256"])
        a, b = codes[0][left.order][self.left], codes[1][right.order][self.right]
        hashed = (a >= 0) & (b >= 0)
        sketched = known[0][self.left] & known[1][self.right]
        one, two = (_sketches(side) for side in self.sides)
        error[sketched] = squared_error(one[self.left[sketched]], two[self.right[sketched]])
        alone = hashed & ~sketched
        error[alone] = np.where(a[alone] == b[alone], 0.0, np.nan)  # other bytes: how far apart is not known
        equal = np.where(hashed, a == b, error == 0)
        pair = self.pair
        size = len(self.cells)
        n = np.bincount(pair, minlength=size)
        worst = np.full(size, np.nan)
        if len(pair):
            starts = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
            worst[pair[starts]] = np.maximum.reduceat(error, starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(pair, error, size) / n
            share = np.bincount(pair, equal, size) / n
        return pd.DataFrame({"mse": mean, "worst": worst, "equal": share, "n": n}, index=self.cells.index)

    def values(self, metric: str) -> Blocks:
        """The metric on both sides, as matrices of cells with equally many images."""
        a, b = (side.floats(metric, rows) for side, rows in zip(self.sides, (self.left, self.right), strict=True))
        measured = [np.bincount(self.pair[~np.isnan(x)], minlength=len(self.cells)) for x in (a, b)]
        keep = ~(np.isnan(a) | np.isnan(b))
        return Blocks(self.pair[keep], a[keep], b[keep], *measured)

    def _other_prompts(self) -> np.ndarray:
        a, b = _codes(*(side.table["prompt"] for side in self.sides))
        return a[self.sides[0].order][self.left] != b[self.sides[1].order][self.right]


@dataclass(frozen=True)
class Blocks:
    """One metric of all pairs, flat and sorted by pair; how many images each side measured (pairs,)."""

    pair: np.ndarray
    baseline: np.ndarray
    candidate: np.ndarray
    measured_b: np.ndarray
    measured_c: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(pairs (k,), baseline (n, k), candidate (n, k)) for every number n of images that a pair has."""
        if not len(self.pair):
            return
        starts = np.flatnonzero(np.r_[True, self.pair[1:] != self.pair[:-1]])
        counts = np.diff(np.r_[starts, len(self.pair)])
        for n in np.unique(counts):
            chosen = starts[counts == n]
            rows = np.arange(n)[:, None] + chosen
            yield self.pair[chosen], self.baseline[rows], self.candidate[rows]


def _side(folder: Path, ids: pd.Series, columns: list[str]) -> Side:
    store = Store(folder)
    table = joined("images", store.tables("images", columns, list(ids)), columns).combine_chunks()
    encoded = _whole(table["cell_id"]).dictionary_encode()
    number = pd.Index(ids).get_indexer(encoded.dictionary.to_pylist())  # row of `ids`; −1: not asked for
    pair_of = np.append(ids.index.to_numpy(), -1)[number]
    pair = pair_of[encoded.indices.to_numpy(zero_copy_only=False)]
    index = table["image_index"].to_numpy()
    key = (pair.astype(np.int64) << 32) | index.astype(np.int64)
    order = np.flatnonzero(pair >= 0)
    if (np.diff(key[order]) <= 0).any():
        order = order[np.argsort(key[order], kind="stable")]
        last = np.r_[key[order][1:] != key[order][:-1], True][: len(order)]
        order = order[last]
    return Side(table, order, key[order])


def _codes(a: pa.ChunkedArray, b: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Texts of two columns as numbers, equal where the texts are; −1 for null."""
    both = _whole(pa.chunked_array([*a.chunks, *b.chunks], pa.string()))
    codes = both.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes[: len(a)], codes[len(a) :]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    """Which rows hold a sketch of the length we know."""
    return pc.fill_null(pc.equal(pc.list_value_length(column), PROJECTIONS), False).to_numpy()


def _sketches(side: Side) -> np.ndarray:
    """(N, 8) float64 in the order of the side; zeros where there is none (see _filled)."""
    column = side.table["image_sketch"]
    filled = _filled(column)
    out = np.zeros((len(column), PROJECTIONS))
    out[filled] = pc.list_flatten(column.filter(pa.array(filled))).to_numpy().reshape(-1, PROJECTIONS)
    return out[side.order]
