"""Networks whose weights are the user's to bring: where they are looked for, and what a metric is without them.

`path` of a metric's YAML names a folder or a file; null: the snapshot that the hub's cache on this machine has. Nothing
is fetched. What is missing ends a sweep with one line before anything runs, or, with `optional: true`, leaves the
metric's columns null and its definition with the reason. Imports no torch at its top.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.metrics.base import Batch, Metric, Options, PerImageMetric
from harness.metrics.context import Context
from harness.metrics.features import files
from harness.models import pickles

if TYPE_CHECKING:
    import torch

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Source:
    """Customary weights: a repository of the hub, and in it one of `files`; `folder`: what lies beside them belongs."""

    hub: str
    files: tuple[str, ...] = WEIGHTS
    folder: bool = True

    def find(self, metric: str, given: Any, allow_pickle: bool, knob: str = "path") -> Path:
        """The folder, or the file. InputError where there is none, or where it is a pickle that nobody vouches for."""
        wanted = "FOLDER" if self.folder else "FILE"
        if given is None:
            file = self._cached()
            if file is None:
                raise InputError(
                    f"metric {metric} needs {self.hub}, which is not in the hub's cache on this machine: give "
                    f"metrics=[{{name: {metric}, {knob}: {wanted}}}], or optional: true for nulls"
                )
        else:
            place = expanded(given)
            file = next((place / name for name in self.files if (place / name).is_file()), place)
            if not file.is_file():
                what = f"has none of {', '.join(self.files[:3])}" if place.is_dir() else "is not there"
                raise InputError(f"{knob}={str(given)!r} of metric {metric} {what}: give the {wanted} of {self.hub}")
        # A folder may hold a pickle beside safetensors: those come first in `files`.
        pickled = file.suffix in pickles.PICKLED or file.name.endswith(".bin.index.json")
        if pickled and not allow_pickle:
            pickles.refuse(file, f"allow_pickle of metric {metric}")
        return file.parent if self.folder else file

    def _cached(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self.hub, name) for name in self.files)
        return next((Path(path) for path in found if isinstance(path, str)), None)


def label(path: Path) -> str:
    """Name and 8 digits of the content of a folder's or a file's weights: two trainings are two networks."""
    file = path if path.is_file() else next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    return path.name if file is None else f"{path.name}-{files.short_hash(file)}"


class OwnWeights(Metric):
    """A metric with such a network. A subclass says where it is (`found`) and how it is loaded (`load`)."""

    @classmethod
    def check(cls, options: Options) -> None:
        for knob in ("optional", "allow_pickle"):
            if knob in options and not isinstance(options[knob], bool):
                raise InputError(f"{knob}={options[knob]!r} of metric {cls.name}: give true or false")
        try:
            cls.found(options)
        except InputError:
            if not options["optional"]:
                raise

    @classmethod
    @abstractmethod
    def found(cls, options: Options) -> Any:
        """The paths of the weights. InputError, one line, for whatever is missing."""

    @abstractmethod
    def load(self, found: Any) -> Any:
        """The network of those weights, on the context's device."""

    def network_of(self, options: Options, context: Context) -> tuple[Any | None, str]:
        """The network, loaded once a worker, or None and why."""
        try:
            found = self.found(options)
        except InputError as error:
            return None, str(error)
        return context.once((self.name, str(found), context.device), lambda: self.load(found)), ""

    @property
    def definition_column(self) -> str:
        return f"{self.name}_definition"


class Scorer(Protocol):
    """uint8 RGB (N, 3, H, W) and N prompts -> one score an image, float64 (N,)."""

    definition: str

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray: ...


class ScoreMetric(OwnWeights, PerImageMetric):
    """A score an image and its mean over the cell; `NAME_definition` says by which formula and network."""

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.scorer, self.missing = self.network_of(options, context)

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        return {} if self.scorer is None else {self.name: self.scorer(batch.images, list(batch.prompts))}

    def compute(self) -> dict[str, float | str | bool | None]:
        said = f"none: {self.missing}" if self.scorer is None else self.scorer.definition
        return {**super().compute(), self.definition_column: said}


def state_dict(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a pickle, of which tensors alone are read; `state_dict` unwrapped."""
    import torch
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file)
    with pickles.weights_only():
        content = torch.load(file, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)


def pictures(images: torch.Tensor) -> list[Any]:
    """The images for libraries that take Pillow's."""
    from PIL import Image

    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]


def cropped(images: torch.Tensor, side: int) -> list[Any]:
    """`pictures`, resized and cut to side × side by the functions of torchvision that authors' packages call.

    Those of `harness.data` round the longer side otherwise.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    resized = (F.resize(one, [side], InterpolationMode.BICUBIC) for one in pictures(images))
    return [F.center_crop(one, [side]) for one in resized]
