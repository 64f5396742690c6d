"""LyCORIS files (2309.14859): LoHa and LoKr, whose products are added to the weights of a pipeline that is loaded.

LoRA and LoCon are read by diffusers itself. The products are peft's; which layer a name means is found here, for names
of diffusers (`unet.down_blocks.0…`) and of kohya (`lora_unet_down_blocks_0_…`, those of SDXL's own layout too).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.models.files import safetensors_shapes

if TYPE_CHECKING:
    from torch import Tensor

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
READ = (*LOHA, *LOKR, "alpha")
# What neither library reads; of a magnitude (DoRA) diffusers says in its log alone that it leaves it out.
OTHERS = ("oft_blocks", "oft_diag", "on_input", "diff", "diff_b", "w_norm", "b_norm", "dora_scale", "lora_mid")
# How names of a part of a pipeline begin, the longer ones first.
BEGINNINGS = {
    "lora_unet_": "unet", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te_": "text_encoder",
    "lora_transformer_": "transformer", "unet.": "unet", "transformer.": "transformer",
    "text_encoder_2.": "text_encoder_2", "text_encoder.": "text_encoder",
}  # fmt: skip
# SDXL's own names within a block, beside those of diffusers.
SGM = {
    "input_blocks": "down_blocks", "middle_block": "mid_block", "output_blocks": "up_blocks", "in_layers_2": "conv1",
    "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj", "skip_connection": "conv_shortcut", "_op": "_conv",
}  # fmt: skip


def check(file: Path) -> bool:
    """Whether a file holds LoHa or LoKr, by its header. InputError for what of LyCORIS nobody here reads."""
    ends = {name.removesuffix(".weight").rpartition(".")[2] for name in safetensors_shapes(file)}
    found = bool(ends & {*LOHA, *LOKR})
    other = sorted(ends.intersection(OTHERS) or (ends.difference(READ) if found else ()))
    if other:
        raise InputError(f"adapters: {file} holds {other[0]}: of LyCORIS, LoRA, LoCon, LoHa and LoKr are read")
    return found


def put_in(pipe: Any, file: Path, scale: float) -> None:
    """W + scale·ΔW for every layer that the file names. InputError where the pipeline has not one of them."""
    import torch
    from safetensors.torch import load_file

    held = load_file(file)
    if any(block in name for name in held for block in ("input_blocks", "middle_block", "output_blocks")):
        held = _of_diffusers(held, pipe)
    factors: dict[str, dict[str, Tensor]] = {}
    for name, value in held.items():
        layer, _, end = name.rpartition(".")
        factors.setdefault(layer, {})[end] = value.float()
    layers = {part: _layers(network) for part, network in pipe.components.items() if hasattr(network, "named_modules")}
    for name, parts in factors.items():
        weight = _weight(name, layers, file)
        change = _change(parts)
        if change.numel() != weight.numel():
            raise InputError(
                f"adapters: {file} changes {name} by {tuple(change.shape)}, and it is {tuple(weight.shape)}"
            )
        with torch.no_grad():
            changed = weight.float() + scale * change.reshape(weight.shape).to(weight.device)
            weight.copy_(changed)


def _layers(network: Any) -> dict[str, Any]:
    """Weights by the names of their layers, with _ for every dot."""
    found = {name.replace(".", "_"): getattr(layer, "weight", None) for name, layer in network.named_modules()}
    # Some releases of transformers have this level, and some have not.
    return {name.removeprefix("text_model_"): weight for name, weight in found.items() if weight is not None}


def _weight(name: str, layers: Mapping[str, Mapping[str, Any]], file: Path) -> Any:
    for beginning, part in BEGINNINGS.items():
        if name.startswith(beginning):
            wanted = name.removeprefix(beginning).replace(".", "_").removeprefix("text_model_")
            if wanted in layers.get(part, {}):
                return layers[part][wanted]
    raise InputError(f"adapters: {file} changes {name}, which this pipeline has not: it is of another model")


def _of_diffusers(held: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """SDXL's own names as those of diffusers."""
    from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers

    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(held), pipe.unet.config)
    pattern = re.compile("|".join(f"{re.escape(old)}(?=_|\\.|$)" for old in SGM))
    return {
        pattern.sub(lambda one: SGM[one[0]], name) if name.startswith("lora_unet_") else name: value
        for name, value in mapped.items()
    }


def _change(parts: Mapping[str, Tensor]) -> Tensor:
    """ΔW of one layer: eq. 7 (LoHa) and 8 (LoKr) of the paper, α over the rank in front of low-rank factors."""
    if "hada_w1_a" in parts:
        return _loha(parts)
    return _lokr(parts)


def _scaling(parts: Mapping[str, Tensor], rank: int) -> Tensor:
    import torch

    return parts.get("alpha", torch.tensor(float(rank))) / rank


def _loha(parts: Mapping[str, Tensor]) -> Tensor:
    from peft.tuners.loha.layer import make_weight, make_weight_cp  # pyright: ignore[reportMissingImports]

    first, second = ([parts[f"hada_w{k}_{side}"] for side in "ab"] for k in (1, 2))
    scaling = _scaling(parts, first[1].shape[0])
    if "hada_t1" in parts:
        return make_weight_cp(parts["hada_t1"], *first, parts["hada_t2"], *second, scaling)
    return make_weight(*first, *second, scaling)


def _lokr(parts: Mapping[str, Tensor]) -> Tensor:
    from peft.tuners.lokr.layer import make_kron, make_weight_cp  # pyright: ignore[reportMissingImports]

    ranks: list[int] = []

    def factor(k: int) -> Tensor:
        if f"lokr_w{k}" in parts:
            return parts[f"lokr_w{k}"]
        a, b = (parts[f"lokr_w{k}_{side}"] for side in "ab")
        ranks.append(b.shape[0])
        if k == 2 and "lokr_t2" in parts:
            return make_weight_cp(parts["lokr_t2"], a, b)
        return a @ b if b.ndim == 2 else (a @ b.flatten(1)).reshape(len(a), *b.shape[1:])

    first, second = factor(1), factor(2)
    return make_kron(first, second, _scaling(parts, ranks[-1]) if ranks else 1.0)  # two whole factors are not scaled
