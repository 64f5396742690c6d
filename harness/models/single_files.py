"""One .safetensors file that holds the networks of a pipeline: which of them, and whose configuration fits it.

diffusers reads it, in the original layouts and in its own names alike. The rest of the pipeline, from configurations to
networks that the file lacks, is in a folder. No torch at its top.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models.base import Spec
from harness.models.families import Family
from harness.models.files import safetensors_shapes
from harness.models.parts import UNET, check_single_unet
from harness.models.pickles import PICKLED

# Networks and VAEs of which diffusers reads single files.
READ = (
    "AuraFlowTransformer2DModel", "AutoencoderDC", "AutoencoderKL", "AutoencoderKLLTXVideo", "AutoencoderKLWan",
    "ChromaTransformer2DModel", "FluxTransformer2DModel", "LTXVideoTransformer3DModel",
    "Lumina2Transformer2DModel", "QwenImageTransformer2DModel", "SD3Transformer2DModel", "SanaTransformer2DModel",
    "UNet2DConditionModel", "WanTransformer3DModel", "ZImageTransformer2DModel",
)  # fmt: skip
VAES = ("first_stage_model.", "vae.")  # how the names of a VAE begin
TEXTS = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.")  # and those of text encoders
# The tensors by which diffusers knows that a file holds a text encoder of a class.
_CLIP = (
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    "cond_stage_model.model.token_embedding.weight",
    "conditioner.embedders.1.model.positional_embedding",
    "conditioner.embedders.0.model.text_projection",
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight",
    "text_encoders.clip_g.transformer.text_model.embeddings.position_embedding.weight",
)
ENCODERS = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "T5EncoderModel": ("text_encoders.t5xxl.transformer.shared.weight",),
}


def given(spec: Spec) -> Path | None:
    """The single file that `model.path` names; None for a folder or a hub id. InputError for one that is not read."""
    path = expanded(spec.get("path"))
    if path.suffix not in (".safetensors", *PICKLED) or path.is_dir():
        return None
    if path.suffix in PICKLED:
        raise InputError(f"model.path={path}: of single files model=pipeline reads .safetensors alone: convert it")
    if not path.is_file():
        raise InputError(f"model.path={path}: there is no such file")
    if spec.get("gguf"):
        raise InputError(f"model.path={path} and model.gguf both hold a network: give model.path a folder or a hub id")
    return path


def configuration(spec: Spec, file: Path) -> str:
    """The folder or hub id of the pipeline whose configuration fits: `model.config`, or what diffusers takes it for."""
    shapes = safetensors_shapes(file)
    if all(name.startswith((*VAES, *TEXTS)) for name in shapes):
        raise InputError(f"model.path={file} holds no network that denoises, but {len(shapes)} tensors of other parts")
    if spec.get("config"):
        return str(spec["config"])
    stat = file.stat()
    hub_id = _customary(file, stat.st_size, stat.st_mtime_ns)
    if hub_id is None:
        raise InputError(
            f"model.path={file} is no checkpoint that diffusers knows by its tensors: name the pipeline that it is of, "
            "model.config=FOLDER_OR_HUB_ID"
        )
    return hub_id


@lru_cache(maxsize=64)
def _customary(file: Path, size: int, changed: int) -> str | None:
    """The hub id that diffusers has for checkpoints with such tensors. Imports torch, for diffusers does."""
    import torch
    from diffusers.loaders import single_file_utils as known

    with torch.device("meta"):
        held = {name: torch.empty(shape) for name, shape in safetensors_shapes(file).items()}
    try:
        kind = known.infer_diffusers_model_type(held)
    except (LookupError, ValueError, AttributeError, UnboundLocalError):  # shapes that nobody thought of
        return None
    if kind == "v1" and known.CHECKPOINT_KEY_NAMES[kind] not in held:  # its answer where it knows none
        return None
    return known.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]


def held(file: Path, index: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    """The parts of the pipeline that the file holds. InputError where diffusers does not read one of them from it."""
    shapes = safetensors_shapes(file)
    parts = [family.network]
    if any(name.startswith(VAES) for name in shapes):
        parts.append(family.vae)
    for name in parts:
        if isinstance(index.get(name), list) and index[name][-1] not in READ:
            raise InputError(
                f"model.path={file}: diffusers reads no single file of a {index[name][-1]}: give the folder of the "
                f"{index['_class_name']}"
            )
    for name, entry in index.items():
        if isinstance(entry, list) and any(tensor in shapes for tensor in ENCODERS.get(entry[-1], ())):
            parts.append(name)
    return tuple(parts)


def check_network(file: Path, kind: str, network: Mapping[str, Any]) -> None:
    """The sizes of a UNet in its original layout are those of the configuration."""
    shapes = safetensors_shapes(file)
    if kind == "UNet2DConditionModel" and any(name.startswith(UNET) for name in shapes):
        check_single_unet(file, shapes, network)
