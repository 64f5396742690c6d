"""One stage of training the embedded model: its recipe, what is saved of it, and the loop that steps it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.embedded import world


@dataclass(frozen=True)
class Recipe:
    """How one stage is trained."""

    steps: int
    batch: int
    lr: float
    decay_from: float  # share of the steps after which the learning rate falls to 0 (linear)
    ema: float = 0.0  # decay of the averaged weights; 0 keeps none
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam


RECIPES = {
    "vae": Recipe(steps=2_600, batch=16, lr=1e-3, decay_from=0.55),
    "decoder": Recipe(steps=2_500, batch=16, lr=3e-4, decay_from=0.6, ema=0.995, betas=(0.5, 0.9)),
    "extractor": Recipe(steps=2_800, batch=64, lr=1e-3, decay_from=0.3),
    "clip": Recipe(steps=1_200, batch=128, lr=1e-3, decay_from=0.4),
    "unet": Recipe(steps=10_400, batch=32, lr=9e-4, decay_from=0.72, ema=0.9985),
    "inpaint": Recipe(steps=800, batch=32, lr=4e-4, decay_from=0.2, ema=0.998),
}


class Run:
    """One stage's networks, optimiser, averaged weights and place in the recipe, saved as a whole."""

    def __init__(self, stage: str, module: nn.Module, recipe: Recipe, work: Path, device: str) -> None:
        self.stage, self.module, self.recipe, self.device = stage, module.to(device), recipe, device
        self.path = work / f"{stage}.pt"
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=1e-4)
        self.ema = {k: v.detach().clone() for k, v in module.state_dict().items()} if recipe.ema else None
        self.step = 0
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step = state["ema"], state["step"]

    def save(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        torch.save(
            {
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema,
                "step": self.step,
            },
            temporary,
        )
        os.replace(temporary, self.path)

    def learning_rate(self) -> float:
        r = self.recipe
        warm = min(1.0, (self.step + 1) / 100)
        start = r.decay_from * r.steps
        decay = 1.0 if self.step < start else max(0.0, 1 - (self.step - start) / (r.steps - start))
        return r.lr * warm * max(decay, 1e-3)

    def update(self, loss: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        if self.ema is not None:
            # A short memory at first, so that the average does not drag the random start along.
            decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
            live = self.module.state_dict()
            floats = [k for k, v in live.items() if v.is_floating_point()]
            torch._foreach_lerp_([self.ema[k] for k in floats], [live[k] for k in floats], 1 - decay)

    def load_averaged(self) -> nn.Module:
        """The network as it ships: averaged weights where the recipe keeps them."""
        if self.ema is not None:
            self.module.load_state_dict(self.ema)
        return self.module.eval()


Losses = Callable[[int], tuple[torch.Tensor, dict[str, float]]]


def loop(run: Run, losses: Losses) -> None:
    """Step `run` to the end of its recipe; `losses(step)` gives the loss and what to show beside it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    # On a CPU the fused attention's backward takes a quarter of a training step at these sizes, the plain form little.
    with Progress(*columns) as progress, sdpa_kernel(SDPBackend.MATH):
        bar = progress.add_task(run.stage, total=run.recipe.steps, completed=run.step, shown="")
        try:
            _steps(run, losses, lambda text: progress.update(bar, completed=run.step, shown=text), progress.console)
        finally:
            run.save()  # Ctrl-C loses nothing


def _steps(run: Run, losses: Losses, show: Callable[[str], None], console: Console) -> None:
    smooth: dict[str, float] = {}
    saved = time.monotonic()
    while run.step < run.recipe.steps:
        torch.manual_seed(1_000_003 * len(run.stage) + run.step)  # a resumed run draws what an unbroken one draws
        loss, shown = losses(run.step)
        run.update(loss)
        for name, value in shown.items():
            smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
        text = " ".join(f"{k}={v:.4g}" for k, v in smooth.items())
        show(text)
        if run.step % 200 == 0 and not console.is_terminal:
            print(f"{run.stage} {run.step}/{run.recipe.steps} {text} ({time.strftime('%H:%M:%S')})", flush=True)
        if time.monotonic() - saved > 120:
            run.save()
            saved = time.monotonic()


def autocast(device: str):
    return torch.autocast(device, torch.bfloat16)


def to_signed(images: torch.Tensor, device: str) -> torch.Tensor:
    """uint8 RGB to float32 in [-1, 1], channels last."""
    return (images.to(device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def training_indices(count: int, start: int = 0) -> np.ndarray:
    """The first `count` image numbers from `start` on whose captions are not held out."""
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < count:
        index = np.arange(start, start + 65_536)
        kept.append(index[~world.scenes(index).held_out()])
        start += 65_536
    return np.concatenate(kept)[:count]


def drawings(step: int, batch: int) -> world.Scenes:
    """A fresh training batch for every step: no drawing is seen twice."""
    return world.split_scenes(batch, held_out=False, start=10_000_000 + 2 * batch * step)
