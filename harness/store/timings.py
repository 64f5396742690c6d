"""Reading raw timings: ratios of cells that were timed in the same rounds, and blocks that drifted. Imports no torch.

Cells of one loaded model are timed in rounds: each cell once a round, in random order within it. What slows the machine
for a while slows all cells of a round, so their ratios are known far better than their latencies. A `block` is one
such sitting; rounds of different blocks have nothing in common and are never paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.statistics import LEVEL

if TYPE_CHECKING:
    import pandas as pd

TRIM = 0.2  # share of the log ratios left out at either end, because bursts of other programs hit single runs
LEAST_ROUNDS = 5  # a ratio's interval needs as many; fewer say nothing of their scatter
DRIFT_SIZE = 1.2  # slowest over fastest third of a block from which on it may have drifted
DRIFT_P = 0.05
DRIFT_ROUNDS = 6  # fewer have no order to speak of


@dataclass(frozen=True)
class Ratio:
    """How many times as long b takes as a. `low` and `high` bound a 95 % interval; `rounds` are behind it."""

    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low > 1 or self.high < 1


def paired_ratio(
    timings_a: pd.DataFrame | pd.Series, timings_b: pd.DataFrame | pd.Series, level: float = LEVEL
) -> Ratio | None:
    """Time of b over time of a, from the rows that two cells have in the table `timings` (block, round, total_s).

    Either may be what `by_round` makes of the rows: who asks for many pairs arranges each cell's once.
    None where fewer than 5 rounds have both: timed apart, or by a version that timed cells one after the other.
    """
    a, b = paired_seconds(timings_a, timings_b)
    return None if len(a) < LEAST_ROUNDS else ratio_of(a, b, level)


def paired_seconds(
    timings_a: pd.DataFrame | pd.Series, timings_b: pd.DataFrame | pd.Series
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of both cells, (n,) each, over the rounds that both have."""
    a, b = map(_arranged, (timings_a, timings_b))
    if a.index.equals(b.index):
        return a.to_numpy(float), b.to_numpy(float)
    both = a.index.intersection(b.index)
    return a.loc[both].to_numpy(float), b.loc[both].to_numpy(float)


def _arranged(rows: pd.DataFrame | pd.Series) -> pd.Series:
    return by_round(rows) if rows.ndim == 2 else rows  # pyright: ignore[reportArgumentType, reportReturnType]


def by_round(rows: pd.DataFrame) -> pd.Series:
    """Seconds by (block, round)."""
    rows = rows.reindex(columns=["block", "round", "kind", "total_s"])  # null where an older version wrote them
    timed = rows[(rows["kind"] == "timed") & rows["block"].notna() & rows["round"].notna()]
    return timed.groupby(["block", "round"])["total_s"].mean()  # pyright: ignore[reportReturnType]  (of one column)


def ratio_of(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> Ratio:
    """b over a from n ≥ 2 pairs of positive seconds, (n,) each.

    The ratio is the mean of the middle 60 % of the log ratios, and its interval that of Tukey and McLaughlin (1963),
    from the winsorised variance and Student's quantile. With bursts on single runs and a wandering load it covers with
    93 to 96 % from 5 rounds on, where resampling 5 to 8 rounds covers with 89 to 92 %, and it needs no seed.

    >>> found = ratio_of(np.array([1.0, 1.1, 0.9, 1.0, 1.2]), np.array([2.0, 2.2, 1.8, 2.1, 9.9]))  # one burst
    >>> round(found.ratio, 2), found.significant
    (2.03, True)
    """
    from scipy.special import stdtrit  # importing scipy.stats takes half a second

    logs = np.sort(np.log(np.asarray(b, np.float64)) - np.log(np.asarray(a, np.float64)))
    n, cut = len(logs), int(TRIM * len(logs))
    middle = logs[cut : n - cut].mean()
    spread = np.clip(logs, logs[cut], logs[n - cut - 1]).std(ddof=1)
    kept = n - 2 * cut
    half = stdtrit(kept - 1, (1 + level) / 2) * spread * np.sqrt(n) / kept
    ratio, low, high = np.exp([middle, middle - half, middle + half])
    return Ratio(float(ratio), float(low), float(high), n)


def drifted(seconds: np.ndarray, shuffles: int = 999) -> bool:
    """Whether the machine changed its pace during a block: seconds of its rounds in order, (n,) or (n, cells).

    This takes size and significance. Size: one third of the rounds is 1.2 times as slow as another. Significance: the
    running sum of the rounds' ranks reaches farther from 0 than in 95 % of random orders, as it does after a trend or
    a step.

    >>> drifted(np.linspace(1.0, 1.5, 12)), drifted(np.full(12, 1.0))
    (True, False)
    """
    logs = np.log(np.asarray(seconds, np.float64))
    level = logs.mean(1) if logs.ndim == 2 else logs
    if len(level) < DRIFT_ROUNDS:
        return False
    medians = [np.median(part) for part in np.array_split(level, 3)]
    if max(medians) - min(medians) < np.log(DRIFT_SIZE):
        return False
    ranks = np.argsort(np.argsort(level)) - (len(level) - 1) / 2
    orders = np.random.default_rng(0).permuted(np.tile(ranks, (shuffles, 1)), axis=1)
    reach = np.abs(np.cumsum(np.vstack([ranks, orders]), axis=1)).max(1)
    return bool((reach >= reach[0] - 1e-9).mean() < DRIFT_P)
