"""`LatentModel`: a text-to-image latent diffusion model (Stable Diffusion 1.x and 2.x) as the harness sees it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.errors import InputError
from harness.models.base import Conditioning, Denoise, Model, Network
from harness.models.classifier import NoisyClassifier, Pull
from harness.models.guidance import Guidance, combine, threshold
from samplers.core.levels import Level, Process

# Images decoded at once hold at most this many pixels: decoding wants more memory than any other part (16 images of
# 512x512 in one go want about 20 GB in float32), and the smaller pieces are no slower.
DECODE_PIXELS = 2**20


@dataclass(frozen=True)
class Parts:
    """The networks of one model, in evaluation mode, on their device, in their precision."""

    unet: Any  # diffusers.UNet2DConditionModel
    vae: Any  # diffusers.AutoencoderKL
    text_encoder: Any  # transformers.CLIPTextModel
    tokenizer: Any  # transformers.CLIPTokenizer


class LatentModel(Model):
    """Text embeddings, a UNet and a VAE. States are latents in the UNet's scale; x0 has no range to be clipped to.

    Its conditioning has the parts `text`, (N, tokens, width) in the model's precision, where it inpaints `channels`,
    (N, C, h, w): what its UNet sees beside the state, and where it has a classifier `classes`, (N, heads) int64: what
    the prompt says of each head.
    """

    def __init__(
        self,
        name: str,
        parts: Parts,
        process: Process,
        prediction_type: str = "epsilon",
        size: tuple[int, int] | None = None,
        rounded_time: bool = False,
        classifier: NoisyClassifier | None = None,
    ) -> None:
        if prediction_type not in PREDICTIONS:
            raise InputError(f"model {name}: prediction_type={prediction_type!r}; valid: {', '.join(PREDICTIONS)}")
        self.name, self.parts, self.process = name, parts, process
        self.prediction_type, self.rounded_time = prediction_type, rounded_time
        self.classifier = classifier
        self.device, self.dtype = parts.unet.device, parts.unet.dtype
        self.state_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.in_channels: int = parts.unet.config.in_channels
        self.latent_channels: int = parts.vae.config.latent_channels
        self.downscale: int = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self.size = size or _own_size(parts.unet.config.sample_size, self.downscale)
        height, width = self.size
        self.latent_shape = (self.latent_channels, height // self.downscale, width // self.downscale)
        self.sees_masks = self.in_channels > self.latent_channels
        limits = parts.tokenizer.model_max_length, parts.text_encoder.config.max_position_embeddings
        self.token_limit: int = min(limits)
        self.cfg_interval = (0.0, math.inf)  # σ/α between which there is guidance, of either kind
        for part in (parts.unet, parts.vae, parts.text_encoder):
            part.eval().requires_grad_(False)  # no graph is ever built, with or without torch.no_grad

    @property
    def networks(self) -> list[Network]:
        text, unet, vae = self.parts.text_encoder, self.parts.unet, self.parts.vae
        halves = [Network(f"vae ({name})", vae, module) for name, module in vae.named_children()]
        return [Network("text encoder", text, text), Network("unet", unet, unet), *halves]

    def fit(self, fitted: Mapping[str, Any]) -> None:
        """`cfg_interval`: outside of it no unconditional prediction is made, which is half the work."""
        self.cfg_interval = fitted["cfg_interval"]

    # ---------------------------------------------------------------------------------------------------- text

    def too_long(self, prompts: Sequence[str]) -> list[bool]:
        """For each prompt whether `encode_text` cuts it short."""
        if not prompts:
            return []
        tokens = self.parts.tokenizer(list(prompts), truncation=False, verbose=False).input_ids
        return [len(row) > self.token_limit for row in tokens]

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """`text`, (N, tokens, width). A prompt that is given twice is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        tokenizer, encoder = self.parts.tokenizer, self.parts.text_encoder
        how = {"padding": "max_length", "max_length": self.token_limit, "truncation": True, "return_tensors": "pt"}
        tokens = tokenizer(distinct, **how)
        # Stable Diffusion shows its padding to the UNet; only a text encoder that asks for the mask gets it.
        mask = tokens.attention_mask.to(self.device) if getattr(encoder.config, "use_attention_mask", False) else None
        embedded = encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        if len(distinct) < len(prompts):
            place = {prompt: row for row, prompt in enumerate(distinct)}
            embedded = embedded[torch.tensor([place[prompt] for prompt in prompts], device=self.device)]
        told = {} if self.classifier is None else {"classes": self.classifier.vocabulary.targets(prompts)}
        return Conditioning({"text": embedded, **told})

    # --------------------------------------------------------------------------------------------------- images

    def encode_images(self, images: Tensor, hide: Tensor | None = None) -> Tensor:
        """The mode of the VAE's posterior. Where `hide`, uint8 (N, 1, H, W), is 1 the VAE sees grey."""
        self._check_size(images, "an image")
        return torch.cat([self._encode(*part) for part in self._pieces(images, hide)])

    def _encode(self, images: Tensor, hide: Tensor | None) -> Tensor:
        vae = self.parts.vae
        pixels = images.to(self.device).float() / 127.5 - 1
        if hide is not None:
            pixels = pixels * (1 - hide.to(self.device).float())  # grey is 0 here: what inpainting UNets were shown
        pixels = pixels.to(vae.dtype, memory_format=torch.channels_last)
        latents = vae.encode(pixels, return_dict=False)[0].mode().to(self.state_dtype).contiguous()
        return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    def show_masked(self, images: Tensor, masks: Tensor, latent_masks: Tensor) -> Conditioning:
        """`channels`: the masks, and the latents of the sources with what is masked made grey."""
        return Conditioning({"channels": torch.cat([latent_masks, self.encode_images(images, hide=masks)], 1)})

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to uint8 (N, 3, H, W) on the CPU."""
        per_piece = max(1, DECODE_PIXELS // (latents.shape[-2] * latents.shape[-1] * self.downscale**2))
        return torch.cat([self._decode(piece) for piece in latents.split(per_piece)])

    def _decode(self, latents: Tensor) -> Tensor:
        vae = self.parts.vae
        z = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        pixels = vae.decode(z.to(vae.dtype, memory_format=torch.channels_last), return_dict=False)[0].float()
        if not pixels.isfinite().all():
            raise FloatingPointError(
                f"model {self.name}: the decoder gave NaN or infinity in {vae.dtype}"
                + (": set model.vae_precision=fp32" if vae.dtype == torch.float16 and latents.isfinite().all() else "")
            )
        return pixels.add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().contiguous()

    def _pieces(self, images: Tensor, hide: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        per_piece = max(1, DECODE_PIXELS // (images.shape[-2] * images.shape[-1]))
        parts = images.split(per_piece)
        masks = [None] * len(parts) if hide is None else hide.split(per_piece)
        return list(zip(parts, masks, strict=True))

    def _check_size(self, images: Tensor, what: str) -> None:
        if tuple(images.shape[-2:]) != tuple(self.size):
            given, wanted = (f"{h}x{w}" for h, w in (images.shape[-2:], self.size))
            raise InputError(f"{what} of {given} (height x width) does not fit the model's {wanted}: resize it first")

    # ------------------------------------------------------------------------------------------------- denoiser

    def denoiser(self, cond: Conditioning, uncond: Conditioning | None, guidance: Guidance) -> Denoise:
        """`denoise(x, level) -> x0` for a batch with this conditioning, in the state's precision."""
        guidance.check(self.pixel_range)
        text, uncond_text, channels = self._parts(cond, uncond if guidance.on else None)
        pull = self._pull(cond, guidance)
        wanted = self.in_channels - self.latent_channels
        given = 0 if channels is None else channels.shape[1]
        if given != wanted:
            raise InputError(
                f"model {self.name}: its UNet has {self.in_channels} input channels, the state and {wanted} more, but "
                f"the task gives {given}" + (": use it with task=inpaint" if wanted else "")
            )
        if guidance.on and uncond_text is None:
            raise InputError(f"cfg={guidance.scale:g} needs the embedding of the negative prompt")
        return _Denoiser(self, text, uncond_text, channels, guidance, pull)

    def _pull(self, cond: Conditioning, guidance: Guidance) -> Pull | None:
        """What a classifier adds to the prediction; None where it is off."""
        if not guidance.classifier:
            return None
        classes = cond.parts.get("classes")
        if self.classifier is None or classes is None:
            raise InputError(f"model {self.name} has no classifier: set classifier_scale=0")
        unsaid = (classes < 0).all(1)
        if unsaid.any():
            known = ", ".join(self.classifier.vocabulary.shapes)
            raise InputError(
                f"classifier_scale={guidance.classifier:g}: {int(unsaid.sum())} of {len(unsaid)} prompts name nothing "
                f"that the classifier of model {self.name} knows ({known}, ...); give such prompts, or set it to 0"
            )
        return Pull(self.classifier, classes.to(self.device), guidance.classifier)

    def _parts(self, cond: Conditioning, uncond: Conditioning | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Text with and without the prompt, and the further channels, which both halves of guidance see."""
        given = cond.to(self.device).parts
        return given["text"], None if uncond is None else uncond.to(self.device).parts["text"], given.get("channels")


class _Denoiser:
    """One batch's denoiser: fixed text and extra channels, one input buffer that every call fills."""

    def __init__(
        self,
        model: LatentModel,
        text: Tensor,
        uncond: Tensor | None,
        extra: Tensor | None,
        guidance: Guidance,
        pull: Pull | None,
    ) -> None:
        self.model, self.guidance, self.extra, self.pull = model, guidance, extra, pull
        self.unet, self.predicts = model.parts.unet, PREDICTIONS[model.prediction_type]
        self.halves = 1 if uncond is None else 2
        both = text if uncond is None else torch.cat([uncond.expand_as(text), text])
        self.text = both.to(model.dtype)
        self.images = len(text)
        self.buffer: Tensor | None = None

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        model = self.model
        buffer = self._allocate(x) if self.buffer is None else self.buffer
        # The state is brought to the scaling that the UNet was trained on; mostly it stands there already.
        size = self.predicts.size(level.alpha, level.sigma)
        alpha, sigma = level.alpha / size, level.sigma / size
        scaled = x if abs(size - 1) < 1e-9 else x / size
        self.state.copy_(scaled)  # both halves, in the UNet's precision and memory layout, in one kernel
        time = float(round(level.time)) if model.rounded_time else level.time
        # Filled on the device: a tensor made from a Python number would wait for a copy.
        clock = torch.full((1,), time, dtype=x.dtype, device=x.device)
        low, high = model.cfg_interval
        inside = low * level.alpha <= level.sigma <= high * level.alpha
        guided = self.halves == 2 and inside
        first = 0 if guided else len(buffer) - self.images  # the half with the prompt lies behind
        out = self.unet(buffer[first:], clock, encoder_hidden_states=self.text[first:], return_dict=False)[0]
        out = out.to(x.dtype)
        model.calls += 1
        if guided:
            uncond, cond = out.chunk(2)
            out = combine(uncond, cond, self.guidance)
        of_state, of_output = self.predicts.x0(alpha, sigma)
        x0 = torch.add(scaled * of_state, out, alpha=of_output)
        if self.pull is not None and inside:
            x0 += self.pull(scaled, Level(alpha, sigma, level.time))
        return threshold(x0, self.guidance)

    def _allocate(self, x: Tensor) -> Tensor:
        model, n = self.model, self.images
        shape = (self.halves * n, model.in_channels, *x.shape[-2:])
        # channels_last makes a UNet call 9 % faster at batch 1 and 5 % at batch 16 (CPU, CFG, embedded model).
        self.buffer = torch.empty(shape, dtype=model.dtype, device=x.device, memory_format=torch.channels_last)
        by_half = self.buffer.unflatten(0, (self.halves, n))
        self.state = by_half[:, :, : model.latent_channels]
        if self.extra is not None:
            by_half[:, :, model.latent_channels :].copy_(self.extra)
        return self.buffer


class Prediction(NamedTuple):
    """How x0 comes from what a network predicts: a·x + b·output, for x = α·x0 + σ·ε scaled so that size(α, σ) = 1."""

    x0: Callable[[float, float], tuple[float, float]]  # (α, σ) -> (a, b)
    size: Callable[[float, float], float] = math.hypot  # variance preserving


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Prediction(lambda alpha, sigma: (1 / alpha, -sigma / alpha)),
    "v_prediction": Prediction(lambda alpha, sigma: (alpha, -sigma)),  # v = α·ε − σ·x0, 2202.00512
    "sample": Prediction(lambda alpha, sigma: (0.0, 1.0)),
    # v = ε − x0 of a rectified flow, α = 1 − t and σ = t: 2209.03003
    "flow_prediction": Prediction(lambda alpha, sigma: (1.0, -sigma), operator.add),
}


def _own_size(sample_size: int | Sequence[int], downscale: int) -> tuple[int, int]:
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return (height * downscale, width * downscale)
