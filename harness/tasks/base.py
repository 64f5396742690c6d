"""What a task is: where on the schedule a run starts, from which state, and what is held fixed on the way.

Task files import no torch at their top: the sweep asks them what a cell means before any process has loaded it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from harness.bounds import MOST_STEPS
from harness.errors import InputError, nearest
from samplers.core.levels import Level, NoiseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Conditioning, Model
    from harness.models.guidance import Guidance
    from samplers.core.noise import NoiseStreams
    from samplers.core.plan import Plan
    from samplers.registry import Sampler

Schedule = Callable[[int], NoiseLevels]  # number of steps -> levels
Hook = Callable[["Tensor", Level], "Tensor"]
START_SCALES = ("unit", "sigma")


@dataclass(frozen=True)
class Start:
    """One batch, ready to run: integrate `state`, pass the latents through `finish` and the images through `paste`.

    Without levels (no step to run) `state` is the clean latent already.
    """

    state: Tensor  # float32 or float64 (N, C, h, w), at the first level
    noise: NoiseStreams  # what the run draws from: the state's own noise is drawn from it already
    shown: Conditioning | None = None  # what the model is told of the images beside their prompts
    after_stage: Hook | None = None
    finish: Callable[[Tensor], Tensor] = lambda latents: latents
    paste: Callable[[Tensor], Tensor] = lambda images: images  # uint8, CPU
    prepare: Callable[[Ready], Start] | None = None  # the start once the model has been asked, where it has to be
    unconds: Sequence[Conditioning] | None = None  # what each call is guided away from, in place of the negative prompt


@dataclass(frozen=True)
class Ready:
    """What a start is prepared with: everything that the run will have."""

    start: Start
    model: Model
    sampler: Sampler
    levels: NoiseLevels
    plan: Plan
    source_cond: Conditioning  # of the prompts as the data have them, and
    uncond: Conditioning | None
    guidance: Guidance


class Task(Protocol):
    """A frozen dataclass of the knobs in conf/task/NAME.yaml with these methods."""

    name: ClassVar[str]
    uses_strength: ClassVar[bool]
    needs_sources: ClassVar[bool]
    needs_masks: ClassVar[bool]
    default_strength: ClassVar[float | None]
    inverts: ClassVar[bool]  # whether it runs the plan backwards first: the prompt is then of the source's own image

    @property
    def optimises(self) -> bool:
        """Whether it differentiates the denoiser."""
        ...

    def asked(self, prompt: str) -> str:
        """The prompt that an image is made of, from that which the data have."""
        ...

    def check_run(self, guidance: Guidance, implementation: str) -> None:
        """InputError for guidance and for a way to step that the task cannot have."""
        ...

    def check_plan(self, plan: Plan, levels: NoiseLevels) -> None:
        """ValueError for a plan that the task cannot run."""
        ...

    def levels(
        self, schedule: Schedule, steps: int, strength: float | None, keep_steps: bool = False
    ) -> tuple[NoiseLevels | None, int]:
        """The levels that run and how many steps they are; (None, 0) where nothing runs."""
        ...

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
        """The start of one batch, at the `levels` of that `strength` (inpainting must be told; others do not look).

        Sources and masks are uint8; `source_latents`, where they are known, save encoding the sources again.
        """
        ...


class Forward:
    """A task that starts from what it is given and never asks the model before the run: what most are."""

    inverts: ClassVar[bool] = False

    @property
    def optimises(self) -> bool:
        return False

    def asked(self, prompt: str) -> str:
        return prompt

    def check_run(self, guidance: Guidance, implementation: str) -> None:
        return None

    def check_plan(self, plan: Plan, levels: NoiseLevels) -> None:
        return None


def whole_schedule(schedule: Schedule, steps: int) -> tuple[NoiseLevels, int]:
    levels = schedule(steps)
    return levels, levels.steps


def tail(schedule: Schedule, steps: int, strength: float, keep_steps: bool) -> tuple[NoiseLevels | None, int]:
    """The last part of a schedule that `strength` in [0, 1] asks for.

    N steps at strength s run the last ⌊N·s⌋ steps, as everywhere, but at least one: only s = 0 runs none. With
    `keep_steps` N steps run always: the last N of a schedule of ⌈N/s⌉.

    >>> from samplers import schedules
    >>> from samplers.core.levels import DiscreteVP
    >>> karras = lambda steps: schedules.build("karras", DiscreteVP.scaled_linear(), steps)
    >>> tail(karras, 20, strength=0.6, keep_steps=False)[1]
    12
    """
    if not 0 <= strength <= 1:
        raise InputError(
            f"strength={strength!r} is not valid: give a number from 0 (the source) to 1 (the whole schedule)"
        )
    if strength == 0:
        return None, 0
    # A hair is added or taken because 50 · 0.58 is 28.999999999999996 in floating point and means 29.
    if keep_steps:
        if steps / strength > MOST_STEPS:
            raise InputError(
                f"strength={strength!r} with keep_steps=true is not valid: {steps} steps would be the last of "
                f"{steps / strength:.4g}, the most is {MOST_STEPS:,}; give a strength of at least "
                f"{steps / MOST_STEPS:.3g}, fewer steps, or keep_steps=false"
            )
        total, run = math.ceil(steps / strength - 1e-9), steps
    else:
        total, run = steps, max(1, math.floor(steps * strength + 1e-9))
    levels = schedule(total)
    # A schedule may end in a step of its own (to a clean state); what counts is its real number of steps.
    return levels.from_(levels.steps - min(run, levels.steps)), min(run, levels.steps)


def start_scale(name: str, level: Level) -> float:
    """What unit noise is multiplied by to stand for a state of the first level without any signal.

    `unit`: √(α²+σ²), the variance that the model was trained with at that level (1 for a variance-preserving state);
    `sigma`: σ, the noise part alone, as k-diffusion and diffusers' Euler start on linspace and trailing schedules.
    The two differ by 0.23 % at the noisiest level of Stable Diffusion, more on schedules that start lower.
    """
    if name not in START_SCALES:
        raise InputError(f"task.start_scale={name!r} is unknown; {nearest(str(name), START_SCALES)}")
    return math.hypot(level.alpha, level.sigma) if name == "unit" else level.sigma


def noised(clean: Tensor, eps: Tensor, level: Level) -> Tensor:
    """α·x0 + σ·ε."""
    return (clean * level.alpha).add_(eps, alpha=level.sigma)


def encoded(
    task: str, model: Model, sources: Tensor | None, source_latents: Tensor | None, masks: Tensor | None = None
) -> Tensor:
    """Latents of the sources, float32 on the model's device."""
    if source_latents is not None:
        return source_latents.to(model.device, model.state_dtype)
    if sources is None:
        raise InputError(f"task={task} needs source images: take data that has them")
    return model.encode_images(sources)
