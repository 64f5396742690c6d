"""Guidance: what turns a conditional and an unconditional prediction into one. Imports no torch by itself.

The scale counts as in the papers' code: 1 means off, and then no unconditional prediction is made at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = ("none", "static", "dynamic")


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance and what tames it."""

    scale: float = 1.0  # 1 = off
    rescale: float = 0.0  # φ of 2305.08891, section 3.4: 0 = off, 1 = full
    threshold: str = "none"  # of the predicted x0, Imagen (2205.11487): only where it is pixels in [-1, 1]
    percentile: float = 0.995  # of |x0| per image, for dynamic thresholding
    classifier: float = 0.0  # s of 2105.05233, algorithm 2: what a classifier's gradient is multiplied by; 0 = off

    @property
    def on(self) -> bool:
        return self.scale != 1.0

    @classmethod
    def parse(cls, scale: float, knobs: Mapping[str, Any], classifier: float = 0.0) -> Guidance:
        """From the sweep's `cfg`, its `guidance` group and `classifier_scale`.

        InputError for an unknown knob or a value out of range.
        """
        valid = ("rescale", "threshold", "percentile")
        for name in knobs:
            if name not in valid:
                raise InputError(f"guidance.{name} is unknown; {nearest(name, valid)}")
        made = cls(scale=float(scale), classifier=float(classifier), **knobs)
        if made.scale < 0:
            raise InputError(f"cfg={scale!r} is not valid: give a number of at least 0 (1 = off)")
        if not 0 <= made.rescale <= 1:
            raise InputError(f"guidance.rescale={made.rescale!r} is not valid: give a number from 0 to 1")
        if not 0 < made.percentile <= 1:
            raise InputError(f"guidance.percentile={made.percentile!r} is not valid: give a share above 0, at most 1")
        if made.threshold not in THRESHOLDS:
            raise InputError(f"guidance.threshold={made.threshold!r} is unknown; {nearest(made.threshold, THRESHOLDS)}")
        return made

    def check(self, pixel_range: bool) -> None:
        """Thresholding clips x0 to [-1, 1]: it has a meaning only where x0 is pixels, not latents."""
        if self.threshold != "none" and not pixel_range:
            raise InputError(
                f"guidance.threshold={self.threshold} clips the prediction to the range of pixels, but this model "
                "predicts latents: set guidance.threshold=none (guidance.rescale tames a high cfg for latents)"
            )


def combine(uncond: Tensor, cond: Tensor, guidance: Guidance) -> Tensor:
    """uncond + scale·(cond − uncond), rescaled by φ to the deviation of `cond`. On float32 ε, v or x0."""
    guided = uncond.lerp(cond, guidance.scale)
    if guidance.rescale == 0:
        return guided
    over = tuple(range(1, cond.ndim))
    ratio = cond.std(over, keepdim=True) / guided.std(over, keepdim=True)
    return guided * (guidance.rescale * ratio + (1 - guidance.rescale))


def threshold(x0: Tensor, guidance: Guidance) -> Tensor:
    """Clip x0 to [-1, 1] (`static`), or to its own percentile s ≥ 1 and divide by s (`dynamic`)."""
    if guidance.threshold == "none":
        return x0
    if guidance.threshold == "static":
        return x0.clamp(-1, 1)
    size = x0.flatten(1).abs().quantile(guidance.percentile, dim=1).clamp(min=1)
    size = size.view(-1, *(1,) * (x0.ndim - 1))
    return x0.clamp(-size, size) / size
