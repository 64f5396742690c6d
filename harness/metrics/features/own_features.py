"""Distances of features by a network that the user brings (harness/metrics/features/own_weights.py)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from harness.metrics.base import Batch, Options
from harness.metrics.context import Context
from harness.metrics.features import reference_images
from harness.metrics.features.own_weights import OwnWeights


class OwnFeatures(OwnWeights):
    """`distance` of the images' features to those of the reference images; null without network or reference."""

    image_influence: ClassVar[str]  # column of the images' rows: the distance moves with its mean
    formula: ClassVar[str]

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.extractor, self.missing = self.network_of(options, context)
        self.moved: np.ndarray | None = None

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        if self.extractor is not None:
            self.samples.add(batch.indices, batch.features(self.extractor))
        return {}

    @abstractmethod
    def distance(self, features: np.ndarray, reference: Any) -> tuple[float, float | None, float | None]:
        """Value and 95 % interval; sets `moved`, the derivative in each image's weight (N,)."""

    def compute(self) -> dict[str, float | str | bool | None]:
        nothing = dict.fromkeys(self.columns)
        if self.extractor is None:
            return {**nothing, self.definition_column: f"none: {self.missing}"}
        reference = reference_images.get(self.context, self.extractor)
        if reference is None or len(self.samples) < 2:
            why = "the data has no reference images" if reference is None else "one image has no distribution"
            return {**nothing, self.definition_column: f"none: {why}"}
        features = self.samples.sorted()[1].astype(np.float64)
        value, low, high = self.distance(features, reference)
        size = (int(self.context.data.size[0]), int(self.context.data.size[1]))
        said = f"{self.formula}, {self.extractor.id}, {self.extractor.resizer(size)}"
        said += f", {reference.gaussian.n} reference images"
        found = dict(zip(self.columns, (value, low, high, len(features), said), strict=True))
        return found

    def image_values(self) -> dict[str, np.ndarray]:
        return {} if self.moved is None else {self.image_influence: self.moved}
