"""Sufficient statistics of a Gaussian, and the Fréchet distance between two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np


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

    The error term makes the merged state independent of how the batches were dealt to shards, to the last bit.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.sums = [np.zeros(dim), np.zeros((dim, dim))]
        self.rest = [np.zeros(dim), np.zeros((dim, dim))]

    def add(self, features: np.ndarray) -> None:
        x = features.astype(np.float64)
        self._plus(len(x), [x.sum(0), x.T @ x], [np.zeros(())] * 2)

    def merge(self, other: Moments) -> None:
        self._plus(other.n, other.sums, other.rest)

    def gaussian(self) -> Gaussian:
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, there are {self.n}")
        total, squares = (s + r for s, r in zip(self.sums, self.rest, strict=True))
        mean = total / self.n
        return Gaussian(self.n, mean, (squares - self.n * np.outer(mean, mean)) / (self.n - 1))

    def _plus(self, n: int, sums: list[np.ndarray], rest: list[np.ndarray]) -> None:
        self.n += n
        for k in (0, 1):
            a, b = self.sums[k], sums[k]
            total = a + b
            seen = total - a  # Knuth's two-sum: `lost` is exactly what rounding took from a + b
            lost = (a - (total - seen)) + (b - seen)
            self.sums[k], self.rest[k] = total, self.rest[k] + rest[k] + lost


def gaussian_of(features: np.ndarray) -> Gaussian:
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments.gaussian()
