"""What FID, KID and precision/recall share: an extractor, its reference, and the features of the cell's images."""

from __future__ import annotations

import numpy as np

from harness.bounds import Whole
from harness.metrics.base import Batch, Metric, Options
from harness.metrics.context import Context
from harness.metrics.features import extractors, files, reference_images


class FeatureMetric(Metric):
    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.extractor = extractors.get(options["extractor"], context, options.get("size"))

    @classmethod
    def check(cls, options: Options) -> None:
        files.check_extractor(options["extractor"])
        if options.get("size") is not None:
            Whole(8, 4_096)("size of metric " + cls.name, options["size"])

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        self.samples.add(batch.indices, batch.features(self.extractor))
        return {}

    def reference(self) -> reference_images.Reference | None:
        """Features of the reference images; where the data name statistics, those that are among them, if any."""
        found = reference_images.of_statistics(self.context, self.extractor)
        if found is not None:
            return found[0] if len(found[0].features) else None
        return reference_images.get(self.context, self.extractor)

    def nothing(self) -> dict[str, float | str | bool | None]:
        """Where there is no reference, or too few images to say anything."""
        return dict.fromkeys(self.columns)
