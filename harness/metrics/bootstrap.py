"""A metric's columns: value, 95 % interval (harness/statistics.py), n. A seed draws the same images in every cell."""

from __future__ import annotations

import numpy as np

from harness.statistics import LEVEL, mean_interval


def bounds(draws: np.ndarray, value: float) -> tuple[float, float]:
    """Percentile interval of the resampled values, widened to hold the value itself."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), value), max(float(high), value)


def around(value: float, moved: np.ndarray, resamples: int, seed: int) -> tuple[float | None, float | None]:
    """95 % interval of a value from its derivative in each image's weight, (n,).

    (None, None) where the images say nothing about its error: where there is only one, or where none of them moves it
    from a value other than 0.
    """
    if len(moved) < 2 or not (moved != moved[0]).any():
        return (0.0, 0.0) if len(moved) > 1 and value == 0 else (None, None)
    low, high = mean_interval(moved, resamples, seed)
    return float(value + low), float(value + high)


def at_least_0(low: float | None) -> float | None:
    """The lower bound of what cannot be negative."""
    return None if low is None else max(0.0, low)


def measured(name: str, values: np.ndarray, resamples: int, seed: int) -> dict[str, float | None]:
    """Columns of a mean over images: value, interval, n. NaN is "does not apply to this image".

    One image has a value and no interval (None): nothing says how far others would lie from it.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": None}
    low, high = mean_interval(values, resamples, seed) if len(values) > 1 else (None, None)
    return {
        name: float(values.mean()),
        f"{name}_low": None if low is None else float(low),
        f"{name}_high": None if high is None else float(high),
        f"{name}_n": len(values),
    }


def columns(*names: str) -> tuple[str, ...]:
    """The columns that `measured` fills for each name."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high", "_n"))
