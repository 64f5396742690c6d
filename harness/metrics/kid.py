"""KID (1801.01401): squared maximum mean discrepancy under a polynomial kernel, the unbiased estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.features.feature_metric import FeatureMetric
from harness.statistics import resample_counts

BLOCK, ACROSS = 1024, 4096  # rows and columns of a kernel matrix held at once
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
        x, y, degree = self.samples.sorted()[1], reference.features, self.options["degree"]
        if ("kid", degree) not in reference.once:
            reference.once["kid", degree] = within(y, degree)
        weights = np.concatenate([np.ones((1, len(x))), self._weights(len(x))])
        sums = kernel_sums(x, y, degree, weights)
        draws = mmd(sums, weights, reference.once["kid", degree])
        self.moved = influence(sums)
        low, high = bootstrap.bounds(draws[1:], float(draws[0])) if len(weights) > 1 else (None, None)
        return {"kid": float(draws[0]), "kid_low": low, "kid_high": high, "kid_n": len(x)}

    def _weights(self, n: int) -> np.ndarray:
        """How often each of n images counts in each resample that has a KID: one image over and over has no pair."""
        if n < FEWEST:
            return np.empty((0, n))
        drawn = resample_counts(n, self.options["resamples"], self.context.seed)
        return drawn[(drawn > 0).sum(1) > 1]

    def image_values(self) -> dict[str, np.ndarray]:
        return {} if self.moved is None else {"kid_influence": self.moved}


@dataclass(frozen=True)
class KernelSums:
    """What the kernel between images x and reference y comes to. A pair of an image with itself counts 0."""

    squares: np.ndarray  # (B,), Σ_ij w_i w_j k(x_i, x_j) under each row of the weights
    near: np.ndarray  # (N,), the sum over the other images
    cross: np.ndarray  # (N,), the mean over the reference


def kernel_sums(x: np.ndarray, y: np.ndarray, degree: int, weights: np.ndarray) -> KernelSums:
    """In one pass over the pairs, of which a block at a time is held: of `weights` (B, len(x)) and both features."""
    squares, near, cross = np.zeros(len(weights)), np.zeros(len(x)), np.zeros(len(x))
    for rows, columns, kernel in _upper_blocks(x, degree):
        both = np.einsum("bn,bn->b", weights[:, rows], weights[:, columns] @ kernel.T)
        squares += both if rows == columns else 2 * both
        near[rows] += kernel.sum(1)
        if rows != columns:
            near[columns] += kernel.sum(0)
    for rows, _, kernel in _blocks(x, y, degree):
        cross[rows] += kernel.sum(1) / len(y)
    return KernelSums(squares, near, cross)


def influence(sums: KernelSums) -> np.ndarray:
    """Derivative of MMD² in each image's weight, (N,): its mean over resampled images moves as KID does.

    2 (k̄(x_i, other images) − k̄(x_i, reference)), less its mean.
    """
    moved = 2 * (sums.near / (len(sums.near) - 1) - sums.cross)
    return moved - moved.mean()


def mmd(sums: KernelSums, weights: np.ndarray, y_within: float) -> np.ndarray:
    """MMD² of x with each row of `weights` (B, N) against y, (B,)."""
    n = weights.shape[1]
    return sums.squares / (n * n - (weights**2).sum(1)) - 2 * weights @ sums.cross / n + y_within


def within(y: np.ndarray, degree: int) -> float:
    """Mean of the kernel over pairs of different rows."""
    total = sum(kernel.sum() * (1 if rows == columns else 2) for rows, columns, kernel in _upper_blocks(y, degree))
    return float(total / (len(y) * (len(y) - 1)))


def _upper_blocks(x: np.ndarray, degree: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The kernel of each pair of rows once, block by block; those of a row with itself are 0."""
    for rows in _slices(0, len(x), BLOCK):
        kernel = _kernel(x[rows], x[rows], degree)
        np.fill_diagonal(kernel, 0)
        yield rows, rows, kernel
        for columns in _slices(rows.stop, len(x), ACROSS):
            yield rows, columns, _kernel(x[rows], x[columns], degree)


def _blocks(a: np.ndarray, b: np.ndarray, degree: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    for rows in _slices(0, len(a), BLOCK):
        for columns in _slices(0, len(b), ACROSS):
            yield rows, columns, _kernel(a[rows], b[columns], degree)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _kernel(a: np.ndarray, b: np.ndarray, degree: int) -> np.ndarray:
    """float64 whatever the features are: all of them so would be twice as large."""
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    return (a @ b.T / a.shape[1] + 1) ** degree
