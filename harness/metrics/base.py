"""What a metric is: stream of batches -> mergeable state -> columns of the cell's row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from harness.metrics import bootstrap

if TYPE_CHECKING:
    import torch

    from harness.metrics.context import Context

Options = Mapping[str, Any]  # every knob of conf/metric/NAME.yaml, `name` among them
TASKS = ("txt2img", "img2img", "inpaint", "edit", "invert")


class FeatureExtractor(Protocol):
    """uint8 RGB (N, 3, H, W) -> float32 (N, dim)."""

    id: str  # what a record calls it
    kind: str  # embedded | inception
    dim: int

    def __call__(self, images: torch.Tensor) -> np.ndarray: ...

    def resizer(self, size: tuple[int, int]) -> str: ...


@dataclass
class Batch:
    """Some images of a cell and what belongs to them; features are computed once and shared by the metrics."""

    images: torch.Tensor  # uint8 RGB (N, 3, H, W), CPU
    prompts: Sequence[str]
    indices: Sequence[int]  # numbers of the images in their cell
    sources: torch.Tensor | None = None  # uint8 RGB, what img2img or inpaint began with
    masks: torch.Tensor | None = None  # uint8 (N, 1, H, W), 1 = repainted
    latents: torch.Tensor | None = None  # final latents, float32
    restored: torch.Tensor | None = None  # uint8 RGB, what the decoder makes of the latents of inverted sources
    source_latents: torch.Tensor | None = None  # those latents
    _features: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        n = len(self.images)
        for name in ("images", "sources", "masks", "restored"):
            value = getattr(self, name)
            if value is not None and (str(value.dtype) != "torch.uint8" or value.ndim != 4 or len(value) != n):
                raise ValueError(f"{name} must be uint8 ({n}, channels, H, W), got {value.dtype} {tuple(value.shape)}")
        if len(self.prompts) != n or len(self.indices) != n:
            raise ValueError(f"{n} images came with {len(self.prompts)} prompts and {len(self.indices)} numbers")
        if self.latents is not None:
            self._check_finite(self.latents.flatten(1).isfinite().all(1).cpu().numpy(), "its latent")

    def features(self, extractor: FeatureExtractor, of: str = "images") -> np.ndarray:
        """Features of the images (or `of="sources"`), float32 (N, dim)."""
        key = (extractor.id, of)
        if key not in self._features:
            found = extractor(getattr(self, of))
            self._check_finite(np.isfinite(found).all(1), f"its features ({extractor.id}, {of})")
            self._features[key] = found
        return self._features[key]

    def _check_finite(self, good: np.ndarray, what: str) -> None:
        if not good.all():
            bad = [int(self.indices[k]) for k in np.flatnonzero(~good)]
            raise ValueError(
                f"image {bad[0]} cannot be measured: {what} holds NaN or infinity ({len(bad)} images of this batch); "
                "a smaller cfg or precision=fp32 may mend it"
            )


class Samples:
    """Rows by image number: added and merged in any order, read in the order of the numbers, hence exactly equal."""

    def __init__(self) -> None:
        self._indices: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._indices))

    def add(self, indices: Sequence[int], rows: np.ndarray) -> None:
        self._indices.append(np.asarray(indices, dtype=np.int64))
        self._rows.append(rows)

    def merge(self, other: Samples) -> None:
        self._indices += other._indices
        self._rows += other._rows

    def blocks(self) -> list[np.ndarray]:
        """The rows as they were added."""
        return self._rows

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers (N,) and their rows (N, ...)."""
        indices = np.concatenate(self._indices)
        order = np.argsort(indices, kind="stable")
        twice = np.flatnonzero(np.diff(indices[order]) == 0)
        if len(twice):
            raise ValueError(f"image {indices[order][twice[0]]} was measured twice: shards must not overlap")
        return indices[order], np.concatenate(self._rows)[order]


class Metric(ABC):
    """One file and one YAML a metric. `options` are the knobs of the YAML."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]  # of the cell's row
    image_columns: ClassVar[tuple[str, ...]] = ()  # of the image's row
    tasks: ClassVar[tuple[str, ...]] = TASKS
    needs_images: ClassVar[bool] = True  # False: it looks at latents, and means something for an analytic model too

    def __init__(self, context: Context, options: Options) -> None:
        self.context, self.options = context, options
        self.samples = Samples()  # what `update` has gathered: all that a shard of a cell hands on

    @classmethod
    def applies(cls, context: Context) -> bool:
        """Whether the metric has a meaning for this cell."""
        return context.task in cls.tasks

    @classmethod
    def check(cls, options: Options) -> None:
        """InputError for an option that is not valid. Imports no torch."""
        return  # most metrics have none but numbers, which harness/metrics/load.py checks

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        """Take a batch in; per-image values (N,), NaN where a column does not apply to an image."""

    def merge(self, other: Samples) -> None:
        """Take in the `samples` of another shard of the same cell."""
        self.samples.merge(other)

    @abstractmethod
    def compute(self) -> dict[str, float | str | bool | None]: ...

    def image_values(self) -> dict[str, np.ndarray]:
        """After `compute`: per-image values (N,) that only all images together give, by image number."""
        return {}


class PerImageMetric(Metric):
    """A metric whose columns are means of values that each image has by itself."""

    @abstractmethod
    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        """(N,) values for some of `image_columns`."""

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        values = self.measure(batch)
        nothing = np.full(len(batch.images), np.nan)
        self.samples.add(batch.indices, np.stack([values.get(c, nothing) for c in self.image_columns], 1))
        return values

    def compute(self) -> dict[str, float | str | bool | None]:
        rows = self.samples.sorted()[1] if len(self.samples) else np.empty((0, len(self.image_columns)))
        out: dict[str, float | str | bool | None] = {}
        for k, column in enumerate(self.image_columns):
            out.update(bootstrap.measured(column, rows[:, k], self.options["resamples"], self.context.seed))
        return out
