"""Train the classifier of noisy latents that guides the embedded model: `python -m harness.embedded.classifier`.

It sees what the UNet sees, latents of the shipped autoencoder with noise of the training schedule, and names what the
feature extractor names. The two are trained apart, so the extractor may judge what the classifier guides. Resumable;
about ten minutes on one core with bfloat16. Its file lies beside the folder of the weights and not in it: a
record names the model by the content of that folder, and guidance by a classifier is an axis of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from harness.embedded import nets, world
from harness.embedded.stage import Recipe, Run, autocast, loop, training_indices
from harness.errors import interruptible
from harness.models.classifier import NoisyClassifier, Vocabulary, save
from harness.paths import CLASSIFIER

RECIPE = Recipe(steps=1_500, batch=128, lr=1.5e-3, decay_from=0.4, ema=0.995)
POOL = 20_480  # drawings whose latents are cached
CHECKED = 1_024  # held-out drawings that accuracies are told of
RATIOS = (0.03, 0.3, 1.0, 2.0, 4.0, 14.6)  # σ/α at which


def vocabulary() -> Vocabulary:
    """The world's names as captions say them."""
    return Vocabulary(
        shapes=world.SHAPES,
        adjectives={"colour": world.COLOUR_NAMES, "size": world.SIZE_NAMES},
        scene={"ground": world.GROUND_NAMES, "light": world.LIGHT_NAMES},
        positions=world.POSITION_NAMES,
        relations=world.RELATIONS,
        mirrored=("right of", "below"),
    )


@torch.inference_mode()
def latents(work: Path, model: Any) -> torch.Tensor:
    """Latents of the first POOL training drawings, float16 (POOL, 4, 16, 16)."""
    path = work / "classifier_latents.pt"
    if not path.exists():
        parts = np.array_split(training_indices(POOL), POOL // 256)
        with autocast(model.device.type):
            made = [model.encode_images(world.render(world.scenes(part))).half() for part in parts]
        torch.save(torch.cat(made), path)
    return torch.load(path, weights_only=True)


def noised(clean: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """States of unit size, α·x0 + σ·ε with α² + σ² = 1, at σ/α (N,)."""
    ratio = ratio.view(-1, 1, 1, 1)
    return (clean + ratio * torch.randn_like(clean)) / (1 + ratio.square()).sqrt()


def train(work: Path, model: Any, device: str) -> NoisyClassifier:
    """To the end of the recipe, from its checkpoint where there is one."""
    clean = latents(work, model)
    answers = nets.answers(world.scenes(training_indices(POOL)))
    run = Run("classifier", NoisyClassifier(vocabulary()), RECIPE, work, device)
    noise = torch.from_numpy(model.process.table).float()

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(clean), (RECIPE.batch,))
        shares = (torch.rand(1) + torch.arange(RECIPE.batch) / RECIPE.batch) % 1  # stratified over the timesteps
        ratio = noise[(shares * len(noise)).long()].to(device)
        x = noised(clean[rows].float().to(device), ratio)
        with autocast(device):
            logits = run.module(x, ratio.log())
        each = [
            F.cross_entropy(value.float(), answers[name][rows].to(device), ignore_index=-1)
            for name, value in logits.items()
        ]
        total = torch.stack(each).sum()
        return total, {"loss": total.item()}

    loop(run, losses)
    return run.load_averaged()


@torch.inference_mode()
def accuracies(classifier: NoisyClassifier, model: Any) -> dict[float, dict[str, float]]:
    """σ/α → head → share of held-out drawings that it names right."""
    scenes = world.split_scenes(CHECKED, held_out=True)
    clean, answers = model.encode_images(world.render(scenes)), nets.answers(scenes)
    torch.manual_seed(0)
    found: dict[float, dict[str, float]] = {}
    for ratio in RATIOS:
        at = torch.full((CHECKED,), ratio)
        logits = classifier(noised(clean, at), at.log())
        found[ratio] = {
            name: (value.argmax(1) == answers[name])[answers[name] >= 0].double().mean().item()
            for name, value in logits.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".embedded-training"), help="checkpoint and latents")
    parser.add_argument("--out", type=Path, default=CLASSIFIER, help="file that the finished classifier is written to")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    from harness.models.load import load, named

    model = load(named("embedded"), "fp32", args.device)
    classifier = train(args.work, model, args.device).to("cpu")
    save(classifier, args.out)
    table = Table("σ/α", *classifier.vocabulary.heads, title="% right")
    for ratio, right in accuracies(classifier, model).items():
        table.add_row(f"{ratio:g}", *(f"{100 * share:.1f}" for share in right.values()))
    Console(width=140).print(table)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(interruptible(main))
