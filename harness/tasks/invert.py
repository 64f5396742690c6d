"""Inversion: from a source up to the noise that the plan makes it of, and down again, with the prompt or an edited one.

The way up is the plan's own (samplers/inversion.py), with the prompt that the data have for the source. The way down is
that of every other task. With guidance on the way down alone the two do not meet; null_text.py mends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import InputError, nearest
from harness.tasks.base import Ready, Schedule, Start, encoded, tail
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.base import Model
    from harness.models.guidance import Guidance
    from samplers.core.noise import NoiseStreams

METHODS = ("exact", "rising")


@dataclass(frozen=True)
class Invert:
    """Knobs of conf/task/invert.yaml."""

    name: ClassVar[str] = "invert"
    uses_strength: ClassVar[bool] = True
    needs_sources: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False
    default_strength: ClassVar[float] = 1.0
    inverts: ClassVar[bool] = True

    method: str = "exact"
    guided: bool = False
    null_text: int = 0
    null_text_rate: float = 0.01
    edit: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"task.method={self.method!r} is unknown; {nearest(str(self.method), METHODS)}")
        if not isinstance(self.guided, bool):
            raise InputError(f"task.guided={self.guided!r} is not valid: give true or false")
        if isinstance(self.null_text, bool) or not isinstance(self.null_text, int) or self.null_text < 0:
            raise InputError(f"task.null_text={self.null_text!r} is not valid: give a whole number of at least 0")
        if isinstance(self.null_text_rate, bool) or not isinstance(self.null_text_rate, float | int):
            raise InputError(f"task.null_text_rate={self.null_text_rate!r} is not valid: give a number above 0")
        _check_words(self.edit)

    @property
    def optimises(self) -> bool:
        return self.null_text > 0

    def asked(self, prompt: str) -> str:
        """The prompt with every word of `edit` changed, all at once.

        >>> Invert(edit={"red": "blue", "blue": "red"}).asked("a red ball on a blue ring, barred")
        'a blue ball on a red ring, barred'
        """
        if not self.edit:
            return prompt
        words = "|".join(re.escape(word) for word in sorted(self.edit, key=len, reverse=True))
        return re.sub(rf"\b(?:{words})\b", lambda found: self.edit[found[0]], prompt)

    def check_run(self, guidance: Guidance, implementation: str) -> None:
        if implementation != "native":
            raise InputError(f"task=invert runs our own plans backwards: not with implementation={implementation}")
        if self.null_text and not guidance.on:
            raise InputError("task.null_text optimises what guidance leads away from: give cfg above 1, or null_text=0")
        if self.null_text and self.guided:
            raise InputError("task.null_text mends a way back without guidance: set task.guided=false, or null_text=0")
        if self.guided and not (guidance.on or guidance.classifier):
            raise InputError("task.guided=true with cfg=1 guides nothing: give another cfg or a classifier_scale")

    def check_plan(self, plan: Plan, levels: NoiseLevels) -> None:
        plan.check_reversible()
        if self.null_text and self.method == "rising" and plan.nfe != levels.steps:
            raise ValueError("task.null_text needs a state for every call of the way down: set task.method=exact")

    def levels(
        self, schedule: Schedule, steps: int, strength: float | None, keep_steps: bool = False
    ) -> tuple[NoiseLevels | None, int]:
        """Those of img2img between levels that hold noise: a last step to a clean state is left out, and one more of
        the others taken."""

        def noisy(count: int) -> NoiseLevels:
            levels = schedule(count)
            return levels if levels.sigma[-1] > 0 else schedule(count + 1).noisy()

        return tail(noisy, steps, self.default_strength if strength is None else strength, keep_steps)

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
        """The source as it stands, taken for a state of the last level; `prepared` finds the noise it comes from."""
        clean = encoded(self.name, model, sources, source_latents)
        return Start(clean, noise, prepare=None if levels is None else self.prepared)

    def prepared(self, ready: Ready) -> Start:
        """The start of the way down, at the noise; and what each of its calls is guided away from, where that is
        optimised."""
        from samplers.inversion import invert, risen

        guidance = ready.guidance if self.guided else replace(ready.guidance, scale=1.0, rescale=0.0, classifier=0.0)
        denoise = ready.model.denoiser(ready.source_cond, ready.uncond if guidance.on else None, guidance)
        end = ready.start.state
        if self.method == "exact":
            states = invert(ready.plan, ready.levels, denoise, end).states
        else:
            states = risen(ready.sampler.plan(ready.levels.rising()), denoise, end)
        return replace(ready.start, state=states[0], prepare=None, unconds=self._unconds(ready, states))

    def _unconds(self, ready: Ready, states: list[Tensor]) -> Any:
        if not self.null_text:
            return None
        from harness.tasks.null_text import optimised

        return optimised(ready, states, self.null_text, self.null_text_rate)


TASK = Invert


def _check_words(edit: Any) -> None:
    if not isinstance(edit, Mapping) or not all(isinstance(word, str) and word for word in [*edit, *edit.values()]):
        raise InputError(f"task.edit={edit!r} is not valid: give words and what they become, task.edit={{red: blue}}")
