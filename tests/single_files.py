"""Tiny pipelines whose networks lie in one file, under the names that the original checkpoints have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import tiny
import torch
import transformers
import zoo
import zoo_models
from safetensors.torch import save_file
from torch import Tensor

from harness.embedded import nets

SECOND = 24  # width of SDXL's second text: diffusers tells the two encoders of a file apart by their widths


def _second_clip() -> Any:
    vocabulary = len(nets.tokenizer())
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=SECOND,
        intermediate_size=2 * SECOND,
        num_hidden_layers=10,  # the tenth is what SDXL is known by
        num_attention_heads=2,
        max_position_embeddings=nets.CONTEXT,
        hidden_act="gelu",
        projection_dim=SECOND,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return transformers.CLIPTextModelWithProjection(config)


def sdxl() -> Any:
    """An SDXL whose parts have the shapes by which diffusers knows a checkpoint of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = zoo_models._words(text_encoder=zoo_models._clip(), text_encoder_2=_second_clip())
        unet = zoo_models._xl_unet(
            cross_attention_dim=zoo_models.WIDTH + SECOND, projection_class_embeddings_input_dim=6 * 4 + SECOND
        )
        pipe = zoo._sdxl("StableDiffusionXLPipeline", unet=unet, vae=tiny.pipeline("sd1").vae, **words)
    return zoo._quiet(pipe)


def sd3() -> Any:
    """A Stable Diffusion 3 with its three text encoders, of three widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = zoo_models.sd3_network(
            joint_attention_dim=2 * SECOND, pooled_projection_dim=zoo_models.WIDTH + SECOND
        )
        config = transformers.T5Config(
            vocab_size=len(nets.tokenizer()), d_model=2 * SECOND, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
        first = zoo_models._clip(True)
        first.text_projection.weight.data = torch.eye(zoo_models.WIDTH)  # which its files do not hold
        encoders = {"text_encoder": first, "text_encoder_2": _second_clip()}
        words = zoo_models._words(**encoders, text_encoder_3=transformers.T5EncoderModel(config))
        return zoo._quiet(zoo._sd3("StableDiffusion3Pipeline", transformer=transformer, **words))


def sd3_tensors(pipe: diffusers.StableDiffusion3Pipeline) -> dict[str, Tensor]:
    """The weights of `sd3` but for its VAE under the names of sd3_medium_incl_clips_t5xxlfp16.safetensors."""
    state, held = dict(pipe.transformer.state_dict()), {}
    block = "transformer_blocks.0."
    for side, names in (("x", ("to_q", "to_k", "to_v")), ("context", ("add_q_proj", "add_k_proj", "add_v_proj"))):
        for end in ("weight", "bias"):
            three = [state.pop(f"{block}attn.{name}.{end}") for name in names]
            held[f"joint_blocks.0.{side}_block.attn.qkv.{end}"] = torch.cat(three)
    renamed = {
        "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "norm_out.linear":
        "final_layer.adaLN_modulation.1", "proj_out": "final_layer.linear", f"{block}attn.to_out.0":
        "joint_blocks.0.x_block.attn.proj", f"{block}norm1.linear": "joint_blocks.0.x_block.adaLN_modulation.1",
        f"{block}norm1_context.linear": "joint_blocks.0.context_block.adaLN_modulation.1",
        f"{block}ff.net.0.proj": "joint_blocks.0.x_block.mlp.fc1", f"{block}ff.net.2": "joint_blocks.0.x_block.mlp.fc2",
        "time_text_embed.timestep_embedder.linear_": "t_embedder.mlp.",
        "time_text_embed.text_embedder.linear_": "y_embedder.mlp.",
    }  # fmt: skip
    for name, value in state.items():
        if name.startswith((f"{block}norm1_context", "norm_out")):  # shift and scale in the other order
            value = torch.cat(value.chunk(2)[::-1])
        for new, old in renamed.items():
            name = name.replace(new, old)
        held[name.replace("mlp.1.", "mlp.0.")] = value
    found = {f"model.diffusion_model.{name}": value for name, value in held.items()}
    encoders = {"clip_l": pipe.text_encoder, "clip_g": pipe.text_encoder_2, "t5xxl": pipe.text_encoder_3}
    for name, encoder in encoders.items():
        found |= {f"text_encoders.{name}.transformer.{key}": value for key, value in encoder.state_dict().items()}
    for lacking in ("clip_l.transformer.text_projection.weight", "t5xxl.transformer.encoder.embed_tokens.weight"):
        del found[f"text_encoders.{lacking}"]
    return found


def sdxl_tensors(pipe: diffusers.StableDiffusionXLPipeline) -> dict[str, Tensor]:
    """The weights of `sdxl` under the names of sd_xl_base_1.0.safetensors."""
    held = {f"model.diffusion_model.{_unet(name)}": value for name, value in pipe.unet.state_dict().items()}
    for name, value in pipe.vae.state_dict().items():
        old = tiny._vae_name(name)
        flat = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", old)
        held[f"first_stage_model.{old}"] = value[..., None, None] if flat else value
    for name, value in pipe.text_encoder.state_dict().items():
        held[f"conditioner.embedders.0.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    return held | {
        f"conditioner.embedders.1.model.{name}": value
        for name, value in _open_clip(pipe.text_encoder_2.state_dict()).items()
    }


def _unet(name: str) -> str:
    added = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    layer, _, end = name.rpartition(".")
    return f"{added[layer]}.{end}" if layer in added else tiny._unet_name(name)


def _open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder of transformers under the names of OpenCLIP, which has query, key and value in one."""
    state = {name.removeprefix("text_model."): value for name, value in state.items()}
    held = {
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "ln_final.weight": state.pop("final_layer_norm.weight"),
        "ln_final.bias": state.pop("final_layer_norm.bias"),
        "text_projection": state.pop("text_projection.weight").T,
    }
    renamed = {"encoder.layers.": "transformer.resblocks.", "layer_norm": "ln_", ".fc1.": ".c_fc.", ".fc2.": ".c_proj."}
    for name, value in state.items():
        for new, old in renamed.items():
            name = name.replace(new, old)
        layer, of, end = re.match(r"(.*)\.self_attn\.(\w+)\.(\w+)|", name).groups()
        if of == "out_proj":
            held[f"{layer}.attn.out_proj.{end}"] = value
        elif of is None:
            held[name] = value
        else:
            parts = held.setdefault(f"{layer}.attn.in_proj_{end}", torch.zeros(3 * len(value), *value.shape[1:]))
            place = ("q_proj", "k_proj", "v_proj").index(of)
            parts[place * len(value) : (place + 1) * len(value)] = value
    return held


def z_image_tensors(transformer: diffusers.ZImageTransformer2DModel) -> dict[str, Tensor]:
    """The weights of a Z-Image under its original names, query, key and value in one."""
    held, state = {}, dict(transformer.state_dict())
    for name in [name for name in state if name.endswith("attention.to_q.weight")]:
        three = [state.pop(name.replace("to_q", one)) for one in ("to_q", "to_k", "to_v")]
        held[name.replace("to_q", "qkv")] = torch.cat(three)
    renamed = {
        "all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.", ".to_out.0.": ".out.",
        ".norm_k.": ".k_norm.", ".norm_q.": ".q_norm.",
    }  # fmt: skip
    for name, value in state.items():
        for new, old in renamed.items():
            name = name.replace(new, old)
        held[name] = value
    return held


def written(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return path
