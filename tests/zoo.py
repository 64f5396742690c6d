"""Tiny random pipelines of many classes, and what to call them with: text is given as embeddings, nothing is loaded.

The weights are the same in every run; a fraction of a second each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import diffusers
import torch

SIZE = 32  # pixels a side; 16 latents (a VAE of two blocks), 8 tokens a side where they are packed in fours
TEXT, TOKENS = 16, 7


class Case(NamedTuple):
    """A pipeline, and `inputs(images)`: what to call it with for as many images, but for seeds and steps."""

    pipe: Any
    inputs: Callable[[int], dict[str, Any]]


def _text(name: str, images: int, *shape: int) -> torch.Tensor:
    """The same text for every image, so that a batch of three is one image three times but for its noise."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.randn(shape, generator=generator).expand(images, *shape).contiguous()


def _image(images: int, name: str = "image") -> torch.Tensor:
    return _text(name, images, 3, SIZE, SIZE).sigmoid()


def _mask(images: int) -> torch.Tensor:
    mask = torch.zeros(images, 1, SIZE, SIZE)
    mask[..., SIZE // 2 :] = 1
    return mask


def _vae(channels: int = 4, **changes: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        **changes,
    )


def _unet(**changes: Any) -> Any:
    settings = {
        "sample_size": SIZE // 2,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": TEXT,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**{**settings, **changes})


SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _ddim() -> Any:
    return diffusers.DDIMScheduler(**SD_NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe


def _sd(name: str, **more: Any) -> Any:
    nothing = {"text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    parts = {"vae": _vae(), "unet": _unet(), "scheduler": _ddim(), **nothing, "requires_safety_checker": False, **more}
    return getattr(diffusers, name)(**parts)


def _sd_text(images: int) -> dict[str, Any]:
    return {
        "prompt_embeds": _text("prompt", images, TOKENS, TEXT),
        "negative_prompt_embeds": _text("negative", images, TOKENS, TEXT),
        "guidance_scale": 3.0,
    }


def _control(strides: int = 1) -> Any:
    return diffusers.ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        conditioning_embedding_out_channels=(4, *(8,) * strides),
        norm_num_groups=4,
    )


def sd() -> Case:
    return Case(_sd("StableDiffusionPipeline"), _sd_text)


def sd_v() -> Case:
    scheduler = diffusers.DDIMScheduler.from_config(_ddim().config, prediction_type="v_prediction")
    return Case(_sd("StableDiffusionPipeline", scheduler=scheduler), _sd_text)


def sd_img2img() -> Case:
    pipe = _sd("StableDiffusionImg2ImgPipeline")
    return Case(pipe, lambda n: {**_sd_text(n), "image": _image(n), "strength": 0.7})


def sd_inpaint() -> Case:
    """Four channels: the pipeline blends the source in after every call."""
    pipe = _sd("StableDiffusionInpaintPipeline")
    return Case(pipe, lambda n: {**_sd_text(n), **_inpaint(n), "strength": 0.7})


def sd_inpaint_9() -> Case:
    pipe = _sd("StableDiffusionInpaintPipeline", unet=_unet(in_channels=9))
    return Case(pipe, lambda n: {**_sd_text(n), **_inpaint(n), "strength": 1.0})


def _inpaint(images: int) -> dict[str, Any]:
    return {"image": _image(images), "mask_image": _mask(images), "height": SIZE, "width": SIZE}


def sd_controlnet() -> Case:
    pipe = _sd("StableDiffusionControlNetPipeline", controlnet=_lively(_control()))
    return Case(pipe, lambda n: {**_sd_text(n), "image": _image(n)})


def _lively(network: Any) -> Any:
    """A ControlNet begins with zeros where it is joined on: it would change nothing."""
    for name, parameter in network.named_parameters():
        if "controlnet" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def _sdxl(name: str, **more: Any) -> Any:
    unet = _unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TEXT,
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
    )
    nothing = {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}
    scheduler = diffusers.EulerDiscreteScheduler(**SD_NOISE, timestep_spacing="leading", steps_offset=1)
    parts = {"vae": _vae(), "unet": unet, "scheduler": scheduler, **nothing, "add_watermarker": False, **more}
    return getattr(diffusers, name)(**parts)


def _sdxl_text(images: int) -> dict[str, Any]:
    pooled = {
        "pooled_prompt_embeds": _text("pooled", images, TEXT),
        "negative_pooled_prompt_embeds": _text("unpooled", images, TEXT),
    }
    return {**_sd_text(images), **pooled}


def sdxl() -> Case:
    size = {"height": SIZE, "width": SIZE}
    return Case(_sdxl("StableDiffusionXLPipeline"), lambda n: {**_sdxl_text(n), **size})


def sdxl_img2img() -> Case:
    pipe = _sdxl("StableDiffusionXLImg2ImgPipeline")
    pipe.register_to_config(requires_aesthetics_score=False)
    return Case(pipe, lambda n: {**_sdxl_text(n), "image": _image(n), "strength": 0.7})


def sdxl_inpaint() -> Case:
    pipe = _sdxl("StableDiffusionXLInpaintPipeline")
    pipe.register_to_config(requires_aesthetics_score=False)
    return Case(pipe, lambda n: {**_sdxl_text(n), **_inpaint(n), "strength": 0.7})


def sdxl_controlnet() -> Case:
    control = _control_xl()
    size = {"height": SIZE, "width": SIZE}
    pipe = _sdxl("StableDiffusionXLControlNetPipeline", controlnet=_lively(control))
    return Case(pipe, lambda n: {**_sdxl_text(n), "image": _image(n), **size})


def _control_xl(text: int = TEXT) -> Any:
    return diffusers.ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=text,
        attention_head_dim=2,
        conditioning_embedding_out_channels=(4, 8),
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TEXT,
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
    )


def _flow(**settings: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def _sd3(name: str, **more: Any) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIZE // 2,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=16,
        pooled_projection_dim=TEXT,
        out_channels=16,
        pos_embed_max_size=SIZE // 2,
    )
    nothing = {f"{part}{k}": None for part in ("text_encoder", "tokenizer") for k in ("", "_2", "_3")}
    vae = _vae(16, shift_factor=0.06, scaling_factor=1.5)
    parts = {"vae": vae, "transformer": transformer, "scheduler": _flow(shift=3.0), **nothing, **more}
    return getattr(diffusers, name)(**parts)


def sd3() -> Case:
    size = {"height": SIZE, "width": SIZE}
    return Case(_sd3("StableDiffusion3Pipeline"), lambda n: {**_sdxl_text(n), **size})


def sd3_img2img() -> Case:
    pipe = _sd3("StableDiffusion3Img2ImgPipeline")
    return Case(pipe, lambda n: {**_sdxl_text(n), "image": _image(n), "strength": 0.7, "height": SIZE, "width": SIZE})


def sd3_inpaint() -> Case:
    pipe = _sd3("StableDiffusion3InpaintPipeline")
    return Case(pipe, lambda n: {**_sdxl_text(n), **_inpaint(n), "strength": 0.7})


def _flux(name: str, **more: Any) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        out_channels=more.pop("out_channels", None),
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        axes_dims_rope=(2, 2, 4),
    )
    nothing = {f"{part}{k}": None for part in ("text_encoder", "tokenizer") for k in ("", "_2")}
    vae = _vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    scheduler = _flow(shift=3.0, use_dynamic_shifting=True)
    parts = {"vae": vae, "transformer": transformer, "scheduler": scheduler, **nothing, **more}
    return getattr(diffusers, name)(**parts)


def _flux_text(images: int) -> dict[str, Any]:
    return {
        "prompt_embeds": _text("prompt", images, TOKENS, TEXT),
        "pooled_prompt_embeds": _text("pooled", images, TEXT),
        "height": SIZE,
        "width": SIZE,
    }


def flux() -> Case:
    return Case(_flux("FluxPipeline"), _flux_text)


def flux_img2img() -> Case:
    return Case(_flux("FluxImg2ImgPipeline"), lambda n: {**_flux_text(n), "image": _image(n), "strength": 0.7})


def flux_inpaint() -> Case:
    return Case(_flux("FluxInpaintPipeline"), lambda n: {**_flux_text(n), **_inpaint(n), "strength": 0.7})


CASES: dict[str, Callable[[], Case]] = {
    made.__name__: made
    for made in (
        sd, sd_v, sd_img2img, sd_inpaint, sd_inpaint_9, sd_controlnet, sdxl, sdxl_img2img, sdxl_inpaint,
        sdxl_controlnet, sd3, sd3_img2img, sd3_inpaint, flux, flux_img2img, flux_inpaint,
    )
}  # fmt: skip


@cache
def _made(name: str) -> tuple[Case, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sorted(CASES).index(name))
        pipe, inputs = CASES[name]()
    return Case(_quiet(pipe), inputs), pipe.scheduler


def case(name: str) -> Case:
    """The pipeline with a new scheduler of its own kind. Its networks are made once: nobody may change them."""
    made, own = _made(name)
    made.pipe.scheduler = type(own).from_config(own.config)
    return made


def sample(one: Case, images: int = 1, steps: int = 4, first: int = 0, **changes: Any) -> torch.Tensor:
    """The final latents of that many images; image k has the seed first + k."""
    generators = [torch.Generator().manual_seed(first + k) for k in range(images)]
    call = {"num_inference_steps": steps, "generator": generators, "output_type": "latent", **one.inputs(images)}
    return one.pipe(**{**call, **changes}).images
