"""Weights & Biases: a run a cell, a group a sweep. Offline where no key is known, to be sent by `wandb sync` later."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from harness.trackers.base import Ended, Tracker

PROJECT = "sampler-sweep"  # WANDB_PROJECT says otherwise


class WeightsAndBiases(Tracker):
    requires = ("wandb",)
    extra = "wandb"

    def __init__(self, folder: Path, sweep: str) -> None:
        import wandb

        self.folder, self.sweep = folder, sweep
        folder.mkdir(parents=True, exist_ok=True)  # it makes folder/wandb
        # A key stands in the environment or in ~/.netrc; without one, online mode would ask the terminal for it.
        self.mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")

    def write(self, cell: Ended) -> None:
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=self.sweep, id=cell.cell_id, name=cell.name,
            config={**cell.config, "where": cell.where, "status": cell.status, "error": cell.error}, dir=self.folder,
            mode=self.mode, resume="allow", reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )  # fmt: skip
        try:
            told: dict[str, object] = dict(cell.metrics)
            if cell.tiles is not None:
                pairs = zip(cell.tiles.images, cell.tiles.indices, strict=True)
                told["images"] = [wandb.Image(Image.fromarray(tile), caption=f"image {k}") for tile, k in pairs]
            run.log(told, step=0)
        finally:
            run.finish(exit_code=0 if cell.ok else 1)

    def close(self) -> str:
        if self.mode == "online":
            return f"wandb: group {self.sweep} of project {os.environ.get('WANDB_PROJECT', PROJECT)}"
        return f"wandb: {self.mode} runs in {self.folder / 'wandb'}; wandb sync {self.folder / 'wandb'}/offline-run-*"


TRACKER = WeightsAndBiases
