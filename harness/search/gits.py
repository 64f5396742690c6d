"""A model's reference trajectory for the gits schedule: `python -m harness.gits --model embedded --cfg 3`.

Writes the small JSON that `schedule=gits schedule.file=FILE` reads (samplers/schedules/searched.py; 2405.11326): noise
levels of a fine trajectory of the probability-flow ODE, and what an Euler jump from any of them to any lower one costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.atomic import written_whole
from harness.data.load import load as load_data
from harness.errors import InputError
from harness.models.guidance import Guidance
from harness.models.load import load, named
from harness.store import layout
from samplers.core.integrate import integrate
from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.noise import NoiseStreams
from samplers.schedules.sigma import karras
from samplers.solvers.dpmpp import DPMpp

BATCH = 32
BETWEEN = 4  # steps of the reference solver from one stored level to the next


def fine_levels(process: Process, count: int) -> NoiseLevels:
    """`count` Karras levels down to σmin, and BETWEEN − 1 more (log-uniform) inside every interval."""
    coarse = np.log(karras(process, count - 1, end="sigma_min").ratio)
    where = np.linspace(0, count - 1, BETWEEN * (count - 1) + 1)
    return NoiseLevels.from_ratios(process, np.exp(np.interp(where, np.arange(count), coarse)))


def trajectory(denoise: Any, start: Tensor, levels: NoiseLevels) -> tuple[Tensor, Tensor]:
    """x/α and the direction ε = (x − α·x0)/σ at every BETWEEN-th level, (M, N, …) float64; DPM++ 2M in between."""
    kept: list[tuple[Tensor, Tensor]] = []

    def look(x: Tensor, level: Level) -> Tensor:
        x0 = denoise(x, level)
        clean = x0.double()
        kept.append((x.double() / level.alpha, (x.double() / level.alpha - clean) / level.ratio))
        return x0

    last = levels[levels.steps]
    look(integrate(DPMpp().plan(levels), look, start), last)
    states, directions = zip(*kept[::BETWEEN], strict=True)
    return torch.stack(states), torch.stack(directions)


def jump_costs(ratios: np.ndarray, states: Tensor, directions: Tensor) -> np.ndarray:
    """Cost (M+1, M+1) of Euler jumps between M levels and the clean state, the end of the last one's own jump to 0.

    The root mean square over a state's numbers of the distance between where x + (σ' − σ)·ε lands and the trajectory,
    averaged over the images (N).
    """
    sigma = torch.tensor([*ratios, 0.0], dtype=states.dtype, device=states.device)
    path = torch.cat([states, (states[-1] - sigma[-2] * directions[-1])[None]])
    cost = np.zeros((len(path), len(path)))
    for i in range(len(states)):
        drop = (sigma[i + 1 :] - sigma[i]).view(-1, *[1] * (states.ndim - 1))
        off = states[i] + drop * directions[i] - path[i + 1 :]
        cost[i, i + 1 :] = off.square().flatten(2).mean(2).sqrt().mean(1).cpu().numpy()
    return cost


@torch.inference_mode()
def measure(spec: Mapping[str, Any], data: Mapping[str, Any], cfg: float, count: int, images: int, device: str) -> dict:
    """The content of the file: `count` levels of the model named by `spec`, averaged over `images` prompts."""
    model = load(spec, spec.get("default_precision", "fp32"), device)
    levels = fine_levels(model.process, count)
    source = load_data(data, model.size)
    guidance = Guidance(cfg)
    ratios = levels.ratio[::BETWEEN]
    total = np.zeros((count + 1, count + 1))
    for first in range(0, images, BATCH):
        indices = range(first, min(first + BATCH, images))
        context = model.encode_text(source.prompts(indices))
        uncond = model.encode_text([""]) if guidance.on else None
        noise = NoiseStreams(0, indices, model.latent_shape, model.device).draw().to(model.state_dtype)
        start = noise * float(np.hypot(levels[0].alpha, levels[0].sigma))
        states, directions = trajectory(model.denoiser(context, uncond, guidance), start, levels)
        total += len(indices) * jump_costs(ratios, states, directions)
    return {
        "model": spec["name"],
        "cfg": cfg,
        "images": images,
        "ratios": [*ratios.tolist(), 0.0],
        "cost": [[float(f"{value:.4g}") for value in row[i + 1 :]] for i, row in enumerate(total / images)],
    }


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.gits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="embedded", help="name of conf/model (default: embedded)")
    parser.add_argument("--path", help="model.path: folder, hub id or .safetensors file")
    parser.add_argument("--data", help="name of conf/data (default: the model's own)")
    parser.add_argument("--prompts", help="data.prompts of data=folder: a file of prompts")
    parser.add_argument("--cfg", type=float, help="guidance scale (default: the model's customary one)")
    parser.add_argument("--images", type=int, default=64, help="images, a prompt each (default: 64)")
    parser.add_argument("--levels", type=int, default=80, help="levels, at most so many steps later (default: 80)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="file to write (default: results/gits/MODEL.json)")
    asked = parser.parse_args(words)
    try:
        if asked.images < 1 or asked.levels < 3:
            raise InputError("a trajectory needs at least one image and three levels")
        spec = named(asked.model, **({"path": asked.path} if asked.path else {}))
        data = {"name": asked.data or ("folder" if asked.prompts else spec["default_data"])}
        if asked.prompts:
            data["prompts"] = asked.prompts
        if data["name"] is None:
            raise InputError(f"model {asked.model} has no prompts of its own: give --prompts FILE")
        cfg = spec["default_cfg"] if asked.cfg is None else asked.cfg
        content = measure(spec, data, float(cfg), asked.levels, asked.images, asked.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = asked.out or layout.gits(Path("results"), asked.model)
    with written_whole(out) as file:
        file.write(json.dumps(content).encode())
    print(f"{out}: {asked.levels} levels of {asked.model}, cfg {cfg:g}, {asked.images} images")
    return 0
