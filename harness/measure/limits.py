"""What a cell's final latents are compared with: the limit of many steps, or the exact solution. Kept on disk.

The limit of a cell integrates the same probability-flow ODE (same model, prompts, guidance, sources and noise) with
200 steps of DPM++ 2M on Karras levels, from the noisiest level (txt2img) or from the level where the cell enters
(img2img, inpaint), to the cell's own last level: a schedule that ends at σmin is not blamed for the noise it leaves.
On the embedded model it is 1.0e-4 off UniPC of order 3 with 1000 steps (4 images, relative); cheaper runs are farther:
DPM++ 2M with 100 steps 1.7e-4, UniPC of order 3 with 100 steps 1.5e-4, with 64 2.9e-4, with 50 4.9e-4.

A model may know the solution of its ODE itself (`Truth`), between the cell's own first and last level.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from harness import axes
from harness.atomic import written_whole
from harness.cell import Cell
from harness.measure.generator import Generator
from harness.metrics.context import Context
from harness.models.base import Truth
from samplers.core.levels import NoiseLevels
from samplers.solvers.dpmpp import DPMpp

STEPS = 200
DEFINITION = f"dpmpp 2M, {STEPS} karras steps, fp32 state"
# What changes the solution of the ODE, or its rounding. Sampler, schedule, steps and batch size do not.
DEPENDS_ON = tuple(axis.name for axis in axes.changing(axes.LIMIT, axes.ROUNDING))


def compared(context: Context, cell: Cell, generator: Generator, folder: Path) -> Context:
    """The `context` with what final latents are compared with; without, where nothing is known."""
    truth, levels = generator.model.truth, generator.levels
    if truth is not None and levels is not None:
        exact = ExactRun(cell, generator, folder, truth)
        return replace(
            context,
            exact_latents=exact,
            exact_floor=ExactButLast(cell, generator, folder, truth) if ends_clean(generator) else None,
            exact_name=exact.definition,
            law=None if generator.guidance.on or generator.guidance.classifier else truth.law(levels[levels.steps]),
        )
    if not has_limit(generator):
        return context
    return replace(context, reference_latents=ReferenceRun(cell, generator, folder), reference_name=DEFINITION)


def has_limit(generator: Generator) -> bool:
    """Whether there is an ODE left to solve: not at strength 0, nor where a cell enters at the lowest level of all.

    Nor after an inversion, whose limit is the source that it began with.
    """
    levels = generator.levels
    return (
        levels is not None
        and not generator.task.inverts
        and levels[0].ratio > 1.0001 * generator.model.process.ratio_min
    )


def reference_levels(generator: Generator) -> NoiseLevels:
    """From where the cell starts (its limit, for txt2img) down to the lowest trained level, Karras with ρ = 7."""
    process = generator.model.process
    # At most the noisiest trained level of the table: a rectified flow may start from pure noise, ratio = inf.
    first = min(generator.levels[0].ratio, process.ratio_max) if generator.task.uses_strength else process.ratio_max
    u = np.linspace(0, 1, STEPS)
    return NoiseLevels.from_ratios(process, (first ** (1 / 7) * (1 - u) + process.ratio_min ** (1 / 7) * u) ** 7)


class Kept(ABC):
    """The latents a cell is compared with, by image number, on the CPU; read from the disk once they were computed."""

    block: ClassVar[int]  # images computed in one go

    def __init__(self, cell: Cell, generator: Generator, folder: Path) -> None:
        self.cell, self.generator, self.folder = cell, generator, folder

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Rows for `indices`; computed in blocks that do not depend on the batch size, so that cells share them."""
        blocks = {index // self.block: None for index in indices}
        known = {block: self._block(block) for block in blocks}
        return torch.stack([known[index // self.block][index % self.block] for index in indices])

    def _block(self, block: int) -> Tensor:
        members = range(block * self.block, min((block + 1) * self.block, self.cell.n_images))
        path = self.folder / f"{self._key(members)}.npy"
        if not path.exists():
            made = self.compute(members)
            with written_whole(path) as file:
                np.save(file, made)
        return self.chosen(np.load(path))

    def _key(self, members: range) -> str:
        asked = self.cell.to_plain(*DEPENDS_ON)
        text = json.dumps([asked, *self.depends_on(), [*members], self.definition], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    @abstractmethod
    def definition(self) -> str:
        """What a record calls it."""

    @abstractmethod
    def depends_on(self) -> list[Any]:
        """What of the levels the result depends on."""

    @abstractmethod
    def compute(self, members: range) -> np.ndarray:
        """What is kept for these images."""

    def chosen(self, kept: np.ndarray) -> Tensor:
        """What the cell is compared with, from what is kept."""
        return torch.from_numpy(kept)


class ReferenceRun(Kept):
    """The limit of many steps, float32 (N, C, h, w), at the end of the run and one x0-step after it."""

    block = 16
    definition = DEFINITION

    def __init__(self, cell: Cell, generator: Generator, folder: Path) -> None:
        super().__init__(cell, generator, folder)
        self.levels = reference_levels(generator)

    def depends_on(self) -> list[Any]:
        return [f"{self.levels[0].ratio:.9g}"]

    def compute(self, members: range) -> np.ndarray:
        both = self.generator.reference(members, self.levels, DPMpp().plan(self.levels))
        return torch.stack(both).float().cpu().numpy()

    def chosen(self, kept: np.ndarray) -> Tensor:
        at_end, at_zero = kept
        end = self.generator.levels[self.generator.levels.steps]
        return torch.from_numpy(at_zero if end.sigma == 0 else at_end)


class ExactRun(Kept):
    """The exact solution that a model knows, float64 (N, d), from the cell's own start to its own last level."""

    block = 64

    def __init__(self, cell: Cell, generator: Generator, folder: Path, truth: Truth) -> None:
        super().__init__(cell, generator, folder)
        self.truth = truth

    @property
    def definition(self) -> str:
        return self.truth.definition

    def depends_on(self) -> list[Any]:
        levels = self.generator.levels
        return [f"{number:.15g}" for level in (levels[0], levels[levels.steps]) for number in level[:2]]

    def compute(self, members: range) -> np.ndarray:
        return self.generator.exact(members, self.truth).cpu().numpy()


class ExactButLast(ExactRun):
    """The exact solution up to the last level but one, and from there the step to a clean state: float64 (N, d)."""

    @property
    def definition(self) -> str:
        return f"{self.truth.definition}; the last step by x0"

    def depends_on(self) -> list[Any]:
        levels = self.generator.levels
        return [f"{number:.15g}" for level in (levels[0], levels[levels.steps - 1]) for number in level]

    def compute(self, members: range) -> np.ndarray:
        return self.generator.exact_but_last(members, self.truth).double().cpu().numpy()


def ends_clean(generator: Generator) -> bool:
    """Whether the last step is one to a clean state."""
    return generator.levels is not None and generator.levels[generator.levels.steps].sigma == 0
