"""`PipelineModel`: a pipeline of diffusers that runs its own loop under our plans, as the harness sees it.

The pipeline is called with embeddings, with latents that our noise streams made, and with `GivenPlan` for a scheduler:
levels, steps, noise and the blending of a task are the harness's, the network's inputs and guidance the pipeline's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from harness.errors import InputError
from harness.models.base import STOCK, Conditioning, Denoise, Drawn, Model, Network
from harness.models.control import Controls, is_shown, put_in
from harness.models.families import CFG, DISTILLED, TRUE, Family, Frames
from harness.models.fitting import Fit, fit
from harness.models.guidance import Guidance
from harness.models.latents import clean_of, decoded, packed, unpacked
from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.noise import Noise, NoiseStreams
from samplers.core.plan import Plan
from samplers.hosts.given import Asked, GivenPlan

NEGATIVE = "negative_"  # how the names of what belongs to the negative prompt begin
UNREAD = "unread"  # the part of a pipeline that reads no text
LENGTHS = "lengths"  # of rows of text that go in each by itself
DECODE_PIXELS = 2**20  # decoded at once, as in latent.py


class PipelineModel(Model):
    """States are the pipeline's latents before they are packed, VP or a rectified flow's, float32 behind any type.

    Its conditioning has the parts that the family's `embeds` name, and those that a task shows: `image` and `mask`,
    float32 (N, 3, H, W) and (N, 1, H, W) in [0, 1]. States of a video are (N, C, F, h, w); of its frames one is the
    image: `frame` is first, middle or last.
    """

    def __init__(
        self,
        name: str,
        pipe: Any,
        family: Family,
        process: Process,
        dtype: torch.dtype,
        size: tuple[int, int],
        downscale: int,
        channels: int,
        way: str,
        tokens: int | None,
        prior: Any = None,
        frames: Frames | None = None,
    ) -> None:
        self.name, self.pipe, self.family, self.process = name, pipe, family, process
        self.dtype, self.size, self.downscale, self.way = dtype, size, downscale, way
        self.device = torch.device(pipe.device)
        self.state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.prior, self.frames = prior, frames
        depth = () if frames is None else (frames.latents,)
        self.latent_shape = (channels, *depth, size[0] // downscale, size[1] // downscale)
        self.network, self.vae = getattr(pipe, family.network), getattr(pipe, family.vae)
        self.sees_masks = "mask" in family.shown
        self.has_unconditional = way in (CFG, TRUE)
        self.tokens = tokens
        reads = prior or pipe
        tokenizer = getattr(reads, family.tokenizer, None) or getattr(reads, "tokenizer", None)
        self.tokenizer = tokenizer
        self.token_limit = tokens or getattr(tokenizer, "model_max_length", None)
        self.scheduler = GivenPlan.replacing(pipe.scheduler)
        self.scheduler.own_state = family.ve
        pipe.scheduler = self.scheduler
        self._takes = inspect.signature(type(pipe).__call__).parameters
        self.controls = Controls(pipe)  # adapters that look at images

    @property
    def networks(self) -> list[Network]:
        every = {**({} if self.prior is None else self.prior.components), **self.pipe.components}
        parts = [(name, part) for name, part in every.items() if isinstance(part, torch.nn.Module)]
        whole = [Network(name, part, part) for name, part in parts if part is not self.vae]
        return whole + [Network(f"vae ({name})", self.vae, half) for name, half in self.vae.named_children()]

    def fit(self, fitted: Mapping[str, Any]) -> None:
        adapters, scale = fitted.get("adapters", ()), fitted.get("adapter_scale", 1.0)
        self.controls = put_in(self.pipe, adapters, scale, self.dtype, fitted.get("pag_scale", 0.0))
        if fitted.get("cfg_interval"):
            self.network.register_forward_hook(partial(self._unguided, fitted["cfg_interval"]))
        self.pipe = self.controls.pipe
        self._takes = inspect.signature(type(self.pipe).__call__).parameters
        fit(Fit(self.pipe, self.network, self.vae, self.dtype), fitted)

    def _unguided(self, interval: tuple[float, float], network: Any, given: Any, found: Any) -> Any:
        """Outside the interval the unconditional half answers as the other: guidance of any scale is then none."""
        low, high = interval
        level = self.scheduler.level
        output = found[0] if isinstance(found, tuple) else found.sample
        if low * level.alpha <= level.sigma <= high * level.alpha or len(output) != 2 * self._images:
            return None
        output[: self._images] = output[self._images :]
        return found

    # ---------------------------------------------------------------------------------------------------- text

    def too_long(self, prompts: Sequence[str]) -> list[bool]:
        if not prompts or self.token_limit is None or self.tokenizer is None:
            return [False] * len(prompts)
        rows = self.tokenizer(list(prompts), truncation=False, verbose=False).input_ids
        return [len(row) > self.token_limit for row in rows]

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """What the pipeline's `encode_prompt` gives, by the names of its call; a prompt given twice is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        encoded = self._encode(distinct)
        if len(distinct) == len(prompts):
            return encoded
        place = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        return Conditioning({name: part[place] for name, part in encoded.parts.items()})

    def encode_negative(self, prompt: str) -> Conditioning | None:
        if not any(name and name.startswith(NEGATIVE) for name in self.family.embeds):
            return None
        return self._encode([""], negative=prompt)

    def _encode(self, prompts: list[str], negative: str | None = None) -> Conditioning:
        """Rows of the prompts; with `negative` the row of that instead."""
        if not self.family.embeds:
            return Conditioning({UNREAD: torch.zeros(len(prompts), 0, device=self.device)})
        before = "" if negative is None else NEGATIVE
        wanted = [name for name in self.family.embeds if name and name.startswith(NEGATIVE) == (negative is not None)]
        names = [name.removeprefix(before) if name and name in wanted else None for name in self.family.embeds]
        parts: dict[str, Tensor] = {}
        for ending, found in self._told(prompts, negative):
            if self.family.ragged:
                parts["prompt_embeds"], parts[LENGTHS] = self._in_one(found[0])
                continue
            for name, value in zip(names, found, strict=True):
                if name is not None:
                    if value is None:  # a mask that hides nothing
                        value = torch.ones(parts["prompt_embeds"].shape[:2])
                    parts[name + ending] = self._to_one_length(name, value).to(self.device).clone()
        return Conditioning(parts)

    def _told(self, prompts: list[str], negative: str | None) -> Iterator[tuple[str, Sequence[Any]]]:
        """What `encode_prompt` or the prior returns, and how the names of it end: once for each pass."""
        if self.prior is not None:
            if negative is not None:
                yield "", [None, self.prior.get_zero_embed(len(prompts), self.device)]
            else:  # a diffusion of its own, whose noise is the same for every prompt
                seeds = [torch.Generator().manual_seed(0) for _ in prompts]
                yield "", self.prior(prompts, generator=seeds, return_dict=False)
            return
        encode = getattr(self.pipe, "encode_prompt" if hasattr(self.pipe, "encode_prompt") else "_encode_prompt")
        takes = inspect.signature(encode).parameters
        # What a call would pass on of its own defaults: instructions, the cleaning of captions, layers to skip.
        given: dict[str, Any] = {
            name: told.default
            for name, told in self._takes.items()
            if name in takes and "prompt" not in name and told.default is not told.empty
        }
        given |= {
            "device": self.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": negative is not None,
            "prompt_2": None,
            "prompt_3": None,
            "max_sequence_length": self.tokens,
        }
        given = {name: value for name, value in given.items() if name in takes}
        if negative is not None:
            given["negative_prompt"] = [negative] if negative else self._takes["negative_prompt"].default
        filled = [*prompts, *self._longest()]
        for k, ending in enumerate(self.family.passes or ("",)):
            if self.family.passes:
                given["text_encoder_index"] = k
                given.pop("max_sequence_length", None)  # each encoder's own
            found = encode(filled, **given)
            found = found if isinstance(found, tuple) else (found,)
            yield ending, [one[: len(prompts)] if isinstance(one, Tensor) else one for one in found]

    def _longest(self) -> list[str]:
        """Where a prompt is filled up to the longest beside it: one of the most tokens that can be."""
        if not self.family.fills or self.tokens is None or self.tokenizer is None:
            return []
        return [" ".join(["a"] * (self.tokens - len(self.tokenizer("").input_ids)))]

    def _to_one_length(self, name: str, rows: Any) -> Any:
        """Text as long as the longest of its prompts, filled up with nothing: rows have one shape in every batch."""
        if not self.family.length or not self.tokens:
            return rows
        return torch.nn.functional.pad(rows, (0, 0) * (rows.ndim - 2) + (0, self.tokens - rows.shape[1]))

    def _in_one(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows of their own lengths (l, d) as (N, L, d), and the lengths."""
        assert self.tokens is not None
        whole = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, self.tokens - len(row))) for row in rows])
        return whole, torch.tensor([len(row) for row in rows], device=self.device)

    def _as_called(self, text: Mapping[str, Tensor]) -> dict[str, Any]:
        """The parts of a text as the call takes them: cut to their longest, or each row by itself."""
        text = {name: part for name, part in text.items() if name != UNREAD}
        mask = text.get(self.family.length or "")
        if mask is not None:
            longest = max(1, int(mask.sum(1).max()))
            return {name: part[:, :longest] for name, part in text.items()}
        if self.family.ragged:
            lengths = text.pop(LENGTHS).tolist()
            return {name: [row[:n] for row, n in zip(part, lengths, strict=True)] for name, part in text.items()}
        return text

    # --------------------------------------------------------------------------------------------------- images

    def encode_images(self, images: Tensor) -> Tensor:
        """The mode of the VAE's posterior."""
        if tuple(images.shape[-2:]) != self.size:
            given, wanted = (f"{h}x{w}" for h, w in (images.shape[-2:], self.size))
            raise InputError(f"an image of {given} (height x width) does not fit the model's {wanted}: resize it first")
        pixels = images.to(self.device).float() / 127.5 - 1
        return torch.cat([clean_of(self.vae, part, self.state_dtype) for part in self._pieces(pixels, 1)])

    def show_masked(self, images: Tensor, masks: Tensor, latent_masks: Tensor) -> Conditioning:
        return Conditioning({"image": self._pixels(images), "mask": masks.float().to(self.device)})

    def show(self, images: Tensor, drawn: Drawn) -> Conditioning | None:
        parts = {"image": self._pixels(images)} if self.family.shown else {}
        parts |= self.controls.parts(images, drawn)
        return Conditioning(parts) if parts else None

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device).float() / 255
        if self.family.shrink > 1:
            pixels = torch.nn.functional.avg_pool2d(pixels, self.family.shrink)
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        made = []
        for piece in self._pieces(latents, self.downscale):
            pixels = decoded(self.vae, piece)
            if self.frames is not None:
                pixels = pixels[:, :, self.frames.measured(pixels.shape[2])]
            if not pixels.isfinite().all():
                raise FloatingPointError(f"model {self.name}: the decoder gave NaN or infinity in {self.vae.dtype}")
            made.append(pixels.add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().contiguous())
        return torch.cat(made)

    @staticmethod
    def _pieces(images: Tensor, scale: int) -> Sequence[Tensor]:
        return images.split(max(1, DECODE_PIXELS // (images.shape[-2] * images.shape[-1] * scale**2)))

    # ------------------------------------------------------------------------------------------------------ a run

    def levels(self, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
        if schedule["name"] != STOCK:
            return super().levels(schedule, steps)
        return self._stock(steps)

    @torch.inference_mode()
    def _stock(self, steps: int) -> NoiseLevels:
        """What the pipeline's own scheduler would walk: the pipeline is called, and stopped where it asks for levels.

        So everything counts that the pipeline makes of its size and configuration (shift, mu, sigmas).
        """
        told = self.encode_text([""])
        height, width = self.size
        grey = torch.full((1, 3, height, width), 128, dtype=torch.uint8)
        if self.sees_masks:
            told = told.joined(self.show_masked(grey, grey[:, :1] // 128, grey))
        else:
            told = told.joined(self.show(grey, lambda folder: grey))
        state = torch.zeros(1, *self.latent_shape, device=self.device)
        try:
            self._call(told, None, Guidance(), self._packed(state).to(self.dtype), steps, [0])
        except Asked as asked:
            return asked.laid.levels
        raise InputError(f"model {self.name}: its pipeline never asks its scheduler for levels")

    def denoiser(self, cond: Conditioning, uncond: Conditioning | None, guidance: Guidance) -> Denoise:
        raise InputError(
            f"model {self.name} is a pipeline, which runs its own loop: what calls the network outside a run (searches "
            "of levels, samplers that choose their steps) needs model=diffusers"
        )

    def run(
        self,
        plan: Plan,
        state: Tensor,
        noise: NoiseStreams,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance: Guidance,
        after_stage: Callable[[Tensor, Level], Tensor] | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The last state: the pipeline makes the calls of the plan. One call is one `step`, guidance included."""

        def counted(k: int) -> None:
            self.calls += 1
            if on_call is not None:
                on_call(k)

        hook = None if after_stage is None else self._around(after_stage)
        latents = self.scheduler.begin(plan, self._packed(state), self._drawing(noise), hook, counted)
        first = None if on_call is None else self._before_the_first_call(on_call)
        try:
            self._call(cond, uncond, guidance, latents.to(self.dtype), len(plan.stages), noise.indices)
            return self._unpacked(self.scheduler.end())
        finally:
            self.scheduler.forget_run()
            if first is not None:
                first.remove()

    def _before_the_first_call(self, on_call: Callable[[int], None]) -> Any:
        def once(module: torch.nn.Module, given: Any) -> None:
            handle.remove()
            on_call(-1)

        handle = self.network.register_forward_pre_hook(once)
        return handle

    def _call(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance: Guidance,
        latents: Tensor,
        steps: int,
        indices: Sequence[int],
    ) -> None:
        """Call the pipeline, for what it does on the way alone."""
        height, width = self.size
        shown = self.family.shown
        self._images = len(cond)
        given: dict[str, Any] = {
            **self._as_called(
                {name: part for name, part in cond.parts.items() if name not in shown and not is_shown(name)}
            ),
            **{shown[name]: self._seen(part) for name, part in cond.parts.items() if name in shown},
            **self._guided(guidance, uncond, cond),
            **self.family.call,
            **self.controls.told(cond.parts, len(cond), self.way == CFG and guidance.on),
            "num_inference_steps": steps,
            "output_type": "latent",
            "return_dict": False,
        }
        if self.family.start is not None:
            given[self.family.start] = latents
        usual = {
            "latents": latents,
            "height": height,
            "width": width,
            "max_area": height * width,  # to which some scale what they are asked for
            "use_resolution_binning": False,
            "max_sequence_length": self.tokens,
            "num_frames": None if self.frames is None else self.frames.number,
        }
        given.update({name: value for name, value in usual.items() if name in self._takes and value is not None})
        if (
            shown or self.controls
        ):  # what is drawn for an image (from the posterior of what is shown) must not depend on its batch
            given["generator"] = [torch.Generator().manual_seed(index) for index in indices]
        self.pipe(**given)

    def _seen(self, part: Tensor) -> Any:
        """What is shown, as the call takes it."""
        if not self.family.pictures:
            return part
        whole = (part * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(one) for one in whole]

    def _guided(self, guidance: Guidance, uncond: Conditioning | None, cond: Conditioning) -> dict[str, Any]:
        scale = float(guidance.scale)
        name, value = {
            CFG: ("guidance_scale", scale - self.family.offset),
            TRUE: ("true_cfg_scale", scale),
            DISTILLED: ("guidance_scale", scale),
        }.get(self.way, ("guidance_scale", 1.0))
        given: dict[str, Any] = {name: value}
        if guidance.rescale:
            if "guidance_rescale" not in self._takes:
                raise InputError(f"a {type(self.pipe).__name__} has no guidance rescale: set guidance.rescale=0")
            given["guidance_rescale"] = guidance.rescale
        if self.way in (CFG, TRUE) and guidance.on and uncond is not None:
            rows = {part: row.expand(len(cond), *row.shape[1:]).contiguous() for part, row in uncond.parts.items()}
            given |= {NEGATIVE + part: row for part, row in self._as_called(rows).items()}
        elif self.prior is not None:  # the call insists on it, and does not look at it
            given[self.family.embeds[1] or ""] = cond.parts[self.family.embeds[0] or ""]
        if "negative_prompt" in self._takes:
            given["negative_prompt"] = None  # some have "" by default, which they hold against the embeddings
        return given

    # ---------------------------------------------------------------------------------------------- packed latents

    def _packed(self, state: Tensor) -> Tensor:
        return packed(state, self.family.patch) if self.family.patch else state

    def _unpacked(self, state: Tensor) -> Tensor:
        return unpacked(state, self.latent_shape, self.family.patch) if self.family.patch else state

    def _around(self, hook: Callable[[Tensor, Level], Tensor]) -> Callable[[Tensor, Level], Tensor]:
        return lambda x, level: self._packed(hook(self._unpacked(x), level))

    def _drawing(self, noise: Noise) -> Noise:
        return _Packed(noise, self.family.patch) if self.family.patch else noise


class _Packed:
    """Noise of latents, packed as they are."""

    def __init__(self, noise: Noise, patch: int) -> None:
        self._noise, self._patch = noise, patch

    def draw(self, above: float | None = None, below: float | None = None) -> Tensor:
        return packed(self._noise.draw(above, below), self._patch)
