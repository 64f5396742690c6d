"""Inception score (1606.03498, eq. 1): exp of the mean KL divergence of each image's classes to those of all images."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.errors import InputError
from harness.metrics import bootstrap
from harness.metrics.base import Batch, Metric, Options
from harness.metrics.context import Context
from harness.metrics.features import extractors, files


class InceptionScore(Metric):
    """Of all images at once: the mean over ten splits, as others have it, is lower by the bias of a tenth of them.

    That mean stands beside it where each split has ten images or more. The interval is that of the whole.
    """

    name = "inception_score"
    columns = (*bootstrap.columns("inception_score"), "inception_score_splits", "inception_score_definition")

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.missing = missing(options)
        self.classify: Any = None if self.missing else extractors.classifier(context)
        self.moved: np.ndarray | None = None

    @classmethod
    def check(cls, options: Options) -> None:
        if not isinstance(options["optional"], bool):
            raise InputError(f"optional={options['optional']!r} of metric inception_score: give true or false")
        if not options["optional"] and (said := missing(options)):
            raise InputError(said)

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        if self.classify is not None:
            self.samples.add(batch.indices, batch.features(self.classify))
        return {}

    def compute(self) -> dict[str, float | str | bool | None]:
        nothing = dict.fromkeys(self.columns)
        if self.classify is None:
            return {**nothing, "inception_score_definition": f"none: {self.missing}"}
        logits = self.samples.sorted()[1].astype(np.float64)
        value, self.moved = score(logits)
        low, high = bootstrap.around(value, self.moved, self.options["resamples"], self.context.seed)
        splits, parts = self.options["splits"], None
        if len(logits) >= 10 * splits:
            order = np.random.default_rng(self.context.seed).permutation(len(logits))
            parts = float(np.mean([score(logits[rows])[0] for rows in np.array_split(order, splits)]))
        size = (int(self.context.data.size[0]), int(self.context.data.size[1]))
        said = f"exp(mean KL) (1606.03498), {self.classify.id}, {self.classify.resizer(size)}"
        found = (value, low, high, len(logits), parts, f"{said}, splits: {splits}")
        return dict(zip(self.columns, found, strict=True))

    def image_values(self) -> dict[str, np.ndarray]:
        return {} if self.moved is None else {"inception_score_influence": self.moved}


def missing(options: Options) -> str:
    """What is missing, in one line; "" where nothing is."""
    try:
        files.check_extractor("inception")
    except InputError as error:
        return f"metric inception_score: {error}, or give it optional: true"
    return ""


def score(logits: np.ndarray) -> tuple[float, np.ndarray]:
    """The score of logits (N, classes), and its derivative in each image's weight (N,), less its mean."""
    shifted = logits - logits.max(1, keepdims=True)
    known = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))  # log p(y|x)
    p = np.exp(known)
    divergence = (p * (known - np.log(p.mean(0)))).sum(1)
    value = float(np.exp(divergence.mean()))
    # d/dw of H(mean p) − mean H: the KL of the image itself, as Σ p̄·d(log p̄) is that of a sum of 1.
    moved = value * divergence
    return value, moved - moved.mean()
