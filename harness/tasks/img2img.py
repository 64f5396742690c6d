"""Image to image: the source is noised to a level that `strength` chooses, and the rest of the schedule runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.tasks.base import Forward, Schedule, Start, encoded, noised, tail
from samplers.core.levels import NoiseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Model
    from samplers.core.noise import NoiseStreams


@dataclass(frozen=True)
class Img2Img(Forward):
    """It has no knobs of its own: strength and keep_steps are axes of the sweep."""

    name: ClassVar[str] = "img2img"
    uses_strength: ClassVar[bool] = True
    needs_sources: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False
    default_strength: ClassVar[float] = 0.6

    def levels(
        self, schedule: Schedule, steps: int, strength: float | None, keep_steps: bool = False
    ) -> tuple[NoiseLevels | None, int]:
        return tail(schedule, steps, self.default_strength if strength is None else strength, keep_steps)

    def start(
        self,
        model: Model,
        levels: NoiseLevels | None,
        noise: NoiseStreams,
        sources: Tensor | None = None,
        masks: Tensor | None = None,
        source_latents: Tensor | None = None,
        strength: float | None = None,
    ) -> Start:
        """α·z + σ·ε at the first level; strength 0 leaves the source as the VAE gives it back."""
        clean = encoded(self.name, model, sources, source_latents)
        if levels is None:
            return Start(clean, noise)
        eps = noise.draw().to(model.device, model.state_dtype)
        return Start(noised(clean, eps, levels[0]), noise)


TASK = Img2Img
