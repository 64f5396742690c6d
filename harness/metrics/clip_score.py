"""CLIP score: 100 times the cosine of image and prompt embeddings, never clamped."""

from __future__ import annotations

import numpy as np

from harness.errors import InputError
from harness.metrics import bootstrap
from harness.metrics.base import Batch, Options, PerImageMetric
from harness.metrics.context import Context
from harness.metrics.features import clip


class ClipScore(PerImageMetric):
    """`clip_definition` names the formula, the network and the resizer; without a network it says what is missing."""

    name = "clip_score"
    columns = (*bootstrap.columns("clip_score"), "clip_definition")
    image_columns = ("clip_score",)

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.scorer, self.missing = clip.get(options["model"], options["pretrained"], context, options["allow_pickle"])

    @classmethod
    def check(cls, options: Options) -> None:
        if not isinstance(options["allow_pickle"], bool):
            raise InputError(f"allow_pickle={options['allow_pickle']!r} of metric clip_score: give true or false")
        clip.check(options["model"], options["allow_pickle"])

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        return {} if self.scorer is None else {"clip_score": self.scorer(batch.images, list(batch.prompts))}

    def compute(self) -> dict[str, float | str | bool | None]:
        if self.scorer is None:
            return {**dict.fromkeys(self.columns), "clip_definition": f"none: {self.missing}"}
        return {**super().compute(), "clip_definition": self.scorer.definition(self.context.data.size)}
