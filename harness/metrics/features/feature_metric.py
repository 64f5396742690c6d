"""What FID, KID and precision/recall share: an extractor, its reference, and the features of the cell's images."""

from __future__ import annotations

import numpy as np

from harness.metrics.base import Batch, Metric, Options
from harness.metrics.context import Context
from harness.metrics.features import extractors, files, reference_images


class FeatureMetric(Metric):
    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.extractor = extractors.get(options["extractor"], context)

    @classmethod
    def check(cls, options: Options) -> None:
        files.check_extractor(options["extractor"])

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        self.samples.add(batch.indices, batch.features(self.extractor))
        return {}

    def reference(self) -> reference_images.Reference | None:
        return reference_images.get(self.context, self.extractor)

    def nothing(self) -> dict[str, float | str | bool | None]:
        """Where there is no reference, or too few images to say anything."""
        return dict.fromkeys(self.columns)
