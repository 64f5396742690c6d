"""PlanScheduler in every class of pipelines that a tiny random one could be made of, beside the stock scheduler.

    python tests/zoo_classes.py          measures all and writes docs/zoo.md, about three minutes; needs peft
    python tests/zoo_classes.py NAME …   measures these rows anew

A class is made of the parts of one of tests/zoo_models.py and what it needs beside them, and is called with what its
signature asks for. "CLASS with …" has an adapter in it. What cannot run a plan, and why, is said here as well.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
import zoo
import zoo_adapters
import zoo_models
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_inpaint

from harness.embedded import nets
from harness.models import lycoris
from samplers.hosts.diffusers import PlanScheduler

STEPS = 4
MOST = 3e-5  # of the largest latent
OURS = ("dpmpp", "unipc", "heun", "euler_a", "dpmpp_2s", "restart")
DIFFUSION: dict[str, Any] = {
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpmpp",
    "UniPCMultistepScheduler": {"name": "unipc", "lower_order_final": True},
    "HeunDiscreteScheduler": "heun",
}
FLOW: dict[str, Any] = {"FlowMatchEulerDiscreteScheduler": "flow_euler"}


class Made(NamedTuple):
    """How a class is made: the model whose parts it has, further parts, and what its call is told beside the usual."""

    model: str
    parts: Callable[[], Mapping[str, Any]] = dict
    call: Mapping[str, Any] = {}
    stock: tuple[str, ...] | None = None  # the schedulers that are compared; None: all of its kind
    adapted: Callable[[Any, Path], None] = lambda pipe, top: None  # puts an adapter into it; files go to `top`


def _lively(network: Any) -> Any:
    for name, parameter in network.named_parameters():
        if "controlnet" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def _controls_sd() -> dict[str, Any]:
    return {"controlnet": _lively(zoo._control(strides=2))}


def _controls_xl() -> dict[str, Any]:
    return {"controlnet": _lively(zoo._control_xl(2 * zoo_models.WIDTH))}


def _adapter(kind: str = "full_adapter", downscale: int = 4) -> dict[str, Any]:
    return {
        "adapter": diffusers.T2IAdapter(
            in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=downscale, adapter_type=kind
        )
    }


def _several(one: Callable[[], Mapping[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Two of what `one` makes, as pipelines take several: a list."""
    return lambda: {name: [part, one()[name]] for name, part in one().items()}


def _controls_union() -> dict[str, Any]:
    """One network for several kinds of control images, with the attention over them that it needs."""
    takes = inspect.signature(diffusers.ControlNetUnionModel.__init__).parameters
    told = {name: value for name, value in zoo._control_xl(2 * zoo_models.WIDTH).config.items() if name in takes}
    own = {f"num_{part}": 8 for part in ("trans_channel", "proj_channel")} | {"num_trans_head": 2, "num_trans_layer": 1}
    control = diffusers.ControlNetUnionModel(**{**told, **own, "num_control_type": 6})
    return {"controlnet": _lively(control)}


def _controls_sd3(extra: int = 0) -> dict[str, Any]:
    control = zoo_models.sd3_network(diffusers.SD3ControlNetModel, extra_conditioning_channels=extra)
    return {"controlnet": _lively(control)}


def _controls_of(network: str, control: str, **changes: Any) -> dict[str, Any]:
    """A control network with the settings of the network that it controls, as far as it has them."""
    kind = getattr(diffusers, control)
    takes = inspect.signature(kind.__init__).parameters
    told = {name: value for name, value in zoo_models.pipeline(network).transformer.config.items() if name in takes}
    return {"controlnet": _lively(kind(**{**told, **changes}))}


def _controls_flux() -> dict[str, Any]:
    return _controls_of("flux", "FluxControlNetModel")


def _controls_z(channels: int) -> Callable[[], dict[str, Any]]:
    """A control network of the tiny Z-Image, whose joints begin with zeros as well."""

    def made_of() -> dict[str, Any]:
        told = zoo_models.pipeline("z_image").transformer.config
        kept = {name: told[name] for name in ("dim", "n_refiner_layers", "n_heads", "n_kv_heads")}
        places = {"control_layers_places": [0], "control_refiner_layers_places": [0]}
        control = diffusers.ZImageControlNetModel(**places, control_in_dim=channels, **kept)
        for name, parameter in control.named_parameters():
            if "before_proj" in name or "after_proj" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        return {"controlnet": control}

    return made_of


def _shown_first_frame() -> dict[str, Any]:
    """A Wan that sees the first frame by its latents, a mask of them and the image's own embedding."""
    told = dict(zoo_models.pipeline("wan").transformer.config)
    inner = told["num_attention_heads"] * told["attention_head_dim"]
    sees = {"in_channels": 4 + 4 + 4, "image_dim": zoo_models.WIDTH, "added_kv_proj_dim": inner}
    sight = zoo_models._sight()
    return {
        "transformer": diffusers.WanTransformer3DModel.from_config({**told, **sees}),
        "image_encoder": sight["image_encoder"],
        "image_processor": sight["feature_extractor"],
    }


def _reads_pictures() -> dict[str, Any]:
    """What reads a prompt and a picture in one; and the source, which the pipeline makes a megapixel, is made small."""
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_inpaint):
        module.calculate_dimensions = lambda area, ratio: (zoo.SIZE, zoo.SIZE, None)
    tokenizer = nets.tokenizer()
    words = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(words)})
    config = copy.deepcopy(zoo_models.pipeline("qwen_image").text_encoder.config)
    config.text_config.vocab_size = len(tokenizer)
    for knob, word in zip(("image", "video", "vision_start", "vision_end"), words, strict=False):
        setattr(config, f"{knob}_token_id", tokenizer.convert_tokens_to_ids(word))
    sees = transformers.Qwen2VLImageProcessor(min_pixels=28**2, max_pixels=56**2)
    processor = transformers.Qwen2VLProcessor(sees, tokenizer, transformers.Qwen2VLVideoProcessor())
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return {"text_encoder": encoder, "tokenizer": tokenizer, "processor": processor}


def _two_latents() -> dict[str, Any]:
    return {"transformer": zoo_models._told_transformer(32)}


def _embeds(**more: Any) -> dict[str, Any]:
    return {
        "image_embeds": zoo._text("image", 3, zoo_models.WIDTH),
        "negative_image_embeds": zoo._text("none", 3, zoo_models.WIDTH),
        **more,
    }


def _lora(model: str) -> Callable[[Any, Path], None]:
    def put_in(pipe: Any, top: Path) -> None:
        part = "unet" if hasattr(pipe, "unet") else "transformer"
        file = zoo_adapters.lora(top / "own.safetensors", getattr(zoo_models.pipeline(model), part), part)
        pipe.load_lora_weights(str(top), weight_name=file.name, adapter_name="own")
        pipe.set_adapters(["own"], [0.7])

    return put_in


def _locon(pipe: Any, top: Path) -> None:
    zoo_adapters.locon(top / "own.safetensors", zoo_models.pipeline("sd").unet)
    pipe.load_lora_weights(str(top), weight_name="own.safetensors", adapter_name="own")
    pipe.set_adapters(["own"], [0.7])


def _lycoris(kind: str) -> Callable[[Any, Path], None]:
    def put_in(pipe: Any, top: Path) -> None:
        zoo_adapters.lycoris(top / "own.safetensors", zoo_models.pipeline("sd").unet, kind)
        lycoris.put_in(pipe, top / "own.safetensors", 0.7)

    return put_in


def _inverted(pipe: Any, top: Path) -> None:
    zoo_adapters.word(top / "word.safetensors")
    pipe.load_textual_inversion(str(top / "word.safetensors"), token=zoo_adapters.WORD)


def _image_prompted(model: str) -> Callable[[Any, Path], None]:
    def put_in(pipe: Any, top: Path) -> None:
        zoo_adapters.image_prompt(top, model)
        sight = zoo_models._sight()
        encoder = type(sight["image_encoder"]).from_pretrained(top / "encoder").eval().requires_grad_(False)
        pipe.register_modules(image_encoder=encoder, feature_extractor=sight["feature_extractor"])
        pipe.load_ip_adapter(str(top), subfolder="", weight_name="ip.safetensors", image_encoder_folder=None)

    return put_in


def _told_no_guidance() -> dict[str, Any]:
    """Chroma's network with the word in its configuration that this pipeline asks for, and that it lacks."""
    transformer = zoo_models.pipeline("chroma").transformer
    transformer.register_to_config(guidance_embeds=False)
    return {"transformer": transformer}


_PAG = {"pag_scale": 2.0}
_UNION = {"control_mode": [0], "control_image": [zoo._image(3, "control")]}
_TAUGHT = {"prompt": [f"a red {zoo_adapters.WORD}"] * 3}
_PICTURE = diffusers.utils.pt_to_pil(zoo._image(1, "prompt") * 2 - 1)[0]
_LOOKING = {"ip_adapter_image": _PICTURE}
_BOTH = {"image": [zoo._image(3, "control"), zoo._image(3, "image")]}
_BOTH_FLUX = {"control_image": _BOTH["image"], "controlnet_conditioning_scale": [1.0, 0.5]}
_BOTH_T2I = {**_BOTH, "adapter_conditioning_scale": [1.0, 0.5]}
_DRAWING = ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")  # take the generator that Kandinsky passes to all
_FIRST = {"pag_applied_layers": "blocks.0"}  # the only one that the tiny ones have
MADE: dict[str, Made] = {
    "StableDiffusionPipeline": Made("sd"),
    "StableDiffusionImg2ImgPipeline": Made("sd"),
    "StableDiffusionInpaintPipeline": Made("sd"),
    "StableDiffusionInstructPix2PixPipeline": Made("instruct_pix2pix"),
    "StableDiffusionControlNetPipeline": Made("sd", _controls_sd),
    "StableDiffusionControlNetImg2ImgPipeline": Made("sd", _controls_sd),
    "StableDiffusionControlNetInpaintPipeline": Made("sd", _controls_sd),
    "StableDiffusionAdapterPipeline": Made("sd", _adapter),
    "StableDiffusionPAGPipeline": Made("sd", call=_PAG),
    "StableDiffusionPAGImg2ImgPipeline": Made("sd", call=_PAG),
    "StableDiffusionPAGInpaintPipeline": Made("sd", call=_PAG),
    "StableDiffusionControlNetPAGPipeline": Made("sd", _controls_sd, _PAG),
    "StableDiffusionControlNetPAGInpaintPipeline": Made("sd", _controls_sd, _PAG),
    "StableDiffusionDepth2ImgPipeline": Made("depth2img"),
    "StableDiffusionUpscalePipeline": Made("sd_upscale_x4"),
    "StableDiffusionLatentUpscalePipeline": Made("latent_upscale", stock=("EulerDiscreteScheduler",)),
    "StableDiffusionImageVariationPipeline": Made("image_variations"),
    "StableUnCLIPImg2ImgPipeline": Made("stable_unclip"),
    "StableDiffusionXLPipeline": Made("sdxl"),
    "StableDiffusionXLImg2ImgPipeline": Made("sdxl"),
    "StableDiffusionXLInpaintPipeline": Made("sdxl"),
    "StableDiffusionXLInstructPix2PixPipeline": Made("sdxl", lambda: {"unet": zoo_models._xl_unet(in_channels=8)}),
    "StableDiffusionXLControlNetPipeline": Made("sdxl", _controls_xl),
    "StableDiffusionXLControlNetImg2ImgPipeline": Made("sdxl", _controls_xl),
    "StableDiffusionXLControlNetInpaintPipeline": Made("sdxl", _controls_xl),
    "StableDiffusionXLAdapterPipeline": Made("sdxl", lambda: _adapter("full_adapter", 2)),
    "StableDiffusionXLPAGPipeline": Made("sdxl", call=_PAG),
    "StableDiffusionXLPAGImg2ImgPipeline": Made("sdxl", call=_PAG),
    "StableDiffusionXLPAGInpaintPipeline": Made("sdxl", call=_PAG),
    "StableDiffusionXLControlNetPAGPipeline": Made("sdxl", _controls_xl, _PAG),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": Made("sdxl", _controls_xl, _PAG),
    "StableDiffusion3Pipeline": Made("sd3"),
    "StableDiffusion3Img2ImgPipeline": Made("sd3"),
    "StableDiffusion3InpaintPipeline": Made("sd3"),
    "StableDiffusion3ControlNetPipeline": Made("sd3", _controls_sd3),
    "StableDiffusion3PAGPipeline": Made("sd3", lambda: _FIRST, _PAG),
    "StableDiffusion3PAGImg2ImgPipeline": Made("sd3", lambda: _FIRST, _PAG),
    "FluxPipeline": Made("flux"),
    "FluxImg2ImgPipeline": Made("flux"),
    "FluxInpaintPipeline": Made("flux"),
    "FluxFillPipeline": Made("flux_fill", call={"strength": 1.0}),
    "FluxKontextPipeline": Made("flux_kontext", call={"_auto_resize": False, "max_area": zoo.SIZE**2}),
    "FluxKontextInpaintPipeline": Made("flux_kontext", call={"_auto_resize": False, "max_area": zoo.SIZE**2}),
    "FluxControlPipeline": Made("flux", _two_latents),
    "FluxControlImg2ImgPipeline": Made("flux", _two_latents),
    "FluxControlInpaintPipeline": Made("flux", _two_latents),
    "FluxControlNetPipeline": Made("flux", _controls_flux),
    "FluxControlNetImg2ImgPipeline": Made("flux", _controls_flux),
    "FluxControlNetInpaintPipeline": Made("flux", _controls_flux),
    "ChromaPipeline": Made("chroma"),
    "ChromaImg2ImgPipeline": Made("chroma"),
    "QwenImagePipeline": Made("qwen_image"),
    "QwenImageImg2ImgPipeline": Made("qwen_image"),
    "QwenImageInpaintPipeline": Made("qwen_image"),
    "QwenImageEditPipeline": Made("qwen_image", _reads_pictures, {"image": [_PICTURE] * 3}),
    "QwenImageEditInpaintPipeline": Made("qwen_image", _reads_pictures, {"image": [_PICTURE] * 3}),
    "ZImagePipeline": Made("z_image"),
    "ZImageImg2ImgPipeline": Made("z_image"),
    "ZImageInpaintPipeline": Made("z_image"),
    "ZImageControlNetPipeline": Made("z_image", _controls_z(4)),
    "ZImageControlNetInpaintPipeline": Made("z_image", _controls_z(4 + 1 + 4)),
    "PixArtAlphaPipeline": Made("pixart", call={"use_resolution_binning": False}),
    "PixArtSigmaPipeline": Made("pixart", call={"use_resolution_binning": False}),
    "PixArtSigmaPAGPipeline": Made("pixart", lambda: _FIRST, {**_PAG, "use_resolution_binning": False}),
    "SanaPipeline": Made("sana", call={"use_resolution_binning": False}),
    "SanaPAGPipeline": Made(
        "sana", lambda: {"pag_applied_layers": "transformer_blocks.0"}, {**_PAG, "use_resolution_binning": False}
    ),
    "Lumina2Pipeline": Made("lumina2"),
    "AuraFlowPipeline": Made("auraflow"),
    "HunyuanDiTPipeline": Made("hunyuan_dit", call={"use_resolution_binning": False}),
    "HunyuanDiTPAGPipeline": Made("hunyuan_dit", lambda: _FIRST, {**_PAG, "use_resolution_binning": False}),
    "CogView4Pipeline": Made("cogview4"),
    "KandinskyV22Pipeline": Made("kandinsky22", call=_embeds(), stock=_DRAWING),
    "KandinskyV22Img2ImgPipeline": Made("kandinsky22", call=_embeds(), stock=_DRAWING),
    "Kandinsky3Pipeline": Made("kandinsky3", call={"height": 64, "width": 64}, stock=_DRAWING),
    "Kandinsky3Img2ImgPipeline": Made("kandinsky3", stock=_DRAWING),
    "WanPipeline": Made("wan"),
    # One image for every prompt, which is all that it takes; the text is of the length that its network counts on.
    "WanImageToVideoPipeline": Made("wan", _shown_first_frame, {"image": _PICTURE, "max_sequence_length": 512}),
    "LTXPipeline": Made("ltx"),
    "LTXImageToVideoPipeline": Made("ltx"),
    "StableDiffusionXLControlNetUnionPipeline": Made("sdxl", _controls_union, _UNION),
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": Made("sdxl", _controls_union, _UNION),
    "StableDiffusionXLControlNetUnionInpaintPipeline": Made("sdxl", _controls_union, _UNION),
    "StableDiffusion3ControlNetInpaintingPipeline": Made(
        "sd3", lambda: _controls_sd3(1), {"control_mask": zoo._mask(3)}
    ),
    "SanaControlNetPipeline": Made(
        "sana", lambda: _controls_of("sana", "SanaControlNetModel"), {"use_resolution_binning": False}
    ),
    "HunyuanDiTControlNetPipeline": Made(
        "hunyuan_dit",
        lambda: _controls_of("hunyuan_dit", "HunyuanDiT2DControlNetModel", transformer_num_layers=2),
        {"use_resolution_binning": False},
    ),
    "QwenImageControlNetPipeline": Made("qwen_image", lambda: _controls_of("qwen_image", "QwenImageControlNetModel")),
    "QwenImageControlNetInpaintPipeline": Made(
        "qwen_image",
        lambda: _controls_of("qwen_image", "QwenImageControlNetModel", extra_condition_channels=4),
        {"control_mask": zoo._mask(3)},
    ),
    "ChromaInpaintPipeline": Made("chroma", _told_no_guidance),
    # With adapters in them.
    "StableDiffusionPipeline with a LoRA": Made("sd", adapted=_lora("sd")),
    "StableDiffusionXLPipeline with a LoRA": Made("sdxl", adapted=_lora("sdxl")),
    "StableDiffusion3Pipeline with a LoRA": Made("sd3", adapted=_lora("sd3")),
    "FluxPipeline with a LoRA": Made("flux", adapted=_lora("flux")),
    "StableDiffusionPipeline with a LoCon": Made("sd", adapted=_locon),
    "StableDiffusionPipeline with a LoHa": Made("sd", adapted=_lycoris("loha")),
    "StableDiffusionPipeline with a LoKr": Made("sd", adapted=_lycoris("lokr")),
    "StableDiffusionPipeline with a textual inversion": Made("sd", call=_TAUGHT, adapted=_inverted),
    "StableDiffusionPipeline with an IP-Adapter": Made("sd", call=_LOOKING, adapted=_image_prompted("sd")),
    "StableDiffusionXLPipeline with an IP-Adapter": Made("sdxl", call=_LOOKING, adapted=_image_prompted("sdxl")),
    "StableDiffusionControlNetPipeline with two ControlNets": Made("sd", _several(_controls_sd), _BOTH),
    "StableDiffusionXLControlNetPipeline with two ControlNets": Made("sdxl", _several(_controls_xl), _BOTH),
    "FluxControlNetPipeline with two ControlNets": Made("flux", _several(_controls_flux), _BOTH_FLUX),
    "StableDiffusionAdapterPipeline with two T2I-Adapters": Made("sd", _several(_adapter), _BOTH_T2I),
}

# It draws from its VAE without a generator, so that an image is another in every batch, whatever steps it.
DRAWING_UNSEEN = ("QwenImageControlNetInpaintPipeline",)

# What no plan runs in, and why; all of them end in one line (tests/test_zoo_classes.py), for a scheduler that is not
# on the list is refused, and one that is asked for what it has not raises.
_POSTERIOR = "it steps by a posterior of its own (`step(prev_timestep=)`)"
_TRIGFLOW = "its scheduler's `trigflow` is no process that is known here"
CANNOT: dict[str, tuple[str, str]] = {  # class -> (its scheduler, why)
    "KandinskyPriorPipeline": ("UnCLIPScheduler", _POSTERIOR),
    "KandinskyV22PriorPipeline": ("UnCLIPScheduler", _POSTERIOR),
    "UnCLIPPipeline": ("UnCLIPScheduler", _POSTERIOR),
    "StableCascadePriorPipeline": ("DDPMWuerstchenScheduler", "its levels are a cosine's ratio, not a timestep's"),
    "StableCascadeDecoderPipeline": ("DDPMWuerstchenScheduler", "its levels are a cosine's ratio, not a timestep's"),
    "SanaSprintPipeline": ("SCMScheduler", _TRIGFLOW),
    "StableAudioPipeline": ("CosineDPMSolverMultistepScheduler", "the levels of its own cosine are not known here"),
    "ConsistencyModelPipeline": ("CMStochasticIterativeScheduler", "a consistency model has no ODE to follow"),
    "AnyFlowPipeline": ("FlowMapEulerDiscreteScheduler", "a map from level to level has no denoiser"),
    "AmusedPipeline": ("AmusedScheduler", "it unmasks tokens: there is no noise level"),
    "RePaintPipeline": ("RePaintScheduler", "it goes back and forth by its scheduler"),
}


def made(name: str) -> Any:
    """The pipeline, its weights the same in every run."""
    how = MADE[name]
    base = zoo_models.pipeline(how.model)
    kind = getattr(diffusers, class_of(name))
    if type(base) is not kind or how.parts is not dict:
        base = _with_parts(base, kind, how.parts)
    with tempfile.TemporaryDirectory() as top:
        how.adapted(base, Path(top))
    return zoo._quiet(base)


def class_of(name: str) -> str:
    return name.split(" with ")[0]


def needs_peft(name: str) -> bool:
    return name.endswith(("LoRA", "LoCon", "LoHa", "LoKr"))


def _with_parts(base: Any, kind: Any, parts: Callable[[], Mapping[str, Any]]) -> Any:
    takes = inspect.signature(kind.__init__).parameters
    settings = {"requires_safety_checker": False, "add_watermarker": False, "requires_aesthetics_score": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given = {**settings, **base.components, **parts()}
    given = {part: value for part, value in given.items() if part in takes}
    for part, told in takes.items():
        if part not in (*given, "self", "args", "kwargs") and told.default is told.empty:
            given[part] = None
    return kind(**given)


def sample(pipe: Any, name: str, images: int, first: int = 0) -> torch.Tensor:
    """Final latents; image k has the seed first + k, and every image the same prompt and source."""
    takes = inspect.signature(type(pipe).__call__).parameters
    side = 64 if MADE[name].model == "kandinsky3" else zoo.SIZE
    image = torch.nn.functional.interpolate(zoo._image(images), size=(side, side))
    if name == "StableDiffusionUpscalePipeline":
        image = image[..., ::4, ::4]
    if name == "StableDiffusionLatentUpscalePipeline":
        image = image[..., ::2, ::2]
    if MADE[name].model in ("image_variations", "stable_unclip", "depth2img"):
        image = [diffusers.utils.pt_to_pil(one[None] * 2 - 1)[0] for one in image]
    usual: dict[str, Any] = {
        "prompt": ["a red circle"] * images,
        "negative_prompt": ["a blue square"] * images,
        "image": image,
        "control_image": zoo._image(images, "control"),
        "mask_image": zoo._mask(images),
        "strength": 0.7,
        "guidance_scale": 3.0,
        "true_cfg_scale": 3.0,
        "height": side,
        "width": side,
        "num_frames": 9,
        "max_sequence_length": 48,
    }
    flow = "Flux" in name or "Chroma" in name or "QwenImage" in name
    if flow and "Chroma" not in name:
        usual.pop("negative_prompt" if "Flux" in name else "guidance_scale")
    own = {key: _first(value, images) for key, value in MADE[name].call.items()}
    call = {key: value for key, value in usual.items() if key in takes} | own
    call["generator"] = [torch.Generator().manual_seed(first + k) for k in range(images)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # Stable Diffusion 3's ControlNet draws from its VAE without a generator
        found = pipe(**call, num_inference_steps=STEPS, output_type="latent", return_dict=False)
    return found[0]


def _first(value: Any, images: int) -> Any:
    """Of what a call is told for three images: what as many are told."""
    if isinstance(value, list) and len(value) == 3:
        return value[:images]
    if isinstance(value, list):
        return [_first(one, images) for one in value]
    return value[:images] if isinstance(value, torch.Tensor) else value


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


class Measured(NamedTuple):
    scheduler: str
    worst: dict[str, float]  # by stock scheduler: of the largest latent
    batch: float  # the largest difference of an image alone and in a batch of three
    ran: tuple[str, ...]  # of OURS, finite
    repeats: bool  # a second call gives the same bits


def measured(name: str) -> Measured:
    """Every comparison and run of one class."""
    pipe = made(name)
    own = pipe.scheduler
    flow = isinstance(own, diffusers.FlowMatchEulerDiscreteScheduler) or own.config.get("use_flow_sigmas")
    pairs = {"UniPCMultistepScheduler": DIFFUSION["UniPCMultistepScheduler"]} if MADE[name].model == "wan" else FLOW
    pairs = pairs if flow else DIFFUSION
    worst = {}
    for kind, sampler in pairs.items():
        if MADE[name].stock is not None and kind not in MADE[name].stock:
            continue
        stock = getattr(diffusers, kind).from_config(own.config, **({} if flow else {"clip_sample": False}))
        pipe.scheduler = stock
        expected = sample(pipe, name, 2)
        pipe.scheduler = PlanScheduler.replacing(stock, sampler=sampler)
        worst[kind] = relative(sample(pipe, name, 2), expected)
    ran, batch, seen, repeats = [], 0.0, [], True
    for sampler in OURS:
        pipe.scheduler = PlanScheduler.replacing(own, sampler=sampler)
        three = sample(pipe, name, 3)
        if three.isfinite().all():
            ran.append(sampler)
        if sampler in ("unipc", "euler_a"):
            alone = sample(pipe, name, 1, first=1)
            batch = max(batch, relative(alone, three[1:2]))
            repeats = repeats and torch.equal(sample(pipe, name, 1, first=1), alone)
            seen.append(three)
    assert relative(*seen) > 1e-6, "two samplers, one image"
    return Measured(type(own).__name__, worst, batch, tuple(ran), repeats)


def row(name: str, one: Measured) -> str:
    of = ", ".join(kind.removesuffix("Scheduler").removesuffix("Discrete") for kind in one.worst)
    own, worst = one.scheduler.removesuffix("Scheduler"), max(one.worst.values())
    what = f"`{class_of(name)}`{name.removeprefix(class_of(name))}"
    batch = "–" if name in DRAWING_UNSEEN else f"{one.batch:.0e}"
    return f"| {what} | {own} | {worst:.0e} | {of} | {batch} |"


def rows_of(page: str) -> dict[str, str]:
    """The rows of docs/zoo.md by what they are of."""
    return {line.split("|")[1].strip().replace("`", ""): line for line in page.splitlines() if line.startswith("| `")}


def table(rows: Mapping[str, str]) -> str:
    """docs/zoo.md."""
    lines = [
        "# Classes of pipelines, each run under our plans",
        "",
        "Written by `python tests/zoo_classes.py`; `pytest -m zoo tests/test_zoo_classes.py` holds every row to it.",
        "The pipelines are tiny and random: shown is that calls and arithmetic are right, not image quality.",
        "",
        "*Difference*: final latents of `PlanScheduler` and of the stock scheduler of the same kind on its own levels,",
        f"{STEPS} steps, of the largest latent; at most {MOST:g}. *Batch*: an image alone and in a batch of three.",
        f"Each class also runs {', '.join(f'`{one}`' for one in OURS)}, and a second call gives the same bits.",
        "–: a class that draws from its VAE without a generator, so that an image is another in every batch, with the",
        "stock scheduler too. The last rows have an adapter in them.",
        "",
        "| class | own scheduler | largest difference | of | batch |",
        "|---|---|---:|---|---:|",
    ]
    lines += [rows[name] for name in MADE]
    classes = {class_of(name) for name in MADE}
    lines += ["", f"{len(classes)} classes, {len(MADE)} rows.", "", "## What cannot, and why", ""]
    lines += ["| class | its scheduler | why |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind.removesuffix('Scheduler')} | {why} |" for name, (kind, why) in CANNOT.items()]
    lines += [
        "",
        "Read in their files and not built: Cosmos 1 and 2 (they write into their scheduler), `LTXConditionPipeline`",
        "(its scheduler steps every token from a time of its own), OmniGen (its time runs the other way), LEDITS++,",
        "SAG, pix2pix-zero and CycleDiffusion (they work inside their solver), `DDIMPipeline` (`eta=`).",
        "`ChromaInpaintPipeline` fails by itself in diffusers 0.42, for it asks its network's configuration for",
        "`guidance_embeds`, which Chroma's has not: here that says no. In sweeps `inpaint` is the harness's own over",
        "`ChromaPipeline`, which needs no such word. The editing pipelines of Qwen-Image make every source a",
        "megapixel: here it is as small as the rest; `QwenImageEditPlusPipeline` takes one prompt a call and was",
        "not built. `WanImageToVideoPipeline` takes one image for all prompts of a call.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="whose rows are measured anew; none: all")
    asked = parser.parse_args().names
    diffusers.utils.logging.set_verbosity_error()
    page = Path(__file__).parents[1] / "docs" / "zoo.md"
    rows = rows_of(page.read_text(encoding="utf-8"))
    for name in asked or MADE:
        rows[name] = row(name, measured(name))
        print(rows[name], flush=True)
    page.write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
