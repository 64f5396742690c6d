"""95 % intervals by resampling images. A seed draws the same images in every cell: differences are paired."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
CHUNK = 1 << 22  # numbers drawn at once


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of `resamples` draws with replacement from `values` (N,) or (N, k): (resamples,) or (resamples, k)."""
    rng, n, out = np.random.default_rng(seed), len(values), []
    rows = max(1, CHUNK // max(1, values.size))
    for first in range(0, resamples, rows):
        out.append(values[rng.integers(0, n, (min(rows, resamples - first), n))].mean(1))
    return np.concatenate(out)


def counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn in each resample, (resamples, n) float64."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)]).astype(np.float64)


def bounds(draws: np.ndarray, value: float) -> tuple[float, float]:
    """Percentile interval of the resampled values, widened to hold the value itself."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), value), max(float(high), value)


def measured(name: str, values: np.ndarray, resamples: int, seed: int) -> dict[str, float | None]:
    """Columns of a mean over images: value, interval, n. NaN is "does not apply to this image"."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": None}
    value = float(values.mean())
    low, high = bounds(resampled_means(values, resamples, seed), value)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": len(values)}


def columns(*names: str) -> tuple[str, ...]:
    """The columns that `measured` fills for each name."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high", "_n"))
