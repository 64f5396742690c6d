"""Sufficient statistics of a Gaussian, and the Fréchet distance between two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK = 4096  # rows of features held in float64 at once


@contextmanager
def one_thread() -> Iterator[None]:
    """Eigenvalues on one thread: on a busy machine several are up to 25 times slower than one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (ascending) and eigenvectors (columns) of a symmetric matrix."""
    import torch

    with one_thread():
        values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    return values.numpy(), vectors.numpy()


def eigvalsh(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues (ascending) of a symmetric matrix."""
    import torch

    with one_thread():
        return torch.linalg.eigvalsh(torch.from_numpy(matrix)).numpy()


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of n samples."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """The symmetric square root of the covariance."""
        values, vectors = eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|μa − μb|² + tr(Ca + Cb − 2 (Rb Ca Rb)^½) with Rb = Cb^½: the symmetric form of 1706.08500, eq. 6."""
    shared = b.root @ a.covariance @ b.root
    overlap = np.sqrt(eigvalsh((shared + shared.T) / 2).clip(0)).sum()
    between = ((a.mean - b.mean) ** 2).sum()
    return float(between + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap)


class Moments:
    """(n, Σx, Σxxᵀ) in float64, each sum with the rounding error it has left behind.

    The error term makes the state independent of the order in which the batches came, to the last bit.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.sums = [np.zeros(dim), np.zeros((dim, dim))]
        self.rest = [np.zeros(dim), np.zeros((dim, dim))]

    def add(self, features: np.ndarray) -> None:
        x = features.astype(np.float64)
        self.n += len(x)
        for k, b in enumerate((x.sum(0), x.T @ x)):
            a = self.sums[k]
            total = a + b
            seen = total - a  # Knuth's two-sum: `lost` is exactly what rounding took from a + b
            lost = (a - (total - seen)) + (b - seen)
            self.sums[k], self.rest[k] = total, self.rest[k] + lost

    def gaussian(self) -> Gaussian:
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, there are {self.n}")
        total, squares = (s + r for s, r in zip(self.sums, self.rest, strict=True))
        mean = total / self.n
        return Gaussian(self.n, mean, (squares - self.n * np.outer(mean, mean)) / (self.n - 1))


def gaussian_of(features: np.ndarray, rows: np.ndarray | None = None) -> Gaussian:
    """Of all features (n, d) or of some `rows` of them, whose copy in float64 is never held as a whole."""
    moments = Moments(features.shape[1])
    chosen = np.arange(len(features)) if rows is None else rows
    for first in range(0, len(chosen), BLOCK):
        moments.add(features[chosen[first : first + BLOCK]])
    return moments.gaussian()
