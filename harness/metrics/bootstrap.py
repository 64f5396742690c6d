"""A metric's columns: value, 95 % interval (harness/statistics.py), n. A seed draws the same images in every cell."""

from __future__ import annotations

import numpy as np

from harness.statistics import LEVEL, mean_interval


def bounds(draws: np.ndarray, value: float) -> tuple[float, float]:
    """Percentile interval of the resampled values, widened to hold the value itself."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), value), max(float(high), value)


def measured(name: str, values: np.ndarray, resamples: int, seed: int) -> dict[str, float | None]:
    """Columns of a mean over images: value, interval, n. NaN is "does not apply to this image"."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": None}
    low, high = mean_interval(values, resamples, seed)
    return {
        name: float(values.mean()),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_n": len(values),
    }


def columns(*names: str) -> tuple[str, ...]:
    """The columns that `measured` fills for each name."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high", "_n"))
