"""A classifier of noisy states, whose gradient guides (Dhariwal & Nichol, 2105.05233), and what prompts ask of it.

Its file holds the weights and the words of the world that it was trained on, so nothing else has to know them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplers.core.levels import Level

UNKNOWN = -1  # the class of a head that a prompt says nothing of


@dataclass(frozen=True)
class Vocabulary:
    """The names of each attribute, in the order of their classes: what a prompt may say.

    A prompt has one thing or two. Adjectives stand before their thing; "A left of B" puts A first, and the relations in
    `mirrored` put B first, as the classifier numbers things by place (left or upper first).
    """

    shapes: tuple[str, ...]
    adjectives: Mapping[str, tuple[str, ...]]  # colour, size: each a head a thing
    scene: Mapping[str, tuple[str, ...]]  # ground, light: a head each
    positions: tuple[str, ...]  # of a lone thing
    relations: tuple[str, ...]  # of two: two along each axis
    mirrored: tuple[str, ...]

    @cached_property
    def heads(self) -> dict[str, int]:
        """Head → number of classes."""
        of_things = {"shape": self.shapes, **self.adjectives}
        return {
            "objects": 2,
            **{name: len(words) for name, words in self.scene.items()},
            "position": len(self.positions),
            "axis": len(self.relations) // 2,
            **{f"{name}_{k}": len(words) for k in (0, 1) for name, words in of_things.items()},
        }

    def read(self, prompt: str) -> dict[str, int]:
        """The class of every head that the prompt names."""
        ends = [found.end() for found in re.finditer(_any_of(self.shapes), prompt)][:2]
        told = {name: _first(words, prompt) for name, words in self.scene.items()}
        if not ends:
            return {name: at for name, at in told.items() if at != UNKNOWN}
        relation = _first(self.relations, prompt)
        told["objects"] = len(ends) - 1
        if len(ends) == 1:
            told["position"] = _first(self.positions, prompt)
        elif relation != UNKNOWN:
            told["axis"] = relation // 2
        swap = len(ends) == 2 and relation != UNKNOWN and self.relations[relation] in self.mirrored
        for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            thing, place = prompt[start:end], 1 - k if swap else k
            for name, words in {"shape": self.shapes, **self.adjectives}.items():
                told[f"{name}_{place}"] = _first(words, thing)
        return {name: at for name, at in told.items() if at != UNKNOWN}

    def targets(self, prompts: Sequence[str]) -> Tensor:
        """The class of each head, int64 (N, heads); UNKNOWN where the prompt does not say."""
        rows = [self.read(prompt) for prompt in prompts]
        return torch.tensor([[row.get(name, UNKNOWN) for name in self.heads] for row in rows], dtype=torch.int64)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        return cls(**{key: _frozen(value) for key, value in json.loads(text).items()})


def _frozen(words: Any) -> Any:
    return tuple(words) if isinstance(words, list) else {name: tuple(own) for name, own in words.items()}


def _any_of(words: Sequence[str]) -> str:
    return r"\b(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + r")\b"


def _first(words: Sequence[str], text: str) -> int:
    found = re.search(_any_of(words), text)
    return words.index(found[0]) if found else UNKNOWN


class NoisyClassifier(nn.Module):
    """Logits of every head for states of unit size (N, C, h, w) at log(σ/α), (N,)."""

    WIDTHS, FREQUENCIES, FEATURES = (64, 80, 96), 16, 96

    def __init__(self, vocabulary: Vocabulary, shape: tuple[int, int, int] = (4, 16, 16)) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        channels, height, width = shape
        first, second, third = self.WIDTHS
        self.clock = nn.Sequential(nn.Linear(2 * self.FREQUENCIES, 64), nn.SiLU())
        self.enter = nn.Conv2d(channels, first, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList([_Block(first), _Block(second)])
        self.down = nn.ModuleList([nn.Conv2d(first, second, 3, stride=2, padding=1), nn.Conv2d(second, third, 1)])
        self.squeeze = nn.Linear(third * (height // 4) * (width // 4), self.FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(self.FEATURES, n) for name, n in vocabulary.heads.items()})

    def forward(self, x: Tensor, log_ratio: Tensor) -> dict[str, Tensor]:
        turns = 2.0 ** torch.linspace(-2, 3, self.FREQUENCIES, device=x.device)
        angles = log_ratio[:, None] * turns
        clock = self.clock(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.enter(x)
        for block, down in zip(self.blocks, self.down, strict=True):
            h = down(block(h, clock))
        features = F.silu(self.squeeze(F.silu(h).flatten(1)))
        return {name: head(features) for name, head in self.heads.items()}


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.told = nn.GroupNorm(8, width), nn.Linear(64, 2 * width)
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        scale, shift = self.told(clock)[..., None, None].chunk(2, 1)
        return x + self.two(F.silu(self.norm(self.one(F.silu(x))) * (1 + scale) + shift))


def log_likelihood(logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    """Σ over the heads of log p(class | state), (N,); heads without a target add nothing."""
    rows = [
        -F.cross_entropy(values, targets[:, k], ignore_index=UNKNOWN, reduction="none")
        for k, values in enumerate(logits.values())
    ]
    return torch.stack(rows).sum(0)


@dataclass(frozen=True)
class Pull:
    """What guidance by a classifier adds to x0: s·σ²/α·∇ log p(classes | x), as the score gains s·∇ log p (eq. 14)."""

    classifier: NoisyClassifier
    classes: Tensor  # int64 (N, heads)
    scale: float

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        slope = gradient(self.classifier, x, level, self.classes)
        return (self.scale * level.sigma**2 / level.alpha * slope).to(x.dtype)


def gradient(classifier: NoisyClassifier, x: Tensor, level: Level, targets: Tensor) -> Tensor:
    """∇_x log p(classes | x) at states (N, C, h, w) of the level, in their scale: float32.

    It is taken inside inference mode as well, in which nothing else is recorded.
    """
    size = math.hypot(level.alpha, level.sigma)
    with torch.inference_mode(False), torch.enable_grad():
        state = (x.float() / size).clone().requires_grad_()
        log_ratio = torch.full((len(x),), math.log(level.sigma / level.alpha), device=x.device)
        log_likelihood(classifier(state, log_ratio), targets.clone()).sum().backward()  # whose FLOPs can be counted
    assert state.grad is not None
    return state.grad / size


# ---------------------------------------------------------------------------------------------------------- the file


def save(classifier: NoisyClassifier, path: Path) -> None:
    """Weights in float16, with the vocabulary in the file's metadata."""
    from safetensors.torch import save_file

    weights = {name: value.half().cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(weights, path, metadata={"vocabulary": classifier.vocabulary.to_json()})


def load(path: Path, device: torch.device | str) -> NoisyClassifier:
    """The classifier of a file, in float32 whatever the model's precision: it is small, and its gradient is not."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        vocabulary = Vocabulary.from_json(file.metadata()["vocabulary"])
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    classifier = NoisyClassifier(vocabulary)
    classifier.load_state_dict(weights)
    return classifier.to(device).eval().requires_grad_(False)
