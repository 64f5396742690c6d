"""Fréchet distance of features to the reference (FID where the extractor is Inception), with its interval and limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Batch, Metric
from harness.metrics.context import Context
from harness.metrics.feature_metric import FeatureMetric
from harness.metrics.moments import Gaussian, Moments, eigh, frechet_distance, gaussian_of

PUBLISHED_FROM = 5_000  # images; with fewer, even an Inception FID is not comparable with published ones


class FID(FeatureMetric):
    """State: moments of the features, whence the value; and the features, whence interval and limit."""

    name = "fid"
    columns = (
        *bootstrap.columns("fid"),
        "fid_infinity",
        "fid_infinity_n",
        "fid_extractor",
        "fid_resizer",
        "fid_comparable",
    )

    def __init__(self, context: Context, options: dict[str, Any]) -> None:
        super().__init__(context, options)
        self.moments = Moments(self.extractor.dim)

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        self.moments.add(batch.features(self.extractor))
        return super().update(batch)

    def merge(self, other: Metric) -> None:
        super().merge(other)
        self.moments.merge(other.moments)

    def compute(self) -> dict[str, float | str | bool | None]:
        reference = self.reference()
        if reference is None or self.moments.n < 2:
            return self.nothing()
        target, n = reference.gaussian, self.moments.n
        value = frechet_distance(self.moments.gaussian(), target)
        features = self.samples.sorted()[1].astype(np.float64)
        low, high = interval(features, target, value, self.options["resamples"], self.context.seed)
        limit = infinity(features, target, value, self.options["splits"], self.context.seed)
        return {
            "fid": value,
            "fid_low": low,
            "fid_high": high,
            "fid_n": n,
            "fid_infinity": limit,
            "fid_infinity_n": None if limit is None else n,
            "fid_extractor": self.extractor.id,
            "fid_resizer": self.extractor.resizer(self.context.data.size),
            "fid_comparable": self.extractor.kind == "inception" and min(n, target.n) >= PUBLISHED_FROM,
        }


def influence(features: np.ndarray, target: Gaussian) -> np.ndarray:
    """Derivative of the distance in each image's weight, (N,): its mean over resampled images moves as FID does.

    dFID = 2 (μ − μr)·(x − μ) + (x − μ)ᵀ(I − R M^−½ R)(x − μ), M = R C R and R = Cr^½, less its mean. Directions in
    which no image varies have no weight to differentiate by and drop out of M^−½.
    """
    n = len(features)
    mean = features.mean(0)
    x = features - mean
    y = x @ target.root
    if n < x.shape[1]:  # the same eigenvalues from the smaller matrix
        values, vectors = eigh(y @ y.T / (n - 1))
        overlap = (n - 1) * (vectors**2 @ np.sqrt(values.clip(0)))
    else:
        values, vectors = eigh(y.T @ y / (n - 1))
        seen = values > values[-1] * 1e-12
        overlap = ((y @ vectors[:, seen]) ** 2 / np.sqrt(values[seen])).sum(1)
    moved = 2 * x @ (mean - target.mean) + n / (n - 1) * ((x**2).sum(1) - overlap)
    return moved - moved.mean()


def interval(features: np.ndarray, target: Gaussian, value: float, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the distance at this number of images, for this reference: bootstrap of the linearised FID.

    Resampling images and computing FID anew would not do: a resample has fewer distinct images, so its FID is far too
    high (by as much again as FID itself at 256 images of 96 features) and too scattered (1.5 to 3 times). The linear
    part has no such bias; its interval is on the safe side: on drawings 1.7 times too wide at 256, 1.2 times at 512.
    """
    moved = influence(features, target)
    return bootstrap.bounds(value + bootstrap.resampled_means(moved, resamples, seed), value)


def infinity(features: np.ndarray, target: Gaussian, value: float, splits: int, seed: int) -> float | None:
    """FID for N → ∞ (1911.07023): a line over 1/N through FID at N and the mean FID of random halves.

    Both halves of a split count, so their errors cancel to first order. None where a half has no more images
    than features: there FID is not yet a line over 1/N.
    """
    n, rng = len(features), np.random.default_rng(seed)
    half = n // 2
    if half <= features.shape[1]:
        return None
    halves = []
    for _ in range(splits):
        order = rng.permutation(n)
        for rows in (order[:half], order[half : 2 * half]):
            halves.append(frechet_distance(gaussian_of(features[rows]), target))
    slope = (np.mean(halves) - value) / (1 / half - 1 / n)
    return float(value - slope / n)
