"""Intervals, paired comparisons and their p-values: numpy and scipy alone, so that metrics and reports share them.

Everything is vectorised over columns: `values` is (n,) for one question or (n, k) for k questions about n images each.
A seed draws the same images for every column, so what is paired stays paired. Results do not depend on the order of
the columns, nor on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# scipy is asked for where it is used, and of it scipy.special, where that has the function: scipy.stats takes half a
# second and more to import. The parent of a sweep reads the metrics' names through this module, and shows differences.
LEVEL = 0.95
RESAMPLES = 1000
CHUNK = 1 << 18  # numbers held at once: what goes over them again finds them in a core's cache
SOLVED = 1 << 16  # the same where dozens of rounds go over them
MARGIN = 1e-3  # by which single precision must be sure, and is off by a hundredth
DEGENERATE = 1e-3  # a resample whose spread is below this share of the sample's says nothing about its mean's error
EXACT = 12  # differences other than 0 up to which all 2^m signs are tried


@lru_cache(maxsize=8)
def resample_counts(n: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each of n images is drawn in each resample, (resamples, n) float64, not to be written to."""
    rng, out = np.random.default_rng(seed), np.empty((resamples, n))
    for row in out:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    out.flags.writeable = False
    return out


@lru_cache(maxsize=2)
def _shares(n: int, resamples: int, seed: int, kind: type = np.float64) -> np.ndarray:
    """Which share of each resample each of n images is, (n, resamples)."""
    return np.ascontiguousarray(resample_counts(n, resamples, seed).T / n, kind)


def mean_interval(
    values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL, differences: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (low, high) of the mean of finite `values` (n,) or (n, k): scalars or (k,).

    Which interval depends on the values:

    * 0 and 1: Wilson's.
    * Differences of 0 and 1 (`differences=True`, values −1, 0 and 1): that of Agresti and Min (2005).
    * Everything else: the studentised bootstrap (Efron and Tibshirani 1993, ch. 12), which unlike percentiles keeps its
      level at 16 skewed values; Student's t where too many resamples are constant.
    * Other differences (`differences=True`): the wider of those two at either end. A measure that differs in a few
      images only has heavy tails, under which the bootstrap alone covers with 90 to 93 %; so does Student's alone where
      the differences are skewed.
    * Equal values that are not shares have no spread to judge by: both bounds are the value.
    * One value says nothing about its error: the bounds are NaN, which records keep as null and reports show as "–".

    >>> low, high = mean_interval(np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1]))  # 8 of 10
    >>> round(float(low), 3), round(float(high), 3)
    (0.49, 0.943)
    """
    x = np.asarray(values, np.float64)
    columns = x[:, None] if x.ndim == 1 else x
    mean = np.clip(columns.mean(0), columns.min(0), columns.max(0))  # of equal values it is exactly the value
    low, high = (mean.copy(), mean.copy()) if len(columns) > 1 else np.full((2, columns.shape[1]), np.nan)
    if len(columns) > 1:
        spread = (columns != columns[0]).any(0)
        if differences:  # all 0: nothing changed, and that is certain
            share = (np.abs(columns) * (np.abs(columns) - 1) == 0).all(0) & spread
        else:
            share = (columns * (columns - 1) == 0).all(0)
        for chosen, bounds in (
            (share, _agresti_min if differences else _wilson),
            (spread & ~share, lambda c, level: _studentised(c, level, resamples, seed, at_least_student=differences)),
        ):
            if chosen.any():
                low[chosen], high[chosen] = bounds(columns[:, chosen], level)
    return (low[0], high[0]) if x.ndim == 1 else (low, high)


def holds_0(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> np.ndarray:
    """Whether the interval of `mean_interval(differences, differences=True)` holds 0, of (n, k) finite values: (k,).

    The same answer as the interval's own ends give, for a third of the work: of the resamples it is only asked how many
    lie beyond 0, in single precision with a margin, and what that does not decide is asked of the interval.

    >>> holds_0(np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 0.5], [2.5, 0.25]]))
    array([False,  True])
    """
    d = np.asarray(differences, np.float64)
    n, k = d.shape
    out, open_ = np.zeros(k, bool), np.zeros(k, bool)
    step = max(1, CHUNK // max(resamples, n))
    for first in range(0, k if n > 1 else 0, step):  # one value has no interval
        part = slice(first, first + step)
        out[part], open_[part] = _beyond_0(d[:, part], resamples, seed, level)
    if open_.any():
        low, high = mean_interval(d[:, open_], resamples, seed, level, differences=True)
        out[open_] = (low <= 0) & (high >= 0)
    return out


def _beyond_0(d: np.ndarray, resamples: int, seed: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(k,) whether the studentised interval holds 0, and where that is not sure."""
    from scipy.special import stdtrit

    n, mean = len(d), d.mean(0)
    centred = (d - mean) * np.where(mean < 0, -1, 1)
    spread = np.sqrt((centred**2).mean(0))
    shares = (np.abs(d) * (np.abs(d) - 1) == 0).all(0)  # -1, 0 and 1 have an interval of their own
    sure = (mean != 0) & (spread > 0) & ~shares
    spread = np.where(sure, spread, 1.0)
    far = np.where(sure, np.abs(mean) / spread, 1.0)  # from 0, in units of the spread
    centred /= spread
    # t of a resample is moved/√(square − moved²). At 974.025 of 0 … 999 it is below `far` where 24 or fewer are not.
    weights = _shares(n, resamples, seed, np.float32)
    moved = centred.astype(np.float32).T @ weights
    square = (centred**2).astype(np.float32).T @ weights
    reach = ((1 + 1 / far**2) * (1 + MARGIN)).astype(np.float32)[:, None]
    beyond = ((moved > 0) & (moved * moved * reach >= square)) | (square < MARGIN)  # of so little nothing is sure
    few = beyond.sum(1) <= resamples - 1 - int(np.ceil((resamples - 1) * (1 + level) / 2))
    student = float(stdtrit(n - 1, (1 + level) / 2)) / np.sqrt(n - 1)
    inside = far < student * (1 - MARGIN)
    outside = few & (far > student * (1 + MARGIN))
    return inside & sure, ~(sure & (inside | outside))


def _wilson(x: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    n, p, z = len(x), x.mean(0), _normal(level)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.clip(middle - half, 0, p), np.clip(middle + half, p, 1)


def _agresti_min(x: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Wald's interval of a difference of paired shares after half an observation more in each of the four cells."""
    n, up, down = len(x) + 2, (x > 0).sum(0) + 0.5, (x < 0).sum(0) + 0.5
    middle = (up - down) / n
    half = _normal(level) * np.sqrt(((up + down) / n - middle**2) / n)
    mean = x.mean(0)
    return np.minimum(middle - half, mean), np.maximum(middle + half, mean)


def _normal(level: float) -> float:
    """1.96 for 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _studentised(
    x: np.ndarray, level: float, resamples: int, seed: int, at_least_student: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.special import stdtrit

    n, k = x.shape
    shares = _shares(n, resamples, seed)
    low, high = np.empty(k), np.empty(k)
    step = max(1, CHUNK // max(resamples, n))
    for first in range(0, k, step):
        part = slice(first, first + step)
        mean = x[:, part].mean(0)
        centred = x[:, part] - mean
        spread = np.sqrt((centred**2).mean(0))
        centred /= spread
        t = centred.T @ shares  # (columns, resamples): the resamples' means, in units of the spread
        own = (centred**2).T @ shares
        own -= t**2
        np.sqrt(own.clip(0, out=own), out=own)
        idle = own < DEGENERATE
        own[idle] = np.inf  # their t is 0
        t /= own
        t.sort(axis=1)
        at = (resamples - 1) * np.array([(1 + level) / 2, (1 - level) / 2])
        upper, lower = (_at(t, place) for place in at)
        # Student's quantile, for resamples that divide by n where the sample's own spread does too.
        student = float(stdtrit(n - 1, (1 + level) / 2)) / np.sqrt(n - 1)
        poor = idle.mean(1) > 0.001
        upper, lower = np.where(poor, student, upper), np.where(poor, -student, lower)
        if at_least_student:
            upper, lower = np.maximum(upper, student), np.minimum(lower, -student)
        low[part] = mean - np.maximum(upper, 0) * spread
        high[part] = mean - np.minimum(lower, 0) * spread
    return low, high


def _at(rows: np.ndarray, place: float) -> np.ndarray:
    """Between two of each row's sorted values, as numpy's quantile has it."""
    below = int(place)
    above = min(below + 1, rows.shape[1] - 1)
    return rows[:, below] + (place - below) * (rows[:, above] - rows[:, below])


def median_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Bounds of the median of (n,) independent values, from their order alone (Hettmansperger and Sheather 1986).

    For n ≥ 6 they are exact to a fraction of a percent, whatever the distribution. Below that they are the smallest and
    the largest value, which cover with 1 − 2^(1−n): 94 % of 5 values, 88 % of 4. Resampling a handful of values would
    pretend to know more.

    >>> median_interval(np.array([3.0, 1.0, 2.0]))
    (1.0, 3.0)
    """
    from scipy import stats

    x, n = np.sort(np.asarray(values, np.float64)), len(values)
    depth = int(stats.binom.ppf((1 - level) / 2, n, 0.5))  # how many values may lie outside on either side
    covers = 1 - 2 * stats.binom.cdf(depth - 1, n, 0.5)  # what x[depth-1] .. x[n-depth] covers with
    if depth < 1:
        return float(x[0]), float(x[-1])
    inner = 1 - 2 * stats.binom.cdf(depth, n, 0.5)
    if n - 2 * depth < 1:
        return float(x[depth - 1]), float(x[n - depth])
    share = (covers - level) / (covers - inner)
    weight = (n - depth) * share / (depth + (n - 2 * depth) * share)
    low = (1 - weight) * x[depth - 1] + weight * x[depth]
    high = (1 - weight) * x[n - depth] + weight * x[n - depth - 1]
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Candidate minus baseline over n pairs; every field is a scalar, or (k,) for k columns.

    One pair has no spread: its interval and its effect are NaN.
    """

    n: int
    difference: np.ndarray  # mean
    low: np.ndarray
    high: np.ndarray
    effect: np.ndarray  # Cohen's d of pairs: mean over standard deviation of the differences
    superiority: np.ndarray  # share of pairs in which the candidate is the larger, ties as halves
    p: np.ndarray  # two-sided, sign-flip


def paired(
    baseline: np.ndarray,
    candidate: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    ask_p: np.ndarray | None = None,
) -> Paired:
    """Compare finite values (n,) or (n, k) of the same n images in two cells.

    `ask_p` (k,) names the columns whose p is wanted; the others get 1, which a correction for many comparisons takes as
    the cautious answer.

    >>> found = paired(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.1, 2.2, 3.2, 4.1, 5.4]))
    >>> float(found.difference.round(3)), float(found.p)  # all five are larger: 2 of 2^5 signings lie as far out
    (0.2, 0.0625)
    """
    if baseline.shape != candidate.shape or not len(baseline):
        raise ValueError(f"pairs are two arrays of one shape, got {baseline.shape} and {candidate.shape}")
    d = np.asarray(candidate, np.float64) - np.asarray(baseline, np.float64)
    return paired_differences(d, resamples, seed, ask_p)


def paired_differences(
    d: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, ask_p: np.ndarray | None = None
) -> Paired:
    """`paired`, of the differences candidate − baseline themselves, (n,) or (n, k)."""
    low, high = mean_interval(d, resamples, seed, differences=True)
    mean, n = d.mean(0), len(d)
    spread = d.std(0, ddof=1) if n > 1 else np.full_like(mean, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where((mean == 0) & (n > 1), 0.0, mean / spread)  # ± infinity where all pairs differ by the same
    superiority = (d > 0).mean(0) + 0.5 * (d == 0).mean(0)
    if ask_p is None:
        p = sign_flip_p(d)
    else:
        p = np.ones(d.shape[1])
        p[ask_p] = sign_flip_p(d[:, ask_p])
    return Paired(n, mean, low, high, effect, superiority, p)


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of the permutation test of pairs: which share of all 2^n signings has a sum as far from 0?

    The signings are counted where at most 12 differences are not 0 or where all have one size (McNemar's exact test).
    Elsewhere the share is the saddlepoint approximation of Lugannani and Rice (1980): right to a few percent however
    small it is (to a factor of two at its very end, a few signings from 2^(1−m)). Drawing signs instead would need
    millions of draws to stand a correction for many comparisons.

    >>> float(sign_flip_p(np.array([0.1, 0.2, 0.2, 0.1, 0.4])))
    0.0625
    """
    from scipy.special import bdtr

    d = np.asarray(differences, np.float64)
    columns = d[:, None] if d.ndim == 1 else d
    size = np.abs(columns)
    p, largest = np.ones(columns.shape[1]), size.max(0, initial=0)
    m = (size > 0).sum(0)
    equal = (m > 0) & ((size == 0) | (size >= largest * (1 - 1e-12))).all(0)
    few = (m > 0) & (m <= EXACT) & ~equal
    rest = (m > EXACT) & ~equal
    if equal.any():
        positive = (columns[:, equal] > 0).sum(0)
        fewer = np.minimum(positive, m[equal] - positive)
        p[equal] = np.minimum(1, 2 * bdtr(fewer, m[equal], 0.5))
    if few.any():
        p[few] = _all_signs(columns[:, few])
    step = max(1, SOLVED // len(columns))
    where = np.flatnonzero(rest)
    for first in range(0, len(where), step):
        some = where[first : first + step]
        p[some] = _saddlepoint(size[:, some] / largest[some], np.abs(columns[:, some].sum(0)) / largest[some], m[some])
    return p[0] if d.ndim == 1 else p


def _all_signs(columns: np.ndarray) -> np.ndarray:
    sizes = np.sort(np.abs(columns), axis=0)[::-1][:EXACT]  # zeros fall away
    signs = 1.0 - 2.0 * ((np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes))) & 1)
    out, step = np.empty(columns.shape[1]), max(1, CHUNK // len(signs))
    for first in range(0, len(out), step):
        part = slice(first, first + step)
        seen = np.abs(columns[:, part].sum(0))
        out[part] = (np.abs(signs @ sizes[:, part]) >= seen * (1 - 1e-9) - 1e-300).mean(0)
    return out


def _saddlepoint(size: np.ndarray, total: np.ndarray, m: np.ndarray) -> np.ndarray:
    """P(|Σ ±size| ≥ total) for sizes (n, k) up to 1: cumulants K(λ) = Σ log cosh(λ·size), K'(λ) = total."""
    from scipy.special import log_ndtr

    square = (size**2).sum(0)
    lam = total / square
    one_sided = total >= size.sum(0) * (1 - 1e-12)
    for _ in range(60):  # K' is concave: Newton climbs to the root from below and cannot overshoot
        bent = np.tanh(lam * size)
        slope = (size**2 * (1 - bent**2)).sum(0)
        step = (total - (size * bent).sum(0)) / np.maximum(slope, 1e-300)
        lam = np.where(one_sided, lam, lam + step)
        if (step <= 1e-10 * lam)[~one_sided].all():
            break
    x = lam * size
    cumulant = (x + np.log1p(np.exp(-2 * x)) - np.log(2)).sum(0)
    w = np.sqrt(2 * np.maximum(lam * total - cumulant, 0))
    u = lam * np.sqrt((size**2 * (1 - np.tanh(x) ** 2)).sum(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # In logarithms: 1 − Φ(w) + φ(w)(1/u − 1/w), both parts of one size, far out in the tail.
        log_density = -(w**2) / 2 - np.log(2 * np.pi) / 2
        mills = np.exp(log_ndtr(-w) - log_density)
        log_p = log_density + np.log(np.maximum(mills + 1 / u - 1 / w, 1e-300))
    p = np.where(w < 1e-2, 1.0, 2 * np.exp(log_p))
    least = 2.0 * np.exp2(-m.astype(np.float64))  # no signing is further out than all of one sign
    return np.where(one_sided, least, np.clip(p, least, 1.0))


def holm(p: np.ndarray, family: int | None = None) -> np.ndarray:
    """Adjusted p (m,): with alarms below α, the whole family has no false one with probability 1 − α (Holm 1979).

    `family` ≥ m: how many comparisons there are, where only m were made; the others count as if their p were 1.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    count = len(p) if family is None else family
    scaled = np.maximum.accumulate(p[order] * (count - np.arange(len(p))))
    out = np.empty_like(p)
    out[order] = np.minimum(scaled, 1)
    return out


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p (m,): with alarms below α, at most a share α of them is false on average (1995).

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.04, 0.04])
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")[::-1]
    scaled = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(scaled, 1)
    return out


CORRECTIONS = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}
