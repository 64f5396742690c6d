"""Improved precision and recall (1904.06991), density and coverage (2002.09797) of features."""

from __future__ import annotations

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.features.feature_metric import FeatureMetric

BLOCK = 1024  # rows of a distance matrix held at once


class PrecisionRecall(FeatureMetric):
    """As many reference images as there are generated ones, as in the paper: both manifolds are equally fine.

    Intervals resample images and hold the balls as they are.
    """

    name = "precision_recall"
    columns = bootstrap.columns("pr_precision", "pr_recall", "density", "coverage")
    hits: dict[str, np.ndarray] | None = None

    def compute(self) -> dict[str, float | str | bool | None]:
        reference, k = self.reference(), self.options["k"]
        if reference is None or min(len(self.samples), len(reference.features)) <= k:
            return self.nothing()
        fake = self.samples.sorted()[1]
        out: dict[str, float | str | bool | None] = {}
        self.hits = manifold_hits(fake, reference.features[: len(fake)], k)
        for name, values in self.hits.items():
            out.update(bootstrap.measured(name, values, self.options["resamples"], self.context.seed))
        return out

    def image_values(self) -> dict[str, np.ndarray]:
        """Recall and coverage are of the reference image of that number, NaN where there are fewer of those."""
        size = len(self.samples)
        filled = {name: np.full(size, np.nan) for name in self.hits or {}}
        for name, values in filled.items():
            values[: len(self.hits[name])] = self.hits[name]
        return filled


def manifold_hits(fake: np.ndarray, real: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Values whose means are the four numbers: precision and density per fake image, recall and coverage per real."""
    fake_radius, real_radius = _radii(fake, k), _radii(real, k)
    precision, density = np.empty(len(fake)), np.empty(len(fake))
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    for first in range(0, len(fake), BLOCK):
        rows = slice(first, first + BLOCK)
        squared = _squared_distances(fake[rows], real)
        in_real = squared <= real_radius[None]  # fake image in the ball of a real one
        precision[rows], density[rows] = in_real.any(1), in_real.sum(1) / k
        coverage = np.maximum(coverage, in_real.any(0))
        recall = np.maximum(recall, (squared <= fake_radius[rows, None]).any(0))
    return {"pr_precision": precision, "pr_recall": recall, "density": density, "coverage": coverage}


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance to the k-th nearest other point, (N,)."""
    out = np.empty(len(points))
    for first in range(0, len(points), BLOCK):
        squared = _squared_distances(points[first : first + BLOCK], points)
        squared[np.arange(len(squared)), first + np.arange(len(squared))] = np.inf
        out[first : first + BLOCK] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return out


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) float64, from centred features so that little is cancelled."""
    centre = b.mean(0, dtype=np.float64)
    a, b = a - centre, b - centre
    return ((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T).clip(0)
