"""Editing: the model is shown the source and told what to make of it; the run starts from noise alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import InputError
from harness.tasks.base import Forward, Schedule, Start, whole_schedule
from samplers.core.levels import NoiseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Model
    from samplers.core.noise import NoiseStreams


@dataclass(frozen=True)
class Edit(Forward):
    """It has no knobs of its own."""

    name: ClassVar[str] = "edit"
    uses_strength: ClassVar[bool] = False
    needs_sources: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False
    default_strength: ClassVar[float | None] = None

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
        if sources is None:  # what the model is shown of them is its own business, as in every task
            raise InputError("task=edit needs source images: take data that has them")
        return Start(noise.draw().to(model.device, model.state_dtype), noise)


TASK = Edit
