"""LAION's aesthetic score: a linear layer (v1) or layers (v2, "improved") on a CLIP embedding, trained on ratings 1–10.

Schuhmann et al. 2022 (2210.08402, appendix); github.com/LAION-AI/aesthetic-predictor and
github.com/christophschuhmann/improved-aesthetic-predictor. The layers of v2 have nothing between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError
from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features import clip, own_weights
from harness.metrics.features.own_weights import ScoreMetric, Source

if TYPE_CHECKING:
    import torch

HEAD = Source(
    "LAION's aesthetic head (sac+logos+ava1-l14-linearMSE.pth or sa_0_4_vit_l_14_linear.pth)",
    ("sac+logos+ava1-l14-linearMSE.safetensors", "sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth"),
    folder=False,
)


class Aesthetic(ScoreMetric):
    name = "aesthetic"
    columns = (*bootstrap.columns("aesthetic"), "aesthetic_definition")
    image_columns = ("aesthetic",)

    @classmethod
    def found(cls, options: Options) -> tuple[Path, str]:
        if options["path"] is None:  # it is in no repository of the hub
            raise InputError(f"metric aesthetic needs {HEAD.hub}: give metrics=[{{name: aesthetic, path: FILE}}]")
        head = HEAD.find(cls.name, options["path"], options["allow_pickle"])
        clip.check_named(options["model"], options["pretrained"], options["allow_pickle"], cls.name)
        return head, options["model"]

    def load(self, found: tuple[Path, str]) -> Head:
        options = self.options
        scorer = clip.load(
            options["model"], options["pretrained"], self.context.device, options["allow_pickle"], self.name
        )
        return Head(scorer, own_weights.state_dict(found[0]), own_weights.label(found[0]))


class Head:
    """`state`: weight and bias of each layer, in the order of their numbers."""

    def __init__(self, scorer: clip.ClipScorer, state: dict[str, torch.Tensor], label: str) -> None:
        self.scorer = scorer
        names = sorted(
            (n for n in state if n.endswith("weight")), key=lambda n: [int(k) for k in re.findall(r"\d+", n)]
        )
        self.layers = [(state[n].to(scorer.device), state[f"{n[:-6]}bias"].to(scorer.device)) for n in names]
        self.definition = f"aesthetic predictor (2210.08402), {label} on {scorer.label}, open_clip"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            x = self.scorer.see(images)
            for weight, bias in self.layers:
                x = torch.nn.functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))
        return x[:, 0].double().cpu().numpy()
