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
    settings: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + WIDTH,
        "transformer_layers_per_block": (1, 1),
        "use_linear_projection": True,
        "cross_attention_dim": 2 * WIDTH,
    }
    return zoo._unet(**{**settings, **more})


def sdxl() -> Any:
    return zoo._sdxl("StableDiffusionXLPipeline", unet=_xl_unet(), **_xl_words())


def sdxl_inpaint() -> Any:
    return zoo._sdxl("StableDiffusionXLInpaintPipeline", unet=_xl_unet(in_channels=9), **_xl_words())


def sd3_network(kind: Any = diffusers.SD3Transformer2DModel, **more: Any) -> Any:
    """The network of a Stable Diffusion 3, or of its ControlNet; `more` replaces or adds settings."""
    settings: dict[str, Any] = {
        "sample_size": zoo.SIZE // 2,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 2 * WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 2 * WIDTH,
        "out_channels": 16,
        "pos_embed_max_size": zoo.SIZE // 2,
    }
    return kind(**{**settings, **more})


def sd3() -> Any:
    transformer = sd3_network()
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
    vae = _deep_vae(4)  # the pipeline counts on eight pixels a latent
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._ddim()}
    words = _words(text_encoder=_bert(), text_encoder_2=_t5())
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.HunyuanDiTPipeline(**parts, **words, **nothing)


def sdxl_refiner() -> Any:
    words = {**_words(text_encoder_2=_clip(projects=True)), "text_encoder": None, "tokenizer": None}
    unet = _xl_unet(cross_attention_dim=WIDTH, projection_class_embeddings_input_dim=5 * 4 + WIDTH)
    return zoo._sdxl("StableDiffusionXLImg2ImgPipeline", unet=unet, requires_aesthetics_score=True, **words)


def depth2img() -> Any:
    sees = transformers.DPTConfig(
        hidden_size=16,
        image_size=32,
        patch_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    return diffusers.StableDiffusionDepth2ImgPipeline(
        vae=zoo._vae(),
        unet=zoo._unet(in_channels=5),
        scheduler=zoo._ddim(),
        depth_estimator=transformers.DPTForDepthEstimation(sees),
        feature_extractor=transformers.DPTImageProcessor(size={"height": 32, "width": 32}),
        **_words(text_encoder=_clip()),
    )


def _deep_vae(blocks: int) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=zoo.SIZE,
    )


def sd_upscale_x4() -> Any:
    return diffusers.StableDiffusionUpscalePipeline(
        vae=_deep_vae(3),
        unet=zoo._unet(in_channels=7, sample_size=zoo.SIZE // 4, num_class_embeds=1000),
        low_res_scheduler=diffusers.DDPMScheduler(),
        scheduler=diffusers.DDIMScheduler.from_config(zoo._ddim().config, prediction_type="v_prediction"),
        max_noise_level=350,
        **_words(text_encoder=_clip()),
    )


def latent_upscale() -> Any:
    unet = diffusers.UNet2DConditionModel(
        sample_size=zoo.SIZE // 2,
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=(32, 32, 64, 64),
        time_cond_proj_dim=128 + WIDTH,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=WIDTH,
        down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3),
        in_channels=8,
        mid_block_type=None,
        only_cross_attention=False,
        out_channels=5,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"),
    )
    # On these levels Euler starts at unit variance, as the harness does.
    spacing = {"timestep_spacing": "leading", "steps_offset": 1}
    scheduler = diffusers.EulerDiscreteScheduler(**zoo.SD_NOISE, **spacing, prediction_type="sample")
    parts = {"vae": zoo._vae(), "unet": unet, "scheduler": scheduler}
    return diffusers.StableDiffusionLatentUpscalePipeline(**parts, **_words(text_encoder=_clip()))


def _sight() -> dict[str, Any]:
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=WIDTH,
    )
    return {
        "image_encoder": transformers.CLIPVisionModelWithProjection(config),
        "feature_extractor": transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    }


def image_variations() -> Any:
    return diffusers.StableDiffusionImageVariationPipeline(
        vae=zoo._vae(),
        unet=zoo._unet(),
        scheduler=zoo._ddim(),
        safety_checker=None,
        requires_safety_checker=False,
        **_sight(),
    )


def stable_unclip() -> Any:
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    return diffusers.StableUnCLIPImg2ImgPipeline(
        vae=zoo._vae(),
        unet=zoo._unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        scheduler=diffusers.DDIMScheduler.from_config(zoo._ddim().config, prediction_type="v_prediction"),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **_sight(),
        **_words(text_encoder=_clip()),
    )


def qwen_image() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, 0.0, -0.1, 0.2],
        latents_std=[1.0, 1.5, 0.8, 1.2],
    )
    vocabulary = len(nets.tokenizer())
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": vocabulary,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6},
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow(shift=3.0, use_dynamic_shifting=True)}
    words = _words(text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config))
    return diffusers.QwenImagePipeline(**parts, **words)


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[512, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # made without a value
        torch.nn.init.normal_(token)
    vae = zoo._vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    config = transformers.Qwen3Config(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=len(nets.tokenizer()),
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    words = _words(text_encoder=transformers.Qwen3Model(config))
    words["tokenizer"].chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow(shift=3.0)}
    return diffusers.ZImagePipeline(**parts, **words)


def cogview4() -> Any:
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=zoo.SIZE // 2,
    )
    config = transformers.GlmConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=len(nets.tokenizer()),
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    scheduler = zoo._flow(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    parts = {"vae": zoo._vae(), "transformer": transformer, "scheduler": scheduler}
    return diffusers.CogView4Pipeline(**parts, **_words(text_encoder=transformers.GlmModel(config)))


def _movq(blocks: int) -> Any:
    return diffusers.VQModel(
        block_out_channels=(32,) * blocks,  # its norms have 32 groups
        down_block_types=(*("DownEncoderBlock2D",) * (blocks - 1), "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * (blocks - 1)),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def kandinsky22() -> Any:
    unet = zoo._unet(
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )
    return diffusers.KandinskyV22Pipeline(unet=unet, movq=_movq(2), scheduler=zoo._ddim())


def kandinsky22_prior() -> Any:
    """What reads the text of `kandinsky22`."""
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=WIDTH, num_layers=1, num_embeddings=nets.CONTEXT
    )
    prior.clip_std = torch.nn.Parameter(torch.ones(prior.clip_std.shape))  # zeros would make every embedding one
    sight = _sight()
    return diffusers.KandinskyV22PriorPipeline(
        prior=prior,
        image_encoder=sight["image_encoder"],
        image_processor=sight["feature_extractor"],
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=10.0
        ),
        **_words(text_encoder=_clip(projects=True)),
    )


def kandinsky3() -> Any:
    unet = diffusers.Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    words = _words(text_encoder=_t5())
    return diffusers.Kandinsky3Pipeline(unet=unet, movq=_movq(4), scheduler=zoo._ddim(), **words)


def wan() -> Any:
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2],
        latents_std=[1.0, 1.5, 0.8, 1.2],
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": scheduler}
    return diffusers.WanPipeline(**parts, **_words(text_encoder=_t5()))


def ltx() -> Any:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=1,
        patch_size_t=1,
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": zoo._flow(use_dynamic_shifting=True)}
    return diffusers.LTXPipeline(**parts, **_words(text_encoder=_t5()))


MODELS = {
    made.__name__: made
    for made in (
        sd, sd_inpaint, instruct_pix2pix, sdxl, sdxl_inpaint, sd3, flux, flux_fill, flux_kontext, chroma, pixart, sana,
        lumina2, auraflow, hunyuan_dit, sdxl_refiner, depth2img, sd_upscale_x4, latent_upscale, image_variations,
        stable_unclip, qwen_image, z_image, cogview4, kandinsky22, kandinsky3, wan, ltx,
    )
}  # fmt: skip
TASKS = {
    "sd_inpaint": "inpaint",
    "sdxl_inpaint": "inpaint",
    "flux_fill": "inpaint",
    "instruct_pix2pix": "edit",
    "flux_kontext": "edit",
    "sdxl_refiner": "img2img",
    "depth2img": "img2img",
    **dict.fromkeys(("sd_upscale_x4", "latent_upscale", "image_variations", "stable_unclip"), "edit"),
}
# What a model needs to be told, beside its folder, on a command line.
WORDS = {
    "sdxl_refiner": ("strength=1",),
    "depth2img": ("strength=1",),
    "kandinsky3": ("model.height=64", "model.width=64"),
    "kandinsky22": ("model.prior={folder}_prior",),
    "wan": ("model.num_frames=9",),
    "ltx": ("model.num_frames=9",),
    "cogview4": ("model.max_sequence_length=48",),
}


def pipeline(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sorted(MODELS).index(name))
        return zoo._quiet(MODELS[name]())


def prior() -> Any:
    """The pipeline that reads the text of `kandinsky22`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo._quiet(kandinsky22_prior())


def folder(path: Path, name: str) -> Path:
    pipeline(name).save_pretrained(path)
    if name == "kandinsky22":
        prior().save_pretrained(f"{path}_prior")
    return path
