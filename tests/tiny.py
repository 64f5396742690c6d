"""Tiny pipelines with random weights, of the classes that Stable Diffusion 1.x, 2.x and inpainting are made of.

`folder(path, kind)` writes one in the layout of diffusers, `single_file(...)` as one original checkpoint. The weights
are the same in every run; well under a second each.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

KINDS = ("sd1", "sd2", "inpaint", "flow")
SIZE = 32  # pixels a side; 8 latents
WIDTH = 16  # of the text


def pipeline(kind: str = "sd1"):
    """A StableDiffusionPipeline: ε-prediction (sd1), v-prediction with OpenCLIP-like text (sd2), 9 channels (inpaint),
    or a UNet taken to predict the velocity of a rectified flow (flow)."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        FlowMatchEulerDiscreteScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )  # fmt: skip
    from transformers import CLIPTextConfig, CLIPTextModel

    from harness.embedded import nets

    second = kind == "sd2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        tokenizer = nets.tokenizer()
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=nets.CONTEXT,
                hidden_act="gelu" if second else "quick_gelu",
                bos_token_id=len(tokenizer) - 2,
                eos_token_id=len(tokenizer) - 1,
                pad_token_id=len(tokenizer) - 1,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=SIZE // 4,
            in_channels=9 if kind == "inpaint" else 4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=(2, 4) if second else 2,
            use_linear_projection=second,
            norm_num_groups=4,
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction" if second else "epsilon",
    )
    if kind == "flow":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def folder(path: Path, kind: str = "sd1", variant: str | None = None) -> Path:
    """Write the pipeline as a folder of safetensors; `variant` names its files and stores float16."""
    pipe = pipeline(kind)
    pipe.to(dtype=torch.float16 if variant else torch.float32).save_pretrained(path, variant=variant)
    return path


def spec(path: Path, **changes) -> dict:
    """The plain values of `model=diffusers model.path=path`."""
    return {"name": "tiny", "path": str(path), **changes}


def single_file(path: Path, kind: str = "sd1") -> Path:
    """Write the pipeline's weights under the names of the original Stable Diffusion 1.x checkpoints."""
    from safetensors.torch import save_file

    pipe = pipeline(kind)
    state = {f"model.diffusion_model.{_unet_name(k)}": v for k, v in pipe.unet.state_dict().items()}
    for name, value in pipe.vae.state_dict().items():
        old = _vae_name(name)
        state[f"first_stage_model.{old}"] = (
            value[..., None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", old) else value
        )
    for name, value in pipe.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _unet_name(name: str) -> str:
    """diffusers' name of a UNet parameter (one layer a block) to the original one."""
    for new, old in _ENDS.items():
        if name.startswith(new + "."):
            return name.replace(new, old, 1)
    match = re.match(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if match is None:
        kind, layer, rest = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name).groups()
        return f"middle_block.{2 * int(layer) if kind == 'resnets' else 1}.{_inner(kind, rest)}"
    side, block, kind, layer, rest = match.groups()
    block, layer = int(block), int(layer)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{2 * block + 2}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{2 * block + 1 + layer}.{int(kind == 'attentions')}.{_inner(kind, rest)}"
    if kind == "upsamplers":
        return f"output_blocks.{2 * block + 1}.1.{rest}"
    return f"output_blocks.{2 * block + layer}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    part, _, end = rest.partition(".")
    return f"{_RESNET[part]}.{end}"


def _vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{2 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    for new, old in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    return name.replace("conv_norm_out", "norm_out")
