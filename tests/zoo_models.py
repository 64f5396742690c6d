"""Tiny random pipelines with text encoders and tokenizers, as `model=pipeline` loads them from a folder.

`folder(path, name)` writes one. The weights are the same in every run; a fraction of a second each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import tiny
import torch
import transformers
import zoo

from harness.embedded import nets

WIDTH = zoo.TEXT


def _clip(projects: bool = False) -> Any:
    vocabulary = len(nets.tokenizer())
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=nets.CONTEXT,
        projection_dim=WIDTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return (transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel)(config)


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=len(nets.tokenizer()), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def _gemma() -> Any:
    config = transformers.Gemma2Config(
        vocab_size=len(nets.tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.Gemma2Model(config)


def _bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=len(nets.tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
    )
    return transformers.BertModel(config)


def _words(**parts: Any) -> dict[str, Any]:
    return {**parts, **{name.replace("text_encoder", "tokenizer"): nets.tokenizer() for name in parts}}


def sd() -> Any:
    return tiny.pipeline("sd1")


def sd_inpaint() -> Any:
    nine = tiny.pipeline("inpaint")
    return diffusers.StableDiffusionInpaintPipeline(**nine.components, requires_safety_checker=False)


def instruct_pix2pix() -> Any:
    parts = _words(text_encoder=_clip())
    return zoo._sd("StableDiffusionInstructPix2PixPipeline", unet=zoo._unet(in_channels=8), **parts)


def _xl_words() -> dict[str, Any]:
    return _words(text_encoder=_clip(), text_encoder_2=_clip(projects=True))


def _xl_unet(**more: Any) -> Any:
    return zoo._unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + WIDTH,
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
        cross_attention_dim=2 * WIDTH,
        **more,
    )


def sdxl() -> Any:
    return zoo._sdxl("StableDiffusionXLPipeline", unet=_xl_unet(), **_xl_words())


def sdxl_inpaint() -> Any:
    return zoo._sdxl("StableDiffusionXLInpaintPipeline", unet=_xl_unet(in_channels=9), **_xl_words())


def sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=zoo.SIZE // 2,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        out_channels=16,
        pos_embed_max_size=zoo.SIZE // 2,
    )
    encoders = {"text_encoder": _clip(True), "text_encoder_2": _clip(True), "text_encoder_3": _wide_t5()}
    return zoo._sd3("StableDiffusion3Pipeline", transformer=transformer, **_words(**encoders))


def _wide_t5() -> Any:
    config = transformers.T5Config(
        vocab_size=len(nets.tokenizer()), d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def _flux_words() -> dict[str, Any]:
    return _words(text_encoder=_clip(), text_encoder_2=_t5())


def _told_transformer(in_channels: int, out_channels: int = 16) -> Any:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=in_channels,
        out_channels=out_channels,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )


def flux() -> Any:
    return zoo._flux("FluxPipeline", transformer=_told_transformer(16), **_flux_words())


def flux_fill() -> Any:
    # The packed latents, those of the masked image, and a mask of the VAE's factor squared for each of four latents.
    return zoo._flux("FluxFillPipeline", transformer=_told_transformer(16 + 16 + 16), **_flux_words())


def flux_kontext() -> Any:
    return zoo._flux("FluxKontextPipeline", transformer=_told_transformer(16), **_flux_words())


def chroma() -> Any:
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    vae = zoo._vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow(shift=3.0, use_dynamic_shifting=True)}
    return diffusers.ChromaPipeline(**parts, **_words(text_encoder=_t5()))


def pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=zoo.SIZE // 2,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
    )
    parts = {"vae": zoo._vae(), "transformer": transformer, "scheduler": zoo._ddim()}
    return diffusers.PixArtSigmaPipeline(**parts, **_words(text_encoder=_t5()))


def sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=16,
    )
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow(shift=3.0)}
    return diffusers.SanaPipeline(**parts, **_words(text_encoder=_gemma()))


def lumina2() -> Any:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=zoo.SIZE // 2,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 512, 512),
        cap_feat_dim=WIDTH,
    )
    vae = zoo._vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow()}
    return diffusers.Lumina2Pipeline(**parts, **_words(text_encoder=_gemma()))


def auraflow() -> Any:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=zoo.SIZE // 2,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=256,
    )
    parts = {"vae": zoo._vae(), "transformer": transformer, "scheduler": zoo._flow(shift=1.73)}
    return diffusers.AuraFlowPipeline(**parts, **_words(text_encoder=_t5()))


def hunyuan_dit() -> Any:
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=zoo.SIZE // 2,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        hidden_size=16,
        activation_fn="gelu-approximate",
    )
    vae = diffusers.AutoencoderKL(  # the pipeline counts on eight pixels a latent
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=zoo.SIZE,
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._ddim()}
    words = _words(text_encoder=_bert(), text_encoder_2=_t5())
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.HunyuanDiTPipeline(**parts, **words, **nothing)


MODELS = {
    made.__name__: made
    for made in (
        sd, sd_inpaint, instruct_pix2pix, sdxl, sdxl_inpaint, sd3, flux, flux_fill, flux_kontext, chroma, pixart, sana,
        lumina2, auraflow, hunyuan_dit,
    )
}  # fmt: skip
TASKS = {
    "sd_inpaint": "inpaint",
    "sdxl_inpaint": "inpaint",
    "flux_fill": "inpaint",
    "instruct_pix2pix": "edit",
    "flux_kontext": "edit",
}


def pipeline(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sorted(MODELS).index(name))
        return zoo._quiet(MODELS[name]())


def folder(path: Path, name: str) -> Path:
    pipeline(name).save_pretrained(path)
    return path
