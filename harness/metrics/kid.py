"""KID (1801.01401): squared maximum mean discrepancy under a polynomial kernel, the unbiased estimate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.features.feature_metric import FeatureMetric
from harness.statistics import resample_counts

BLOCK = 1024  # rows of a kernel matrix held at once
FEWEST = 5  # the fewest images that have an interval: every other resample of 4 holds only one or two different ones


class KID(FeatureMetric):
    """All images against all reference images in one estimate, where others average over random subsets."""

    name = "kid"
    columns = bootstrap.columns("kid")
    moved: np.ndarray | None = None

    def compute(self) -> dict[str, float | str | bool | None]:
        reference = self.reference()
        if reference is None or len(self.samples) < 2:
            return self.nothing()
        x = self.samples.sorted()[1].astype(np.float64)
        y, degree = reference.features.astype(np.float64), self.options["degree"]
        if ("kid", degree) not in reference.once:
            reference.once["kid", degree] = within(y, degree)
        weights = self._weights(len(x))
        draws = mmd(x, y, degree, np.concatenate([np.ones((1, len(x))), weights]), reference.once["kid", degree])
        self.moved = influence(x, y, degree)
        low, high = bootstrap.bounds(draws[1:], float(draws[0])) if len(weights) else (None, None)
        return {"kid": float(draws[0]), "kid_low": low, "kid_high": high, "kid_n": len(x)}

    def _weights(self, n: int) -> np.ndarray:
        """How often each of n images counts in each resample that has a KID: one image over and over has no pair."""
        if n < FEWEST:
            return np.empty((0, n))
        drawn = resample_counts(n, self.options["resamples"], self.context.seed)
        return drawn[(drawn > 0).sum(1) > 1]

    def image_values(self) -> dict[str, np.ndarray]:
        return {} if self.moved is None else {"kid_influence": self.moved}


def influence(x: np.ndarray, y: np.ndarray, degree: int) -> np.ndarray:
    """Derivative of MMD² in each image's weight, (N,): its mean over resampled images moves as KID does.

    2 (k̄(x_i, other images) − k̄(x_i, reference)), less its mean.
    """
    near, cross = np.empty(len(x)), np.empty(len(x))
    for rows, kernel in _kernel_blocks(x, x, degree):
        kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
        near[rows] = kernel.sum(1) / (len(x) - 1)
    for rows, kernel in _kernel_blocks(x, y, degree):
        cross[rows] = kernel.mean(1)
    moved = 2 * (near - cross)
    return moved - moved.mean()


def mmd(x: np.ndarray, y: np.ndarray, degree: int, weights: np.ndarray, y_within: float) -> np.ndarray:
    """MMD² of x with each row of `weights` (B, len(x)) against y, (B,). A pair of an image with itself never counts."""
    squares, cross = np.zeros(len(weights)), np.empty(len(x))
    for rows, kernel in _kernel_blocks(x, x, degree):
        kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
        squares += np.einsum("bn,bn->b", weights[:, rows], weights @ kernel.T)
    for rows, kernel in _kernel_blocks(x, y, degree):
        cross[rows] = kernel.mean(1)
    n = len(x)
    return squares / (n * n - (weights**2).sum(1)) - 2 * weights @ cross / n + y_within


def within(y: np.ndarray, degree: int) -> float:
    """Mean of the kernel over pairs of different rows."""
    total = sum(kernel.sum() for _, kernel in _kernel_blocks(y, y, degree))
    diagonal = (((y**2).sum(1) / y.shape[1] + 1) ** degree).sum()
    return float((total - diagonal) / (len(y) * (len(y) - 1)))


def _kernel_blocks(a: np.ndarray, b: np.ndarray, degree: int) -> Iterator[tuple[slice, np.ndarray]]:
    for first in range(0, len(a), BLOCK):
        rows = slice(first, min(first + BLOCK, len(a)))
        yield rows, (a[rows] @ b.T / a.shape[1] + 1) ** degree
