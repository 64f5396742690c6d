"""Which pipelines of diffusers are known, and how each is called: a line a class. Imports no torch.

A class that is not here is refused: one that takes guidance, embeddings or latents in another way would run, and nobody
would see what was measured. To add one, add a line and a tiny pipeline of it to tests/zoo_models.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import InputError, nearest

TEXT_TASKS = ("txt2img", "img2img", "inpaint")  # of a pipeline from text: img2img and blending are the harness's own

# What the scale of guidance, an axis of the sweep, is for a pipeline.
CFG = "cfg"  # uncond + scale·(cond − uncond), in a pipeline that leaves it out at 1 and below
TRUE = "true_cfg"  # the same, by `true_cfg_scale`, in a model that has distilled guidance as well
DISTILLED = "distilled"  # a number that the network is told: 1 is a scale as any other, and nothing is unconditional
NONE = "none"  # distilled without a scale


@dataclass(frozen=True)
class Family:
    """How a class of pipelines is called.

    `embeds`: what goes back into the call of what `encode_prompt` returns, in its order; None: does not. Where it names
    those of the negative prompt, that is encoded in a way of its own (zeros, or without what is put before a prompt);
    else as any prompt. `side`: latents a side where the network's configuration has none. `shown`: how the call names
    what the task shows, by the names of `Conditioning`.
    """

    embeds: tuple[str | None, ...]
    network: str = "transformer"
    vae: str = "vae"
    guidance: tuple[str, ...] = (CFG,)  # the first is customary; model.guidance chooses another
    tasks: tuple[str, ...] = TEXT_TASKS
    patch: int = 0  # latents lie as tokens of so many by so many; 0: as they are
    multiple: int = 1  # of which height and width in latents must be
    side: int | None = None
    pixels: tuple[int, int] | None = None  # height and width, where they follow from no configuration
    tokens: int | None = None  # that are read of a prompt; None: as many as the tokenizer says
    tokenizer: str = "tokenizer"  # that reads most of it
    rescales: bool = False  # takes guidance_rescale
    passes: tuple[str, ...] = ()  # of encode_prompt: for each of its encoders once
    shown: Mapping[str, str] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)  # that are always passed
    offset: float = 0.0  # what the call's guidance is less than the scale as it is counted here, where 1 is off
    least: float = 1.0  # up to which scale, as it is counted here, the pipeline leaves guidance out
    pictures: bool = False  # what is shown goes in as pictures, which the pipeline's own processor reads
    shrink: int = 1  # how many times smaller, each way, what is shown is than the image
    start: str | None = None  # the call's name for a source where it takes no latents: the start stands in its place
    length: str | None = None  # the part with a 1 for every token that is one, by which rows are cut to the longest
    ragged: bool = False  # text goes in as a list of rows, each of its own length
    fills: bool = False  # text is padded to the longest beside it, unseen by a mask: here all are to one length
    ve: bool = False  # the call computes with its state, which must be the variance-exploding one
    prior: str | None = None  # the class of the pipeline that makes `embeds` of the text, in the folder model.prior
    frames: bool = False  # it makes videos


@dataclass(frozen=True)
class Frames:
    """Of a video: how many it has, in how many latents, and which one is the image that is measured."""

    number: int
    latents: int
    which: str  # first, middle or last

    def measured(self, number: int) -> int:
        return {"first": 0, "middle": number // 2, "last": number - 1}[self.which]


_MASKED = ("prompt_embeds", "prompt_attention_mask", None, None)
_MASKED_OWN = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
_POOLED = ("prompt_embeds", None, "pooled_prompt_embeds", None)
_XL_TEXT = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_SD = Family(("prompt_embeds", None), "unet", rescales=True)
_XL = Family(_XL_TEXT, "unet", rescales=True)
_INPAINT = {
    "tasks": ("inpaint",),
    "shown": {"image": "image", "mask": "mask_image"},
    "call": {"strength": 1.0},
}
_EDIT = {"tasks": ("edit",), "shown": {"image": "image"}}
_FLUX: dict[str, Any] = {
    "embeds": ("prompt_embeds", "pooled_prompt_embeds", None),
    "patch": 2,
    "multiple": 2,
    "side": 128,
    "tokens": 512,
    "tokenizer": "tokenizer_2",
}
FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": _SD,
    "StableDiffusionInpaintPipeline": Family(("prompt_embeds", None), "unet", **_INPAINT),
    "StableDiffusionInstructPix2PixPipeline": Family(("prompt_embeds",), "unet", **_EDIT),
    "StableDiffusionXLPipeline": _XL,
    "StableDiffusionXLInpaintPipeline": Family(_XL_TEXT, "unet", rescales=True, **_INPAINT),
    "StableDiffusion3Pipeline": Family(_POOLED, multiple=2, tokens=256, tokenizer="tokenizer_3"),
    "FluxPipeline": Family(guidance=(DISTILLED, TRUE), **_FLUX),
    "FluxFillPipeline": Family(guidance=(DISTILLED,), **{**_FLUX, **_INPAINT}),
    "FluxKontextPipeline": Family(guidance=(DISTILLED, TRUE), **{**_FLUX, **_EDIT, "call": {"_auto_resize": False}}),
    "ChromaPipeline": Family(
        ("prompt_embeds", None, "prompt_attention_mask", None, None, None),
        patch=2, multiple=2, side=128, tokens=512,
    ),
    "PixArtSigmaPipeline": Family(_MASKED, multiple=2, tokens=300),
    "SanaPipeline": Family(_MASKED_OWN, tokens=300),
    "Lumina2Pipeline": Family(_MASKED_OWN, multiple=2, side=128, tokens=256),
    "AuraFlowPipeline": Family(_MASKED, multiple=2, side=128, tokens=256),
    "HunyuanDiTPipeline": Family(
        ("prompt_embeds", None, "prompt_attention_mask", None),
        multiple=2, tokens=256, tokenizer="tokenizer_2", rescales=True, passes=("", "_2"),
    ),
    "StableDiffusionXLImg2ImgPipeline": Family(
        _XL_TEXT, "unet", rescales=True, tokenizer="tokenizer_2", tasks=("img2img",), start="image",
        call={"strength": 1.0},
    ),
    "StableDiffusionDepth2ImgPipeline": Family(
        ("prompt_embeds", None), "unet", tasks=("img2img", "edit"), shown={"image": "image"}, pictures=True,
        call={"strength": 1.0},
    ),
    "StableDiffusionUpscalePipeline": Family(("prompt_embeds", None), "unet", **_EDIT, shrink=4),
    "StableDiffusionLatentUpscalePipeline": Family(
        ("prompt_embeds", None, "pooled_prompt_embeds", None), "unet", **_EDIT, shrink=2, ve=True,
    ),
    "StableDiffusionImageVariationPipeline": Family((), "unet", **_EDIT, pictures=True),
    "StableUnCLIPImg2ImgPipeline": Family(("prompt_embeds", None), "unet", **_EDIT, pictures=True),
    "QwenImagePipeline": Family(
        ("prompt_embeds", "prompt_embeds_mask"), guidance=(TRUE,), patch=2, multiple=2, side=128, tokens=512,
        length="prompt_embeds_mask",
    ),
    "ZImagePipeline": Family(
        ("prompt_embeds", None), multiple=2, side=128, tokens=512, ragged=True, offset=1.0,
    ),
    "CogView4Pipeline": Family(("prompt_embeds", None), multiple=2, tokens=256, fills=True),
    "KandinskyV22Pipeline": Family(
        ("image_embeds", "negative_image_embeds"), "unet", "movq", multiple=8, prior="KandinskyV22PriorPipeline",
    ),
    "Kandinsky3Pipeline": Family(
        ("prompt_embeds", "negative_prompt_embeds", "attention_mask", "negative_attention_mask"), "unet", "movq",
        multiple=8, pixels=(1024, 1024), offset=1.0, least=2.0,
    ),
    "WanPipeline": Family(
        ("prompt_embeds", None), tasks=("txt2img",), multiple=2, pixels=(480, 832), tokens=512, frames=True,
    ),
    "LTXPipeline": Family(_MASKED, tasks=("txt2img",), pixels=(512, 704), patch=1, tokens=128, frames=True),
}  # fmt: skip

# Schedulers whose levels are known and whose networks predict at a timestep: all that samplers/hosts/replaced.py
# knows but those of EDM, whose networks are told another time.
SCHEDULERS = (
    "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler",
    "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip


def family_of(name: Any, where: str) -> Family:
    """The family of a class; InputError for one that is not known."""
    if name not in FAMILIES:
        raise InputError(f"{where} names the pipeline {name!r}, which is unknown here; {nearest(str(name), FAMILIES)}")
    return FAMILIES[name]
