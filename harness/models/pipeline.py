"""`PipelineModel`: a pipeline of diffusers that runs its own loop under our plans, as the harness sees it.

The pipeline is called with embeddings, with latents that our noise streams made, and with `GivenPlan` for a scheduler:
levels, steps, noise and the blending of a task are the harness's, the network's inputs and guidance the pipeline's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import InputError
from harness.models.base import STOCK, Conditioning, Denoise, Model, Network
from harness.models.families import CFG, DISTILLED, TRUE, Family
from harness.models.fitting import Fit, fit
from harness.models.guidance import Guidance
from harness.models.latents import clean_of, decoded, packed, unpacked
from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.noise import Noise, NoiseStreams
from samplers.core.plan import Plan
from samplers.hosts.given import Asked, GivenPlan

NEGATIVE = "negative_"  # how the names of what belongs to the negative prompt begin
DECODE_PIXELS = 2**20  # decoded at once, as in latent.py


class PipelineModel(Model):
    """States are the pipeline's latents before they are packed, VP or a rectified flow's, float32 behind any type.

    Its conditioning has the parts that the family's `embeds` name, and those that a task shows: `image` and `mask`,
    float32 (N, 3, H, W) and (N, 1, H, W) in [0, 1].
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
    ) -> None:
        self.name, self.pipe, self.family, self.process = name, pipe, family, process
        self.dtype, self.size, self.downscale, self.way = dtype, size, downscale, way
        self.device = torch.device(pipe.device)
        self.state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.latent_shape = (channels, size[0] // downscale, size[1] // downscale)
        self.network, self.vae = getattr(pipe, family.network), getattr(pipe, family.vae)
        self.sees_masks = "mask" in family.shown
        self.sees_sources = "image" in family.shown and not self.sees_masks
        self.has_unconditional = way in (CFG, TRUE)
        self.tokens = tokens
        tokenizer = getattr(pipe, family.tokenizer, None) or getattr(pipe, "tokenizer", None)
        self.tokenizer = tokenizer
        self.token_limit = tokens or getattr(tokenizer, "model_max_length", None)
        self.scheduler = GivenPlan.replacing(pipe.scheduler)
        pipe.scheduler = self.scheduler
        self._takes = inspect.signature(type(pipe).__call__).parameters

    @property
    def networks(self) -> list[Network]:
        parts = [(name, part) for name, part in self.pipe.components.items() if isinstance(part, torch.nn.Module)]
        whole = [Network(name, part, part) for name, part in parts if part is not self.vae]
        return whole + [Network(f"vae ({name})", self.vae, half) for name, half in self.vae.named_children()]

    def fit(self, fitted: Mapping[str, Any]) -> None:
        fit(Fit(self.pipe, self.network, self.vae, self.dtype), fitted)

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
        takes = inspect.signature(getattr(self.pipe, self._encoder)).parameters
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
            given["negative_prompt"] = negative or self._takes["negative_prompt"].default
        before = "" if negative is None else NEGATIVE
        wanted = [name for name in self.family.embeds if name and name.startswith(NEGATIVE) == (negative is not None)]
        names = [name.removeprefix(before) if name and name in wanted else None for name in self.family.embeds]
        parts: dict[str, Tensor] = {}
        for k, ending in enumerate(self.family.passes or ("",)):
            if self.family.passes:
                given["text_encoder_index"] = k
                given.pop("max_sequence_length", None)  # each encoder's own
            found = getattr(self.pipe, self._encoder)(prompts, **given)
            found = found if isinstance(found, tuple) else (found,)
            for name, value in zip(names, found, strict=True):
                if name is not None:
                    if value is None:  # a mask that hides nothing
                        value = torch.ones(parts["prompt_embeds"].shape[:2])
                    parts[name + ending] = value.to(self.device).clone()
        return Conditioning(parts)

    @property
    def _encoder(self) -> str:
        return "encode_prompt" if hasattr(self.pipe, "encode_prompt") else "_encode_prompt"

    # --------------------------------------------------------------------------------------------------- images

    def encode_images(self, images: Tensor) -> Tensor:
        """The mode of the VAE's posterior."""
        if tuple(images.shape[-2:]) != self.size:
            given, wanted = (f"{h}x{w}" for h, w in (images.shape[-2:], self.size))
            raise InputError(f"an image of {given} (height x width) does not fit the model's {wanted}: resize it first")
        pixels = images.to(self.device).float() / 127.5 - 1
        return torch.cat([clean_of(self.vae, part, self.state_dtype) for part in self._pieces(pixels, 1)])

    def show_masked(self, images: Tensor, masks: Tensor, latent_masks: Tensor) -> Conditioning:
        return self.show(images).joined(Conditioning({"mask": masks.float().to(self.device)}))

    def show(self, images: Tensor) -> Conditioning:
        return Conditioning({"image": images.to(self.device).float() / 255})

    def decode(self, latents: Tensor) -> Tensor:
        made = []
        for piece in self._pieces(latents, self.downscale):
            pixels = decoded(self.vae, piece)
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
        for name in self.family.shown:
            channels = 1 if name == "mask" else 3
            told = told.joined(Conditioning({name: torch.zeros(1, channels, height, width, device=self.device)}))
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
        given: dict[str, Any] = {
            **{name: part for name, part in cond.parts.items() if name not in shown},
            **{shown[name]: part for name, part in cond.parts.items() if name in shown},
            **self._guided(guidance, uncond, len(cond)),
            **self.family.call,
            "num_inference_steps": steps,
            "latents": latents,
            "output_type": "latent",
            "return_dict": False,
        }
        usual = {
            "height": height,
            "width": width,
            "max_area": height * width,  # to which some scale what they are asked for
            "use_resolution_binning": False,
            "max_sequence_length": self.tokens,
        }
        given.update({name: value for name, value in usual.items() if name in self._takes and value is not None})
        if shown:  # what is drawn for an image (from the posterior of what is shown) must not depend on its batch
            given["generator"] = [torch.Generator().manual_seed(index) for index in indices]
        self.pipe(**given)

    def _guided(self, guidance: Guidance, uncond: Conditioning | None, images: int) -> dict[str, Any]:
        scale = float(guidance.scale)
        name, value = {
            CFG: ("guidance_scale", scale),
            TRUE: ("true_cfg_scale", scale),
            DISTILLED: ("guidance_scale", scale),
        }.get(self.way, ("guidance_scale", 1.0))
        given: dict[str, Any] = {name: value}
        if guidance.rescale:
            given["guidance_rescale"] = guidance.rescale
        if self.way in (CFG, TRUE) and guidance.on and uncond is not None:
            for part, row in uncond.parts.items():
                given[f"negative_{part}"] = row.expand(images, *row.shape[1:]).contiguous()
        if "negative_prompt" in self._takes:
            given["negative_prompt"] = None  # some have "" by default, which they hold against the embeddings
        return given

    # ---------------------------------------------------------------------------------------------- packed latents

    def _packed(self, state: Tensor) -> Tensor:
        return packed(state) if self.family.packed else state

    def _unpacked(self, state: Tensor) -> Tensor:
        return unpacked(state, self.latent_shape) if self.family.packed else state

    def _around(self, hook: Callable[[Tensor, Level], Tensor]) -> Callable[[Tensor, Level], Tensor]:
        return lambda x, level: self._packed(hook(self._unpacked(x), level))

    def _drawing(self, noise: Noise) -> Noise:
        return _Packed(noise) if self.family.packed else noise


class _Packed:
    """Noise of latents, packed as they are."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def draw(self, above: float | None = None, below: float | None = None) -> Tensor:
        return packed(self._noise.draw(above, below))
