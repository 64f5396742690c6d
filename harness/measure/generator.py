"""A cell's images: levels and plan once, then batches. Image `i` is the same in every batch size and worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.cell import Cell
from harness.errors import InputError
from harness.measure import remembered
from harness.measure.cost import Marks, count_flops
from harness.measure.remembered import Remembered
from harness.models import blame
from harness.models.base import Conditioning, Denoise, Model, Truth
from harness.models.guidance import Guidance
from harness.tasks.base import Hook, Ready
from harness.tasks.load import Start, load
from samplers import registry
from samplers.core import noise
from samplers.core.integrate import integrate
from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage, first_order


@dataclass(frozen=True)
class Made:
    """A finished batch. Images, sources and masks are uint8 on the CPU, latents have the state's type and device."""

    images: Tensor
    latents: Tensor
    prompts: list[str]
    sources: Tensor | None
    masks: Tensor | None
    calls: int  # denoiser calls, added up over the images: in a batch of N a call of the network counts N times
    # Of a task that inverts: latents of the sources, and what the model's decoder makes of them.
    source_latents: Tensor | None = None
    restored: Tensor | None = None


@dataclass(frozen=True)
class Given:
    """The images of a batch as the data have them."""

    indices: Sequence[int]
    prompts: list[str]  # that images are made of
    source_prompts: list[str]  # that the data have: others only where the task edits them
    sources: Tensor | None
    masks: Tensor | None


@dataclass(frozen=True)
class Inputs:
    """The same images as the model takes them."""

    given: Given
    cond: Conditioning
    uncond: Conditioning | None  # None where no unconditional prediction is made
    source_latents: Tensor | None = None  # None: the task encodes the sources, if it has any
    source_cond: Conditioning | None = None  # of the source prompts, where the task asks the model for the sources


class Generator:
    """Everything of a cell that does not change from batch to batch."""

    def __init__(self, cell: Cell, model: Model, data: Any, known: Remembered) -> None:
        self.cell, self.model, self.data, self.known = cell, model, data, known
        self.task = load(cell.task)
        self.guidance = Guidance.parse(cell.cfg, cell.guidance, cell.classifier_scale)
        self.levels, self.steps_run = self.task.levels(self._schedule, cell.steps, cell.strength, cell.keep_steps)
        self.sampler = registry.sampler(cell.sampler)
        self.adaptive = self.sampler.adaptive
        self.plan = None if self.levels is None or self.adaptive else self.sampler.plan(self.levels)

    def _schedule(self, steps: int) -> NoiseLevels:
        return self.model.levels(self.cell.schedule, steps)

    def columns(self) -> dict[str, Any]:
        """What the record says of the run itself."""
        cell, (height, width) = self.cell, self.model.size
        declared = None if self.levels is None else self.sampler.declares(self.steps_run)
        return {
            "steps_run": None if self.adaptive else self.steps_run,
            "order": None if declared is None else declared.order,
            "stochastic": self.stochastic,
            "plan": None if self.plan is None else str(self.plan),
            "plan_elsewhere": self.sampler.solver.elsewhere(cell.model.name, cell.model_fingerprint, cell.cfg),
            "height": height,
            "width": width,
        }

    @property
    def stochastic(self) -> bool:
        if self.plan is None:
            return self.adaptive and self.sampler.declares(self.cell.steps).stochastic
        return self.plan.draws > 0

    # ------------------------------------------------------------------------------------------------- the batch

    @torch.inference_mode()
    def batch(self, indices: Sequence[int]) -> Made:
        """The images `indices` of the cell. What was encoded before is taken from the session's memory."""
        inputs, before = self._remembered(indices), self.model.calls
        images, latents = self._make(inputs)
        # One call is one for the whole batch; an adaptive solver walks image by image.
        calls = (self.model.calls - before) * (1 if self.adaptive else len(indices))
        given, made_of = inputs.given, inputs.source_latents
        if not self.task.inverts or made_of is None:
            return Made(images, latents, given.prompts, given.sources, given.masks, calls)
        restored = self.model.decode(made_of)
        return Made(images, latents, given.prompts, given.sources, given.masks, calls, made_of, restored)

    @torch.inference_mode()
    def timed(self, indices: Sequence[int], marks: Marks) -> None:
        """The same work for the clock: nothing remembered, a mark after each part."""
        given = self._given(indices)
        marks.mark("start")
        inputs = self._encoded(given)
        marks.mark("text")
        self._make(inputs, marks)
        marks.mark("decode")

    @torch.inference_mode()
    def reference(self, indices: Sequence[int], levels: NoiseLevels, plan: Plan) -> tuple[Tensor, Tensor]:
        """Latents of the same prompts, sources and noise along other levels: at their end, and one x0-step after it."""
        inputs = self._remembered(indices)
        start = self._start(inputs, levels)
        ends: list[Tensor] = []  # of the plan; the stage that is put behind it leads to a clean state

        def after_stage(x: Tensor, level: Level) -> Tensor:
            if level == plan.stages[-1].result:
                x = x if start.after_stage is None else start.after_stage(x, level)
                ends[:] = [x.clone()]
            elif level.sigma and start.after_stage is not None:
                x = start.after_stage(x, level)
            return x

        clean = self._run(to_clean(plan), start, inputs, after_stage)
        return start.finish(ends[0]), start.finish(clean)

    @torch.inference_mode()
    def exact(self, indices: Sequence[int], truth: Truth) -> Tensor:
        """Where the exact solution takes the same starts: float64, at the cell's last level."""
        inputs = self._remembered(indices)
        return self._exact(inputs, self._start(inputs, self.levels), truth, self.levels[self.levels.steps])

    @torch.inference_mode()
    def exact_but_last(self, indices: Sequence[int], truth: Truth) -> Tensor:
        """Where a run ends that is exact up to the last level but one and then, as all do, takes its x0 for clean."""
        inputs, before = self._remembered(indices), self.levels[self.levels.steps - 1]
        start = self._start(inputs, self.levels)
        return self._denoiser(start, inputs)(self._exact(inputs, start, truth, before), before)

    def _exact(self, inputs: Inputs, start: Start, truth: Truth, last: Level) -> Tensor:
        return truth.exact(start.state, inputs.cond, inputs.uncond, self.guidance, self.levels[0], last)

    def _make(self, inputs: Inputs, marks: Marks | None = None) -> tuple[Tensor, Tensor]:
        """uint8 images and their latents. FloatingPointError that names the part which first gave NaN or infinity."""
        try:
            return self._from_text(inputs, marks)
        except FloatingPointError as error:

            def again() -> None:
                self._from_text(self._encoded(inputs.given))

            raise FloatingPointError(blame.first_to_fail(self.model, again) or str(error)) from error

    def _from_text(self, inputs: Inputs, marks: Marks | None = None) -> tuple[Tensor, Tensor]:
        start = self._prepared(self._start(inputs, self.levels), inputs)
        if marks is not None and self.task.inverts:
            marks.mark("prepare")
        latents = start.state
        if self.levels is not None:
            on_call = None if marks is None else lambda k: marks.mark("prepare" if k < 0 else "step")
            latents = start.finish(self._walk(start, inputs, on_call))
        if marks is not None:
            marks.mark("denoise")
        return start.paste(self.model.decode(latents)), latents

    def _walk(self, start: Start, inputs: Inputs, on_call: Callable[[int], None] | None) -> Tensor:
        """From the first level to the last, by whoever the cell says does the arithmetic."""
        if self.plan is not None and self.cell.implementation == "native":
            return self._run(self.plan, start, inputs, start.after_stage, on_call)
        if not self.adaptive:
            denoise = self._denoiser(start, inputs)
            return self._step(denoise, start.state, start.noise, start.after_stage, on_call)
        ends = []  # image by image: the steps that one image takes must not depend on its batch
        for k, told in enumerate(inputs.cond.joined(start.shown)):
            denoise = self.model.denoiser(told, inputs.uncond, self.guidance)
            ends.append(self._step(denoise, start.state[k : k + 1], start.noise.only(k), None, on_call))
        return torch.cat(ends)

    def _run(
        self,
        plan: Plan,
        start: Start,
        inputs: Inputs,
        after_stage: Hook | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        told = inputs.cond.joined(start.shown)
        if start.unconds is not None:
            each = iter(start.unconds)

            def denoise(x: Tensor, level: Level) -> Tensor:
                return self.model.denoiser(told, next(each), self.guidance)(x, level)

            return integrate(plan, denoise, start.state, start.noise, after_stage, on_call)
        return self.model.run(plan, start.state, start.noise, told, inputs.uncond, self.guidance, after_stage, on_call)

    def _denoiser(self, start: Start, inputs: Inputs) -> Denoise:
        return self.model.denoiser(inputs.cond.joined(start.shown), inputs.uncond, self.guidance)

    def _step(
        self, denoise: Denoise, x: Tensor, streams: noise.NoiseStreams, after_stage: Hook | None, on_call: Any
    ) -> Tensor:
        if self.cell.implementation == "native":
            return self.sampler.solve(self.levels, denoise, x, streams, on_call)
        from samplers.peers import load as peers

        step = peers.load(self.cell.implementation).run
        return step(self.sampler, self.levels, denoise, x, streams, after_stage, on_call)

    def _start(self, inputs: Inputs, levels: NoiseLevels | None) -> Start:
        given = inputs.given
        kind = noise.KINDS[self.cell.noise]
        streams = kind(self.cell.seed, given.indices, self.model.latent_shape, self.model.device)
        if hasattr(self.data, "initial_noise"):
            streams.first = self.data.initial_noise(given.indices, self.model.latent_shape)
        start = self.task.start(
            self.model, levels, streams, given.sources, given.masks, inputs.source_latents, self.cell.strength
        )
        if start.shown is None and given.sources is not None:
            start = replace(start, shown=self.model.show(given.sources, partial(self._drawn, given.indices)))
        return start

    def _prepared(self, start: Start, inputs: Inputs) -> Start:
        if start.prepare is None:
            return start
        return start.prepare(
            Ready(
                start=start,
                model=self.model,
                sampler=self.sampler,
                levels=self.levels,
                plan=self.plan,
                source_cond=inputs.source_cond,
                uncond=inputs.uncond,
                guidance=self.guidance,
            )
        )

    def _drawn(self, indices: Sequence[int], folder: str) -> Tensor:
        if not hasattr(self.data, "drawn"):
            raise InputError(
                f"data={self.data.name} has no names by which control images could be found: take a folder"
            )
        return self.data.drawn(folder, indices, self.task.name)

    # ------------------------------------------------------------------------------------------- what goes into it

    @property
    def _guided(self) -> bool:
        """Whether an unconditional prediction is made."""
        return self.guidance.on and self.model.has_unconditional

    def _given(self, indices: Sequence[int]) -> Given:
        prompts = self.data.prompts(indices)
        return Given(
            indices=indices,
            prompts=[self.task.asked(prompt) for prompt in prompts],
            source_prompts=prompts,
            sources=self.data.sources(indices, self.task.name) if self.task.needs_sources else None,
            masks=self.data.masks(indices) if self.task.needs_masks else None,
        )

    def _encoded(self, given: Given) -> Inputs:
        """With the text encoded anew, and the sources left to the task."""
        text = remembered.text(self.model, given.prompts, self.cell.negative_prompt, self._guided)
        told = self.model.encode_text(given.source_prompts) if self.task.inverts else None
        return Inputs(given, *text, source_cond=told)

    def _remembered(self, indices: Sequence[int]) -> Inputs:
        """With all that the session's memory has."""
        given = self._given(indices)
        text = self.known.text(self.model, given.prompts, self.cell.negative_prompt, self._guided)
        if given.sources is None:
            return Inputs(given, *text)
        keys = [(self.task.name, self.data.fingerprint, index) for index in indices]
        told = self.known.text(self.model, given.source_prompts, "", False)[0] if self.task.inverts else None
        return Inputs(given, *text, self.known.sources(self.model, keys, given.sources), told)

    # --------------------------------------------------------------------------------------------------- the cost

    def flops(self, nfe: int) -> float | None:
        """FLOPs of one image: one denoiser call, one decoding and one text encoding are counted, calls multiply.

        None for a model without a network: a formula has no matrix products to count. None where the task optimises:
        its calls are differentiated as well.
        """
        if not self.model.networks or self.task.optimises:
            return None
        guided = self.guidance.on, bool(self.guidance.classifier)
        if guided not in self.known.flops:
            self.known.flops[guided] = self._count_flops()
        text, call, decode = self.known.flops[guided]
        return float(text + nfe * call + decode)

    @torch.inference_mode()
    def _count_flops(self) -> tuple[int, int, int]:
        """FLOPs of encoding one prompt (and the negative one), of one denoiser call and of decoding, for one image."""
        given = self._given([0])
        text = count_flops(lambda: self._encoded(given))
        levels = self.levels or self._schedule(1)
        inputs = self._encoded(given)
        start = self._start(inputs, levels)

        def calls(number: int) -> int:
            """FLOPs of a run of so many calls, each of the whole way from the first level to the second."""
            way = first_order(levels[0], levels[1])
            stage = Stage(levels[0], levels[1], way[:1], way[1:])
            plan = Plan(levels[0], (stage,) * number, Capabilities(1, number))
            return count_flops(lambda: self._run(plan, start, inputs))

        before = self.model.calls
        once = calls(1)
        call = calls(2) - once  # a run of its own loop may compute more than its calls: images that it is shown
        self.model.calls = before
        return text + once - call, call, count_flops(lambda: self.model.decode(start.state))


def to_clean(plan: Plan) -> Plan:
    """The plan and one call more, at its last level, whose x0 is the state that it ends in."""
    last = plan.stages[-1].result
    clean = Level(1.0, 0.0, 0.0)
    return Plan(plan.start, (*plan.stages, Stage(last, clean, (), (1.0,))), plan.capabilities)
