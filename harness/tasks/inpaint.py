"""Inpainting: what the mask marks with 1 is made anew, the rest is the source's.

Two ways, by the model. `blend`, for a model of text to image: after every stage the latents outside the mask are
replaced by the source's, noised to the stage's level. `channels`, for one that was trained to inpaint (its UNet has 9
input channels): it is shown the mask and the source with the masked part grey, and nothing is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import InputError, nearest
from harness.tasks.base import START_SCALES, Forward, Hook, Schedule, Start, encoded, noised, start_scale, tail
from samplers.core.levels import Level, NoiseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Model
    from samplers.core.noise import NoiseStreams

METHODS = ("auto", "blend", "channels")
MASK_RESIZES = ("nearest", "cover")


@dataclass(frozen=True)
class Inpaint(Forward):
    """Knobs of conf/task/inpaint.yaml."""

    name: ClassVar[str] = "inpaint"
    uses_strength: ClassVar[bool] = True
    needs_sources: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True
    default_strength: ClassVar[float] = 1.0

    method: str = "auto"
    mask_resize: str = "nearest"
    paste_source: bool = False
    start_scale: str = "unit"

    def __post_init__(self) -> None:
        for knob, valid in (("method", METHODS), ("mask_resize", MASK_RESIZES), ("start_scale", START_SCALES)):
            given = getattr(self, knob)
            if given not in valid:
                raise InputError(f"task.{knob}={given!r} is unknown; {nearest(str(given), valid)}")

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
        if sources is None or masks is None:
            raise InputError("task=inpaint needs source images and masks: take data that has both")
        if strength is None:
            raise ValueError(
                "inpainting starts from noise alone at strength 1 only: give start() the strength of its levels"
            )
        check_masks(masks, sources)
        blends = self._blends(model)
        clean = encoded(self.name, model, sources, source_latents)
        if levels is None:
            return Start(clean, noise)
        mask = latent_mask(masks, model.downscale, self.mask_resize).to(model.device)
        eps = noise.draw().to(model.device, model.state_dtype)
        # The whole schedule starts from noise alone, as a text-to-image run does: no trace of what was under the mask.
        state = eps * start_scale(self.start_scale, levels[0]) if strength == 1 else noised(clean, eps, levels[0])
        paste = _paste(sources, masks) if self.paste_source else Start.paste
        if not blends:
            return Start(state, noise, shown=model.show_masked(sources, masks, mask), paste=paste)
        return Start(
            state,
            noise,
            after_stage=_blend(clean, eps, mask),
            finish=lambda latents: clean.lerp(latents, mask),  # also where the schedule ends above zero noise
            paste=paste,
        )

    def _blends(self, model: Model) -> bool:
        able = "channels" if model.sees_masks else "blend"
        if self.method not in ("auto", able):
            sees = "is shown the mask" if model.sees_masks else "cannot be shown the mask"
            raise InputError(
                f"task.method={self.method} does not fit model {model.name}, whose network {sees} in further input "
                f"channels; use task.method={able} or auto"
            )
        return able == "blend"


TASK = Inpaint


def check_masks(masks: Tensor, sources: Tensor) -> None:
    """A mask is (N, 1, H, W) of the source's size, of zeros and ones."""
    if masks.ndim != 4 or masks.shape[1] != 1 or len(masks) != len(sources) or masks.shape[-2:] != sources.shape[-2:]:
        given, wanted = "x".join(map(str, masks.shape)), "x".join(map(str, (len(sources), 1, *sources.shape[-2:])))
        raise InputError(f"a mask of size {given} does not fit its image: give {wanted} (images x 1 x height x width)")
    if masks.max() > 1:
        raise InputError(f"a mask holds {int(masks.max())}: give 1 where to repaint and 0 where to keep")


def latent_mask(masks: Tensor, downscale: int, how: str) -> Tensor:
    """(N, 1, H, W) uint8 to (N, 1, h, w) float32. `nearest` takes each cell's first pixel, as diffusers does and as
    inpainting UNets were trained; `cover` repaints a latent if any of its pixels is to be."""
    import torch.nn.functional as F

    if how == "cover":
        return F.max_pool2d(masks.float(), downscale)
    return masks[..., ::downscale, ::downscale].float()


def _blend(clean: Tensor, eps: Tensor, mask: Tensor) -> Hook:
    def after_stage(x: Tensor, level: Level) -> Tensor:
        return noised(clean, eps, level).lerp_(x, mask)

    return after_stage


def _paste(sources: Tensor, masks: Tensor):
    return lambda images: images.where(masks.bool(), sources)
