"""What is put into a pipeline: switches of how it computes, and adapters. Known before one is loaded; imports no torch.

Each is an axis of the sweep (harness/axes.py, `fits`). Whether it can be on a device, for a network and with what is
installed is said here, in one line. What they change and cost: docs/pipelines.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from harness.errors import InputError
from harness.models import adapters

UNET = "UNet2DConditionModel"
FUSING = (UNET, "SD3Transformer2DModel", "PixArtTransformer2DModel", "AuraFlowTransformer2DModel", "HunyuanDiT2DModel")
# Which call their network within a context that tells the halves of guidance apart, as diffusers' caches must know.
CACHING = ("FluxPipeline", "QwenImagePipeline", "CogView4Pipeline", "LTXPipeline", "WanPipeline")
# Whose attention goes where it is sent; the others call PyTorch's by name, whatever is set.
DISPATCHING = (
    "FluxTransformer2DModel", "ChromaTransformer2DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel",
    "LTXVideoTransformer3DModel", "WanTransformer3DModel",
)  # fmt: skip
ATTENTION_PACKAGES = {"flash": "flash_attn", "xformers": "xformers", "sage": "sageattention"}
# VAEs that decode in slices and tiles.
SLICED = (
    "AutoencoderKL", "AutoencoderKLQwenImage", "AutoencoderKLWan", "AutoencoderKLLTXVideo", "AutoencoderDC",
)  # fmt: skip
EXCLUSIVE = ("offload", "compile", "layerwise_casting", "quantization")
# The pipeline that a pipeline becomes with perturbed-attention guidance.
PERTURBED = {
    "StableDiffusionPipeline": "StableDiffusionPAGPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLPAGPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3PAGPipeline",
    "PixArtSigmaPipeline": "PixArtSigmaPAGPipeline",
    "SanaPipeline": "SanaPAGPipeline",
    "HunyuanDiTPipeline": "HunyuanDiTPAGPipeline",
}
# Which give both halves of guidance to the network in one batch, the unconditional one first.
HALVED = (
    "StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline", "SanaPipeline",
    "HunyuanDiTPipeline",
)  # fmt: skip


class Where(NamedTuple):
    """What a switch is to be thrown on."""

    network: str  # class of what is called each step
    vae: str  # class of the VAE
    device: str
    precision: str
    pipeline: str  # its class
    task: str


def check(name: str, fitted: Mapping[str, Any], where: Where) -> None:
    """InputError, one line, for a switch or adapter that cannot be there."""
    for axis, value in fitted.items():
        reason = CHECKS[axis](value, where)
        if reason:
            text = str(value).lower() if isinstance(value, bool) else value
            raise InputError(f"{axis}={text} cannot be for model {name} here: {reason}")
    for exclusive in (EXCLUSIVE, ("pag_scale", "cfg_interval")):
        both = [axis for axis in exclusive if axis in fitted]
        if len(both) > 1:
            raise InputError(f"{' and '.join(both)} exclude each other: give one of them")
    kinds = {one["kind"] for one in fitted.get("adapters", ())}
    if "quantization" in fitted and "lora" in kinds:
        raise InputError(
            "a LoRA is not put on weights of quantization: merge it into the model first, or leave one out"
        )
    for axis in ("pag_scale", "step_cache"):
        if axis in fitted and kinds & {*adapters.CONTROLS}:
            raise InputError(f"{axis} and a controlnet or t2i_adapter exclude each other: give one of them")


def _attention(value: str, where: Where) -> str | None:
    if value == "sliced":
        return None if where.network == UNET else f"slicing is of {UNET}, and its network is {where.network}"
    able = (*DISPATCHING, UNET) if value in ("math", "xformers") else DISPATCHING
    if where.network not in able:
        return f"{where.network} calls PyTorch's attention by name, which takes the fastest kernel there is by itself"
    if value == "math":
        return None
    if not where.device.startswith("cuda"):
        return f"it needs a CUDA device, and this is {where.device}"
    package = ATTENTION_PACKAGES[value]
    return None if find_spec(package) else f"it needs the package {package}"


def _vae(value: bool, where: Where) -> str | None:
    return None if where.vae in SLICED else f"it is of {', '.join(SLICED)}, and its VAE is {where.vae}"


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
    return None if where.pipeline in CACHING else f"its {where.pipeline} is not one of {', '.join(CACHING)}"


def _adapters(value: tuple[Mapping[str, Any], ...], where: Where) -> str | None:
    return adapters.check(value, where.pipeline, where.task)


def _quantized(value: str, where: Where) -> str | None:
    cuda = where.device.startswith("cuda")
    if value == "nf4":
        return None if find_spec("bitsandbytes") else "it needs the package bitsandbytes"
    if value == "fp8" and not cuda:
        return f"products of 8-bit floats need a CUDA device, and this is {where.device}"
    if not cuda:
        if where.device != "cpu":
            return f"it is for the CPU and for CUDA devices, and this is {where.device}"
        return None if where.precision == "fp32" else "on the CPU it is for precision=fp32"
    return None if find_spec("torchao") else "it needs the package torchao"


def _tf32(value: bool, where: Where) -> str | None:
    if not where.device.startswith("cuda"):
        return f"it needs a CUDA device of Ampere or later, and this is {where.device}"
    return None if where.precision == "fp32" else f"it is for precision=fp32, and this is {where.precision}"


def _pag(value: float, where: Where) -> str | None:
    return None if where.pipeline in PERTURBED else f"it is for {', '.join(PERTURBED)}, and this is a {where.pipeline}"


def _interval(value: Any, where: Where) -> str | None:
    if where.pipeline in HALVED:
        return None
    return f"a {where.pipeline} does not ask for both halves of guidance in one batch, unconditional first"


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
    "quantization": _quantized,
    "tf32": _tf32,
    "pag_scale": _pag,
    "cfg_interval": _interval,
}
