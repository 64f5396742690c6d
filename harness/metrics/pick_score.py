"""PickScore (2305.01569, eq. 1): what people would pick, by a CLIP model fine-tuned on their choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features.own_weights import ScoreMetric, Source
from harness.metrics.features.transformers_clip import TransformersClip

if TYPE_CHECKING:
    import torch

SOURCE = Source("yuvalkirstain/PickScore_v1")


class PickScore(ScoreMetric):
    name = "pick_score"
    columns = (*bootstrap.columns("pick_score"), "pick_score_definition")
    image_columns = ("pick_score",)

    @classmethod
    def found(cls, options: Options) -> Path:
        return SOURCE.find(cls.name, options["path"], options["allow_pickle"])

    def load(self, found: Path) -> Pick:
        return Pick(TransformersClip(found, self.context.device, self.options["allow_pickle"]))


class Pick:
    """exp(logit scale) · cos of image and prompt: about 20, a point of difference is e to the odds of being picked."""

    def __init__(self, clip: TransformersClip) -> None:
        self.clip = clip
        self.definition = f"exp(logit_scale)*cos (2305.01569), {clip.label}, transformers"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        cosines = (self.clip.see(images).double() * self.clip.read(prompts).double()).sum(1)
        return (self.clip.net.logit_scale.double().exp() * cosines).cpu().numpy()
