"""What data is to the rest: prompts by number, the images and masks that belong to them, and reference images.

A kind of data is one file in harness/data/kinds/ whose `KIND` is a `Kind`; conf/data/NAME.yaml has its knobs. What it
loads is a `Data`. Imports no torch by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Knobs = Mapping[str, Any]  # every value of conf/data/NAME.yaml


class Data(Protocol):
    """Everything is a function of the prompt's number, so cells, shards and workers see the same."""

    name: str
    fingerprint: str  # changes whenever a prompt, image, mask or reference image may have changed
    size: tuple[int, int]  # (H, W) of all images, pixels
    resizer: str  # how images came to that size; "none" where they have it by nature
    reference_size: int  # how many reference images there are; 0 = none

    def __len__(self) -> int:
        """Number of prompts."""
        ...

    def prompts(self, indices: Sequence[int]) -> list[str]: ...

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        """The image that belongs to each prompt, uint8 RGB (N, 3, H, W)."""
        ...

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        """What `task` starts from, uint8 RGB (N, 3, H, W): inpaint the prompt's own image, img2img as `source` says."""
        ...

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (N, 1, H, W), 1 = repaint, 0 = keep; belongs to the prompt's own image."""
        ...

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        """Up to `n` real images of the same kind, uint8 RGB, `batch` at a time."""
        ...


class Kind(ABC):
    """What is known of a kind of data from its knobs alone. A sweep asks it before any process has loaded torch."""

    @abstractmethod
    def check(self, knobs: Knobs, n_images: int | None = None, task: str | None = None) -> None:
        """InputError for what can be known to be wrong with so many images of this task. Opens no image."""

    @abstractmethod
    def fingerprint(self, knobs: Knobs) -> str:
        """16 hexadecimal digits that change with the content: prompts, images, masks and how they are cut to size."""

    @abstractmethod
    def load(self, knobs: Knobs, size: tuple[int, int]) -> Data:
        """The data, every image at `size` (H, W); the knobs have been checked."""

    def remarks(self, knobs: Knobs) -> tuple[str, ...]:
        """A line each on what a reader may not expect of the data, such as images without captions."""
        return ()
