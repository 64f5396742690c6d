"""Adapters and switches put into a pipeline that is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from harness.errors import InputError, one_line
from harness.models import lycoris
from harness.models.adapters import weights
from harness.models.switches import DISPATCHING

FREEU = {"b1": 1.5, "b2": 1.6, "s1": 0.9, "s2": 0.2}  # what 2309.11497 recommends for Stable Diffusion 1.x
FIRST_BLOCK = 0.05  # relative change of the first block's residual up to which the others are not computed again
TAYLOR = {"cache_interval": 5, "disable_cache_before_step": 3, "max_order": 1}  # diffusers' own, after 2503.06923
# What of a block is extrapolated, by its name: attention, as diffusers has it, which also a block that calls its one
# feed-forward network for the image and for the text (CogView4's) calls once.
FORETOLD = [r"(single_)?(transformer_)?blocks\.\d+\.attn\d?"]


class Fit(NamedTuple):
    pipe: Any
    network: Any
    vae: Any
    dtype: torch.dtype


def fit(fit: Fit, fitted: Mapping[str, Any]) -> None:
    """Everything of `fitted`, adapters first, in the order in which they do not undo each other."""
    adapters = fitted.get("adapters", ())
    with _naming("adapters"):
        _put_in(fit.pipe, adapters, fitted.get("adapter_scale", 1.0))
    for name, throw in SWITCHES.items():
        if name in fitted:
            with _naming(name):
                throw(fitted[name], fit)


class _naming:
    """What diffusers says of an adapter or switch that does not fit, in one line that names it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and isinstance(error, Exception) and not isinstance(error, InputError):
            raise InputError(f"{self.name} cannot be put into this pipeline: {one_line(error)[:250]}") from error


def _put_in(pipe: Any, adapters: tuple[Mapping[str, Any], ...], scale: float) -> None:
    scales: dict[str, float] = {}
    for k, one in enumerate(adapters):
        file = weights(one)
        if one["kind"] == "lora" and lycoris.check(file):
            lycoris.put_in(pipe, file, float(one.get("scale", 1.0)) * scale)
        elif one["kind"] == "lora":
            name = f"lora{k}"
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name, local_files_only=True)
            scales[name] = float(one.get("scale", 1.0)) * scale
        elif one["kind"] == "textual_inversion":
            pipe.load_textual_inversion(str(file), token=one.get("token"), local_files_only=True)
    if scales:
        pipe.set_adapters(list(scales), adapter_weights=list(scales.values()))


def _attention(value: str, fit: Fit) -> None:
    from diffusers.models.attention_dispatch import attention_backend
    from diffusers.models.attention_processor import AttnProcessor

    if value == "sliced":
        fit.pipe.enable_attention_slicing()
    elif type(fit.network).__name__ in DISPATCHING:
        with attention_backend("native"):  # after it the next model of this process has PyTorch's again
            fit.network.set_attention_backend("_native_math" if value == "math" else value)
    elif value == "math":
        fit.network.set_attn_processor(AttnProcessor())
    else:
        fit.network.enable_xformers_memory_efficient_attention()


def _offload(value: str, fit: Fit) -> None:
    if value == "model":
        fit.pipe.enable_model_cpu_offload()
    elif value == "sequential":
        fit.pipe.enable_sequential_cpu_offload()
    else:
        fit.pipe.enable_group_offload(
            onload_device=fit.pipe.device, offload_device=torch.device("cpu"), offload_type="leaf_level"
        )


def _channels_last(value: bool, fit: Fit) -> None:
    fit.network.to(memory_format=torch.channels_last)
    fit.vae.to(memory_format=torch.channels_last)


def _step_cache(value: str, fit: Fit) -> None:
    from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig

    if value == "first_block":
        fit.network.enable_cache(FirstBlockCacheConfig(threshold=FIRST_BLOCK))
    else:
        factors = {"taylor_factors_dtype": fit.dtype, "cache_identifiers": FORETOLD}
        fit.network.enable_cache(TaylorSeerCacheConfig(**TAYLOR, **factors))


def _layerwise(value: bool, fit: Fit) -> None:
    fit.network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=fit.dtype)


def _quantized(value: str, fit: Fit) -> None:
    if value == "nf4":
        return _to_nf4(fit.network, fit.dtype)
    if value == "int8" and fit.pipe.device.type == "cpu":
        torch.ao.quantization.quantize_dynamic(fit.network, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
        return None
    from torchao import quantization  # pyright: ignore[reportMissingImports]  # an extra

    if value == "fp8" and torch.cuda.get_device_capability(fit.pipe.device) < (8, 9):
        raise InputError("quantization=fp8 needs a CUDA device of compute capability 8.9 or later")
    how = {"int8": "Int8DynamicActivationInt8WeightConfig", "fp8": "Float8DynamicActivationFloat8WeightConfig"}
    quantization.quantize_(fit.network, getattr(quantization, how[value])())
    return None


def _to_nf4(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Every linear layer of a network by one of bitsandbytes, whose weights are quantized on the way to the device."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # pyright: ignore[reportMissingImports]  # an extra

    for name, old in [*network.named_modules()]:
        if type(old) is not torch.nn.Linear:
            continue
        new = Linear4bit(
            old.in_features, old.out_features, old.bias is not None, dtype, quant_type="nf4", device="meta"
        )
        new.weight = Params4bit(old.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        new.bias = old.bias
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, new.to(old.weight.device))


SWITCHES: dict[str, Callable[[Any, Fit], None]] = {
    "fuse_qkv": lambda value, fit: fit.network.fuse_qkv_projections(),
    "attention": _attention,
    "channels_last": _channels_last,
    "vae_slicing": lambda value, fit: fit.vae.enable_slicing(),
    "vae_tiling": lambda value, fit: fit.vae.enable_tiling(),
    "freeu": lambda value, fit: fit.pipe.enable_freeu(**FREEU),
    "step_cache": _step_cache,
    "layerwise_casting": _layerwise,
    "quantization": _quantized,
    "offload": _offload,
    "compile": lambda value, fit: fit.network.compile(mode=None if value == "default" else value),
}
