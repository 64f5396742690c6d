"""The limit of many steps: reference latents for the discretisation error, computed once and kept on disk.

The reference of a cell integrates the same probability-flow ODE (same model, prompts, guidance, sources and noise) with
200 steps of DPM++ 2M on Karras levels, from the noisiest level (txt2img) or from the level where the cell enters
(img2img, inpaint), to the cell's own last level: a schedule that ends at σmin is not blamed for the noise it leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.atomic import whole
from harness.cell import Cell
from harness.generate import Generator
from samplers import dpmpp
from samplers.levels import NoiseLevels

STEPS = 200
BLOCK = 16  # images of one reference run
DEFINITION = f"dpmpp 2M, {STEPS} karras steps, fp32 state"
# What changes the solution of the ODE. Sampler, schedule, steps and batch size do not.
DEPENDS_ON = (
    "task", "model", "model_fingerprint", "data", "data_fingerprint", "cfg", "guidance", "negative_prompt", "seed",
    "precision", "device",
)  # fmt: skip


def has_limit(generator: Generator) -> bool:
    """Whether there is an ODE left to solve: not at strength 0, nor where a cell enters at the lowest level of all."""
    levels = generator.levels
    return levels is not None and levels[0].ratio > 1.0001 * generator.model.process.ratio_min


def reference_levels(generator: Generator) -> NoiseLevels:
    """From where the cell starts (its limit, for txt2img) down to the lowest trained level, Karras with ρ = 7."""
    process = generator.model.process
    first = generator.levels[0].ratio if generator.task.uses_strength else process.ratio_max
    u = np.linspace(0, 1, STEPS)
    return NoiseLevels.from_ratios(process, (first ** (1 / 7) * (1 - u) + process.ratio_min ** (1 / 7) * u) ** 7)


class ReferenceRun:
    """Reference latents of a cell, float32 (N, C, h, w) on the CPU; from the disk where they were computed before."""

    def __init__(self, cell: Cell, generator: Generator, folder: Path) -> None:
        self.cell, self.generator, self.folder = cell, generator, folder
        self.levels = reference_levels(generator)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Rows for `indices`; computed in blocks that do not depend on the batch size, so that cells share them."""
        blocks = {index // BLOCK: None for index in indices}
        known = {block: self._block(block) for block in blocks}
        return torch.stack([known[index // BLOCK][index % BLOCK] for index in indices])

    def _block(self, block: int) -> Tensor:
        members = range(block * BLOCK, min((block + 1) * BLOCK, self.cell.n_images))
        path = self.folder / f"{self._key(members)}.npy"
        if not path.exists():
            both = self.generator.reference(members, self.levels, dpmpp.plan(self.levels))
            with whole(path) as file:
                np.save(file, torch.stack(both).float().cpu().numpy())
        at_end, at_zero = np.load(path)
        end = self.generator.levels[self.generator.levels.steps]
        return torch.from_numpy(at_zero if end.sigma == 0 else at_end)

    def _key(self, members: range) -> str:
        values = {name: getattr(self.cell, name) for name in DEPENDS_ON}
        text = json.dumps([values, f"{self.levels[0].ratio:.9g}", [*members], DEFINITION], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]
