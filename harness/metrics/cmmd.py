"""CMMD (2401.09603): 1,000 times the squared maximum mean discrepancy of CLIP embeddings under a Gaussian kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features.own_features import OwnFeatures
from harness.metrics.features.own_weights import Source
from harness.metrics.features.transformers_clip import ClipFeatures, TransformersClip

SOURCE = Source("openai/clip-vit-large-patch14-336")
SIGMA, SCALE = 10.0, 1000.0  # of the paper
BLOCK = 1024  # rows of a kernel matrix held at once


class CMMD(OwnFeatures):
    """Over all pairs, each image with itself included, as the authors' code has it."""

    name = "cmmd"
    columns = (*bootstrap.columns("cmmd"), "cmmd_definition")
    image_influence = "cmmd_influence"
    formula = f"{SCALE:g}*MMD^2, Gaussian kernel, sigma {SIGMA:g} (2401.09603)"

    @classmethod
    def found(cls, options: Options) -> Path:
        return SOURCE.find(cls.name, options["path"], options["allow_pickle"])

    def load(self, found: Path) -> ClipFeatures:
        return ClipFeatures(TransformersClip(found, self.context.device, self.options["allow_pickle"]))

    def distance(self, features: np.ndarray, reference: Any) -> tuple[float, float | None, float | None]:
        real = reference.features.astype(np.float64)
        if "cmmd" not in reference.once:
            reference.once["cmmd"] = kernel_means(real, real).mean()
        near, across = kernel_means(features, features), kernel_means(features, real)
        value = float(SCALE * (near.mean() + reference.once["cmmd"] - 2 * across.mean()))
        moved = 2 * SCALE * (near - across)  # the derivative in each image's weight, as in KID
        self.moved = moved - moved.mean()
        low, high = bootstrap.around(value, self.moved, self.options["resamples"], self.context.seed)
        return value, bootstrap.at_least_0(low), high


def kernel_means(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean over b of exp(−|a − b|²/2σ²), (len(a),)."""
    found = np.empty(len(a))
    squares = (b**2).sum(1)
    for first in range(0, len(a), BLOCK):
        rows = a[first : first + BLOCK]
        apart = (rows**2).sum(1)[:, None] + squares - 2 * rows @ b.T
        found[first : first + BLOCK] = np.exp(-apart / (2 * SIGMA**2)).mean(1)
    return found
