"""The second stage of the autoencoder: its decoder learns to draw grain as an opponent asks for it.

A decoder that only minimises the squared error paints the mean of all grains that a latent leaves open: every image is
blurred, a sampler's errors included, and FID sees the blur before it sees the sampler. Stable Diffusion's autoencoder
is trained against a discriminator of patches for that reason (2112.10752 §G; 1611.07004). The encoder is frozen here,
so latents, and what was trained on them, stay as they are.

At the end half of the latents are the UNet's: drawings noised and denoised in one call. They lack what only an encoder
knows, as a sampler's do; a decoder that never saw such makes them smoother than drawings, and an overshooting sampler
then looks better than one that has converged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from harness.embedded import world
from harness.embedded.stage import RECIPES, Run, autocast, drawings, loop, to_signed

COARSE = 4  # pixels: means over such squares must stay what they are, only detail below is the opponent's
SQUARED, COARSE_SQUARED, OPPOSED, MATCHED = 2.0, 10.0, 0.02, 0.1  # weights of the four losses
WARM = 100  # steps until the opponent's word counts fully
DENOISED_FROM = 1_600  # step from which half of a batch is denoised by the UNet
NOISED = (20, 500)  # timesteps that it is noised to
Denoised = Callable[[torch.Tensor, torch.Tensor, list[str]], torch.Tensor]


class Judge(nn.Module):
    """Patch discriminator: RGB in [-1, 1], (N, 3, H, W), to verdicts (N, 1, H/8, W/8), above 0 for drawings, and
    features."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96)
        layers = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(map(spectral_norm, [*layers, nn.Conv2d(widths[-1], widths[-1], 3, padding=1)]))
        self.out = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
            features.append(images)
        return self.out(images).float(), features


def train_decoder(work: Path, device: str, autoencoder: nn.Module, denoised: Denoised) -> nn.Module:
    """`autoencoder` with a decoder trained on; its encoder is untouched.

    `denoised(z, t, captions)` noises latents to timesteps and gives what the UNet makes of them. Decoder and judge step
    at the same time: each loss reaches the parameters of its own side alone.
    """
    recipe = RECIPES["decoder"]
    for part in (autoencoder.encoder, autoencoder.quant_conv):
        part.requires_grad_(False)
    both = nn.ModuleDict({"autoencoder": autoencoder, "judge": Judge().to(memory_format=torch.channels_last)})
    run = Run("decoder", both, recipe, work, device)

    @torch.no_grad()
    def latents(step: int, scenes: world.Scenes, drawn: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Of the drawings, and how many of the first are the UNet's."""
        z, count = autoencoder.encode(drawn).latent_dist.sample().float(), recipe.batch // 2
        if step < DENOISED_FROM:
            return z, 0
        part = scenes.take(np.arange(count))
        z[:count] = denoised(z[:count], torch.randint(*NOISED, (count,)).to(device), part.captions())
        return z, count

    def losses(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        scenes = drawings(step, recipe.batch)
        drawn = to_signed(world.render(scenes), device)
        with autocast(device):
            z, count = latents(step, scenes, drawn)
            made = autoencoder.decode(z.contiguous(memory_format=torch.channels_last)).sample
            judged = _judge_loss(both["judge"], drawn, made.detach())
            opposed, matched = _opposition(both["judge"], drawn, made)
        squared = F.mse_loss(made.float(), drawn)
        coarse = F.mse_loss(F.avg_pool2d(made[count:].float(), COARSE), F.avg_pool2d(drawn[count:], COARSE))
        swayed = min(1.0, step / WARM) * (OPPOSED * opposed + MATCHED * matched)
        shown = {"dB": 10 * math.log10(4 / squared.item()), "judge": judged.item(), "matched": matched.item()}
        return SQUARED * squared + COARSE_SQUARED * coarse + swayed + judged, shown

    loop(run, losses)
    return run.load_averaged()["autoencoder"]


def _judge_loss(judge: Judge, drawn: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Hinge loss of the judge: drawings above 1, what was decoded below -1."""
    return (F.relu(1 - judge(drawn)[0]).mean() + F.relu(1 + judge(made)[0]).mean()) / 2


def _opposition(judge: Judge, drawn: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder is to lower: minus the judge's verdict, and how far its features are from the drawing's."""
    judge.requires_grad_(False)
    verdict, features = judge(made)
    with torch.no_grad():
        wanted = judge(drawn)[1]
    judge.requires_grad_(True)
    apart = [F.l1_loss(a.float(), b.float()) for a, b in zip(features, wanted, strict=True)]
    return -verdict.mean(), torch.stack(apart).sum()
