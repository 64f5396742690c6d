"""What a plan is learned from and judged by: starts, and where a run of many steps or the exact solution takes them.

A `Split` is some images of one model: prompts and noise that no other split has. Only the model's denoiser is called,
so any model in any precision can be learned for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.atomic import written_whole
from harness.cell import Cell
from harness.data.load import load as load_data
from harness.errors import InputError
from harness.measure import remembered
from harness.measure.generator import to_clean
from harness.models.base import Denoise, Model
from harness.models.guidance import Guidance
from harness.models.load import load as load_model
from harness.tasks.base import start_scale
from samplers.core.integrate import integrate
from samplers.core.levels import Level, NoiseLevels
from samplers.core.noise import NoiseStreams
from samplers.schedules.sigma import karras
from samplers.solvers.unipc import UniPC

TEACHER_STEPS = 48
TEACHER = f"unipc order 3, {TEACHER_STEPS} karras steps, then its x0"
# How far the teacher itself is off is told by a run of so many times its steps for so many images.
FINER, FINER_IMAGES = 3, 4
CLEAN = Level(1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Trajectory:
    """z = x/α and the denoiser's answer along the teacher's way, (M, N, …), at falling σ/α `ratios` (M,)."""

    ratios: np.ndarray
    z: Tensor
    x0: Tensor

    def head(self, count: int) -> Trajectory:
        return Trajectory(self.ratios, self.z[:, :count], self.x0[:, :count])

    def at(self, ratio: float) -> Tensor:
        """z at a σ/α inside, by the cubic of both ends' values and slopes dz/d log σ = z − x0."""
        logs = np.log(self.ratios)
        k = int(np.clip(np.searchsorted(-logs, -np.log(ratio)) - 1, 0, len(logs) - 2))
        h = logs[k + 1] - logs[k]
        s = (np.log(ratio) - logs[k]) / h
        one, two = self.z[k].double(), self.z[k + 1].double()
        slope_one, slope_two = one - self.x0[k].double(), two - self.x0[k + 1].double()
        return (
            (2 * s**3 - 3 * s**2 + 1) * one
            + (s**3 - 2 * s**2 + s) * h * slope_one
            + (3 * s**2 - 2 * s**3) * two
            + (s**3 - s**2) * h * slope_two
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their own prompts and noise, and what their runs should end in."""

    seed: int  # of the noise
    first: int  # the first prompt's number
    noise: Tensor  # standard normal (N, …), the model's state at unit variance
    ask: Callable[[slice], Denoise]  # the denoiser of some of the images
    batch: int  # images that are asked about at once
    clean: Tensor  # float64 (N, …): where the ODE leads, without noise
    lowest: Tensor  # float64 (N, …): the state at the model's lowest trained level
    trajectory: Trajectory | None = None

    def __len__(self) -> int:
        return len(self.noise)

    def said(self) -> dict[str, int]:
        """What names its images: the seed of their noise and the numbers of their prompts."""
        return {"seed": self.seed, "first": self.first, "images": len(self)}

    def head(self, count: int) -> Split:
        """The first `count` images."""
        ends = {name: getattr(self, name)[:count] for name in ("noise", "clean", "lowest")}
        return replace(self, **ends, trajectory=self.trajectory and self.trajectory.head(count))

    def start(self, level: Level) -> Tensor:
        """The state that stands for no signal at this level, as task=txt2img has it."""
        return self.noise * start_scale("unit", level)

    @cached_property
    def parts(self) -> list[slice]:
        return [slice(k, min(k + self.batch, len(self))) for k in range(0, len(self), self.batch)]

    @cached_property
    def _denoisers(self) -> list[tuple[slice, Denoise]]:
        return [(part, self.ask(part)) for part in self.parts]

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """x0 of every image, batch by batch."""
        return torch.cat([denoise(x[part], level) for part, denoise in self._denoisers])

    @cached_property
    def size(self) -> np.ndarray:
        """‖clean‖² of every image, (N,)."""
        return self.clean.flatten(1).square().sum(1).cpu().numpy()

    def errors(self, ends: Tensor, clean: bool = True) -> np.ndarray:
        """‖z − z*‖/‖z*‖ of every image at its end, (N,): as the metric `discretisation` has it."""
        wanted = self.clean if clean else self.lowest
        off = (ends.double() - wanted).flatten(1).square().sum(1)
        return (off / wanted.flatten(1).square().sum(1)).sqrt().cpu().numpy()


class Source:
    """A loaded model with its prompts, of which splits are made; what the teacher finds is kept in `cache`."""

    def __init__(self, cell: Cell, cache: Path, model: Model | None = None, cfg: float | None = None) -> None:
        """`cell`: what to learn for. `cfg`: another guidance scale than the cell's."""
        self.cell, self.cache = cell, cache
        self.model = load_model(cell.model, cell.precision, cell.device, cell.fitted) if model is None else model
        self.data = load_data(cell.data, (self.model.size[0], self.model.size[1]))
        self.guidance = Guidance.parse(cell.cfg if cfg is None else cfg, cell.guidance, cell.classifier_scale)
        self.process = self.model.process

    @property
    def difference(self) -> float:
        """Step of a finite difference: the cube root of the rounding of what the model computes in."""
        eps = {"fp64": 2.2e-16, "fp32": 1.2e-7, "bf16": 7.8e-3, "fp16": 9.8e-4}[self.cell.precision]
        return eps ** (1 / 3)

    @torch.inference_mode()
    def split(self, seed: int, first: int, count: int, keep_way: bool = False) -> Split:
        """The images `first` … `first + count − 1` with the noise of `seed`, their limits computed or read."""
        if first + count > len(self.data):
            raise InputError(
                f"{first + count} prompts are needed for splits that share none, the data has {len(self.data)}: give "
                "fewer images=, validation= or test="
            )
        bare = self.bare(seed, first, count)
        path = self.cache / f"{self._key(bare, keep_way)}.npz"
        if not path.is_file():
            found = self._limits(bare, keep_way)
            with written_whole(path) as file:
                np.savez(file, allow_pickle=False, **found)
        with np.load(path) as kept:
            clean, lowest = (torch.from_numpy(kept[name]).to(self.model.device) for name in ("clean", "lowest"))
            way = None
            if keep_way:
                z, x0 = (torch.from_numpy(kept[name]).to(self.model.device) for name in ("z", "x0"))
                way = Trajectory(kept["ratios"], z, x0)
        return replace(bare, clean=clean, lowest=lowest, trajectory=way)

    def bare(self, seed: int, first: int, count: int) -> Split:
        """Without limits."""
        noise = NoiseStreams(seed, range(first, first + count), self.model.latent_shape, self.model.device).draw()
        cond, uncond = self.text(first, count)
        nothing = torch.empty(0)

        def ask(part: slice) -> Denoise:
            return self.model.denoiser(cond[part], uncond, self.guidance)

        return Split(seed, first, noise.to(self.model.state_dtype), ask, self.cell.batch_size, nothing, nothing)

    def text(self, first: int, count: int) -> remembered.Text:
        prompts = self.data.prompts(range(first, first + count))
        guided = self.guidance.on and self.model.has_unconditional
        return remembered.text(self.model, prompts, self.cell.negative_prompt, guided)

    def _key(self, split: Split, keep_way: bool) -> str:
        cell = self.cell
        asked = [
            cell.model_fingerprint, cell.model.to_plain(), cell.data_fingerprint, self.guidance.scale,
            cell.guidance.to_plain(), cell.negative_prompt, cell.precision, split.said(), keep_way, TEACHER,
            {name: str(value) for name, value in cell.fitted.items()},
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]

    def _limits(self, split: Split, keep_way: bool) -> dict[str, np.ndarray]:
        found = self._teacher(split, TEACHER_STEPS)
        truth = self.model.truth
        if truth is not None:
            top, low = (self.process.level(ratio) for ratio in (self.process.ratio_max, self.process.ratio_min))
            cond, uncond = self.text(split.first, len(split))
            lowest = truth.exact(split.start(top), cond, uncond, self.guidance, top, low)
            clean = truth.exact(lowest, cond, uncond, self.guidance, low, CLEAN)
            found |= {"clean": clean.cpu().numpy(), "lowest": lowest.cpu().numpy()}
        return found if keep_way else {name: found[name] for name in ("clean", "lowest")}

    def _teacher(self, split: Split, steps: int) -> dict[str, np.ndarray]:
        return self.followed(split, karras(self.process, steps, end="sigma_min"))

    def followed(self, split: Split, levels: NoiseLevels) -> dict[str, np.ndarray]:
        """Where UniPC-3 over these levels, and its x0 at their last, leads: `clean`, `lowest`, and the way there."""
        z: list[Tensor] = []
        x0: list[Tensor] = []

        def look(x: Tensor, level: Level) -> Tensor:
            answer = split.denoise(x, level)
            z.append((x / level.alpha).float())
            x0.append(answer.float())
            return answer

        clean = integrate(to_clean(UniPC(order=3).plan(levels)), look, split.start(levels[0]))
        lowest = z[-1].double() * levels[levels.steps].alpha
        ends = {"clean": clean.double().cpu().numpy(), "lowest": lowest.cpu().numpy()}
        way = {"ratios": levels.ratio, "z": torch.stack(z).cpu().numpy(), "x0": torch.stack(x0).cpu().numpy()}
        return {**ends, **way}

    @torch.inference_mode()
    def teacher_error(self, split: Split) -> float:
        """RMS relative distance of the limits to those of a finer teacher, or to the exact solution: 0 where known."""
        if self.model.truth is not None:
            return 0.0
        few = split.head(FINER_IMAGES)
        finer = torch.from_numpy(self._teacher(few, FINER * TEACHER_STEPS)["clean"]).to(few.clean.device)
        return rms(few.errors(finer), few.size)

    @torch.inference_mode()
    def pictures(self, ends: Tensor) -> Tensor:
        """Clean states decoded: uint8 (N, 3, H, W)."""
        return self.model.decode(ends.to(self.model.state_dtype))


def rms(errors: np.ndarray, size: np.ndarray) -> float:
    """The metric `discretisation`: √(Σ‖z − z*‖² / Σ‖z*‖²) from each image's relative error and ‖z*‖²."""
    return float(np.sqrt((errors**2 * size).sum() / size.sum()))


def geometric(errors: np.ndarray) -> float:
    """The geometric mean, which a few images that end in another picture do not rule."""
    return float(np.exp(np.log(np.maximum(errors, 1e-300)).mean()))
