"""Text to image: the whole schedule, from noise alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import InputError, nearest
from harness.tasks.base import START_SCALES, Forward, Schedule, Start, start_scale, whole_schedule
from samplers.core.levels import NoiseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Model
    from samplers.core.noise import NoiseStreams


@dataclass(frozen=True)
class Txt2Img(Forward):
    """Knobs of conf/task/txt2img.yaml."""

    name: ClassVar[str] = "txt2img"
    uses_strength: ClassVar[bool] = False
    needs_sources: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = False
    default_strength: ClassVar[float | None] = None

    start_scale: str = "unit"

    def __post_init__(self) -> None:
        if self.start_scale not in START_SCALES:
            raise InputError(
                f"task.start_scale={self.start_scale!r} is unknown; {nearest(str(self.start_scale), START_SCALES)}"
            )

    def levels(
        self, schedule: Schedule, steps: int, strength: float | None = None, keep_steps: bool = False
    ) -> tuple[NoiseLevels | None, int]:
        """All of them; strength has no meaning here."""
        return whole_schedule(schedule, steps)

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
        assert levels is not None, "the whole schedule runs, whatever the strength"
        scale = start_scale(self.start_scale, levels[0])
        return Start(noise.draw().to(model.device, model.state_dtype).mul_(scale), noise)


TASK = Txt2Img
