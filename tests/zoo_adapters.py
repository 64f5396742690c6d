"""Tiny adapters for the tiny pipelines of tests/zoo_models.py, as files; none of their weights is zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import zoo
import zoo_models
from safetensors.torch import save_file

RANK = 2
WORD = "<thing>"  # that a textual inversion teaches


def queries(network: torch.nn.Module) -> list[tuple[str, Any]]:
    """The query projections of a network: what LoRAs change first."""
    return [(name, module) for name, module in network.named_modules() if name.endswith("to_q")]


def lora(path: Path, network: torch.nn.Module, part: str = "unet", seed: int = 0) -> Path:
    """Low-rank changes of every query projection, which are added to the network given as well: an oracle."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, module in queries(network):
        down = torch.randn(RANK, module.in_features, generator=generator)
        up = torch.randn(module.out_features, RANK, generator=generator)
        weights |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
        module.weight += up @ down
    save_file(weights, path)
    return path


def locon(path: Path, network: torch.nn.Module, alpha: float = 1.0) -> Path:
    """LoCon: low-rank changes of query projections and, of another rank and alpha, of convolutions; added as well."""
    generator, weights = torch.Generator().manual_seed(0), {}
    convolutions = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d) and "." in name
    ]
    for name, module in [*queries(network), *convolutions]:
        small = module.weight.ndim == 2 or module.kernel_size == (1, 1)
        rank, own = (RANK, alpha) if small else (RANK + 1, alpha / 2)
        down = 0.3 * torch.randn(rank, *module.weight.shape[1:], generator=generator)
        up = 0.3 * torch.randn(len(module.weight), rank, *(1,) * (module.weight.ndim - 2), generator=generator)
        module.weight += own / rank * torch.einsum("or,r...->o...", up.flatten(1), down)
        beginning = "lora_unet_" + name.replace(".", "_")
        weights |= {f"{beginning}.lora_down.weight": down, f"{beginning}.lora_up.weight": up}
        weights[f"{beginning}.alpha"] = torch.tensor(own)
    save_file(weights, path)
    return path


def lycoris(path: Path, network: torch.nn.Module, kind: str, alpha: float = 1.0) -> Path:
    """LoCon, LoHa or LoKr in kohya's names, the last two of every query projection; added to the network given, too."""
    if kind == "locon":
        return locon(path, network, alpha)
    generator, weights = torch.Generator().manual_seed(0), {}

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    for name, module in queries(network):
        out, into = module.weight.shape
        if kind == "loha":
            own = {f"hada_w{k}_a": draw(out, RANK) for k in (1, 2)} | {f"hada_w{k}_b": draw(RANK, into) for k in (1, 2)}
            change = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
        else:
            own = {"lokr_w1": draw(2, 2), "lokr_w2_a": draw(out // 2, RANK), "lokr_w2_b": draw(RANK, into // 2)}
            change = torch.kron(own["lokr_w1"], own["lokr_w2_a"] @ own["lokr_w2_b"])
        module.weight += alpha / RANK * change
        beginning = "lora_unet_" + name.replace(".", "_")
        weights |= {f"{beginning}.{end}": value for end, value in (own | {"alpha": torch.tensor(alpha)}).items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def word(path: Path) -> torch.Tensor:
    """A textual inversion of WORD, and the vector that it is."""
    vector = torch.randn(zoo_models.WIDTH, generator=torch.Generator().manual_seed(0))
    save_file({WORD: vector}, path)
    return vector


def control(path: Path, kind: str = "controlnet", model: str = "sd", seed: int = 0) -> dict[str, Any]:
    """A control network beside a tiny model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "t2i_adapter":
            made = diffusers.T2IAdapter(
                in_channels=3,
                channels=[8, 16],
                num_res_blocks=1,
                downscale_factor=2 if model == "sdxl" else 4,
                adapter_type="full_adapter",
            )
        elif model == "flux":
            made = diffusers.FluxControlNetModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=zoo_models.WIDTH,
                pooled_projection_dim=zoo_models.WIDTH,
                guidance_embeds=True,
                axes_dims_rope=(2, 2, 4),
            )
        else:
            made = zoo._control_xl(2 * zoo_models.WIDTH) if model == "sdxl" else zoo._control(strides=2)
        for name, weight in made.named_parameters():
            if "controlnet" in name or "zero" in name:
                torch.nn.init.normal_(weight, std=0.3)
        made.eval().save_pretrained(path)
    return {"kind": kind, "path": str(path), "hint": "canny"}


def image_prompt(path: Path, model: str = "sd") -> dict[str, Any]:
    """An IP-Adapter of the tiny UNet, and the network that sees its image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet, width = zoo_models.pipeline(model).unet, zoo_models.WIDTH
        text = unet.config.cross_attention_dim
        weights = {
            "image_proj.proj.weight": torch.randn(4 * text, width),
            "image_proj.proj.bias": torch.randn(4 * text),
            "image_proj.norm.weight": torch.ones(text),
            "image_proj.norm.bias": torch.zeros(text),
        }
        key = 1
        for name in unet.attn_processors:
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            if "attn2" in name:
                weights |= {f"ip_adapter.{key}.to_{one}_ip.weight": torch.randn(hidden, text) for one in "kv"}
                key += 2
        zoo_models._sight()["image_encoder"].eval().save_pretrained(path / "encoder")
    save_file(weights, path / "ip.safetensors")
    return {"kind": "ip_adapter", "path": str(path / "ip.safetensors"), "encoder": str(path / "encoder")}
