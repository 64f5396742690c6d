"""Improved precision and recall (1904.06991), density and coverage (2002.09797) of features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.features.feature_metric import FeatureMetric

BLOCK, ACROSS = 1024, 4096  # rows and columns of a distance matrix held at once


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
    inside = np.zeros(len(fake))  # in the balls of how many real images a fake one is
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    for rows, columns, squared in _blocks(fake, real):
        in_real = squared <= real_radius[None, columns]
        inside[rows] += in_real.sum(1)
        coverage[columns] = np.maximum(coverage[columns], in_real.any(0))
        recall[columns] = np.maximum(recall[columns], (squared <= fake_radius[rows, None]).any(0))
    return {"pr_precision": np.sign(inside), "pr_recall": recall, "density": inside / k, "coverage": coverage}


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance to the k-th nearest other point, (N,)."""
    nearest = np.full((len(points), k), np.inf)
    for rows, columns, squared in _blocks(points, points):
        own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
        squared[own - rows.start, own - columns.start] = np.inf
        nearest[rows] = np.partition(np.concatenate([nearest[rows], squared], 1), k - 1, axis=1)[:, :k]
    return nearest.max(1)


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Squared distances of the rows of a to those of b, float64, from centred features so that little is cancelled."""
    centre = b.mean(0, dtype=np.float64)
    for first in range(0, len(a), BLOCK):
        rows = slice(first, min(first + BLOCK, len(a)))
        x = a[rows] - centre
        for start in range(0, len(b), ACROSS):
            columns = slice(start, min(start + ACROSS, len(b)))
            y = b[columns] - centre
            yield rows, columns, ((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T).clip(0)
