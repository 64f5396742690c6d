"""What is put into a pipeline: switches of how it computes, and adapters. Known before one is loaded; imports no torch.

Each is an axis of the sweep (harness/axes.py, `fits`). Whether it can be on a device, for a network and with what is
installed is said here, in one line. What they change and cost: docs/pipelines.md.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models.files import check_is_weights

UNET = "UNet2DConditionModel"
FUSING = (UNET, "SD3Transformer2DModel", "PixArtTransformer2DModel", "AuraFlowTransformer2DModel", "HunyuanDiT2DModel")
CACHING = ("FluxTransformer2DModel",)  # the one that pipelines here call within a cache's context
ATTENTION_PACKAGES = {"flash": "flash_attn", "xformers": "xformers", "sage": "sageattention"}
EXCLUSIVE = ("offload", "compile", "layerwise_casting")


class Where(NamedTuple):
    """What a switch is to be thrown on."""

    network: str  # class of what is called each step
    vae: str  # class of the VAE
    device: str
    precision: str


def check(name: str, fitted: Mapping[str, Any], where: Where) -> None:
    """InputError, one line, for a switch or adapter that cannot be there."""
    for axis, value in fitted.items():
        reason = CHECKS[axis](value, where)
        if reason:
            text = str(value).lower() if isinstance(value, bool) else value
            raise InputError(f"{axis}={text} cannot be for model {name} here: {reason}")
    both = [axis for axis in EXCLUSIVE if axis in fitted]
    if len(both) > 1:
        raise InputError(f"{' and '.join(both)} exclude each other: give one of them")


def _attention(value: str, where: Where) -> str | None:
    if value == "sliced":
        return None if where.network == UNET else f"slicing is of {UNET}, and its network is {where.network}"
    if not where.device.startswith("cuda"):
        return f"it needs a CUDA device, and this is {where.device}"
    package = ATTENTION_PACKAGES[value]
    return None if find_spec(package) else f"it needs the package {package}"


def _vae(value: bool, where: Where) -> str | None:
    return None if where.vae == "AutoencoderKL" else f"it is of AutoencoderKL, and its VAE is {where.vae}"


def _of_unet(value: Any, where: Where) -> str | None:
    return None if where.network == UNET else f"it is of {UNET}, and its network is {where.network}"


def _offload(value: str, where: Where) -> str | None:
    if not find_spec("accelerate"):
        return "it needs the package accelerate"
    if value != "group" and not where.device.startswith("cuda"):
        return f"it moves networks between a GPU and the CPU, and this is {where.device}"
    return None


def _compile(value: str, where: Where) -> str | None:
    if value != "default" and not where.device.startswith("cuda"):
        return f"it tunes for a GPU, and this is {where.device}; take compile=default"
    if where.device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "on the CPU it needs a C++ compiler (g++)"
    return None


def _fuse(value: bool, where: Where) -> str | None:
    return None if where.network in FUSING else f"{where.network} has no projections that fuse"


def _layerwise(value: bool, where: Where) -> str | None:
    return "weights of 8 bits are for fp32, bf16 and fp16" if where.precision == "fp64" else None


def _cache(value: str, where: Where) -> str | None:
    return None if where.network in CACHING else f"its network {where.network} is not one of {', '.join(CACHING)}"


def _adapters(value: tuple[Mapping[str, Any], ...], where: Where) -> str | None:
    if any(one["kind"] == "lora" for one in value) and not find_spec("peft"):
        return "a LoRA needs the package peft"
    for one in value:
        weights(one)
    return None


def _scale(value: float, where: Where) -> str | None:
    return None


CHECKS: dict[str, Callable[[Any, Where], str | None]] = {
    "adapters": _adapters,
    "adapter_scale": _scale,
    "attention": _attention,
    "vae_slicing": _vae,
    "vae_tiling": _vae,
    "channels_last": _of_unet,
    "offload": _offload,
    "compile": _compile,
    "fuse_qkv": _fuse,
    "layerwise_casting": _layerwise,
    "freeu": _of_unet,
    "step_cache": _cache,
}


# ------------------------------------------------------------------------------------------------------- adapters


def weights(adapter: Mapping[str, Any]) -> Path:
    """The file of an adapter's weights: the path itself, or the only .safetensors file of a folder."""
    path = expanded(adapter["path"])
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise InputError(f"adapters: {path} holds {len(found)} .safetensors files; give the path of one")
        path = found[0]
    if path.suffix != ".safetensors":
        raise InputError(f"adapters: {path} is no .safetensors file, the one format that is read")
    check_is_weights(path)
    return path


def with_digests(adapters: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Each with the digest of its file, by which a cell knows it."""
    return tuple(
        {**one, "sha256": _digest(path, path.stat().st_mtime_ns)} for one in adapters for path in [weights(one)]
    )


@lru_cache(maxsize=64)
def _digest(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
