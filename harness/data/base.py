"""What data is to the rest: prompts by number, the images and masks that belong to them, and reference images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch


class Data(Protocol):
    """Everything is a function of the prompt's number, so cells, shards and workers see the same."""

    name: str
    fingerprint: str  # changes whenever a prompt, image, mask or reference image may have changed
    size: tuple[int, int]  # (H, W) of all images, pixels
    resizer: str  # how images came to that size; "none" where they have it by nature
    reference_size: int  # how many reference images there are; 0 = none

    def __len__(self) -> int:
        """Number of prompts."""

    def prompts(self, indices: Sequence[int]) -> list[str]: ...

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        """The image that belongs to each prompt, uint8 RGB (N, 3, H, W)."""

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        """What `task` starts from, uint8 RGB (N, 3, H, W): inpaint the prompt's own image, img2img as `source` says."""

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (N, 1, H, W), 1 = repaint, 0 = keep; belongs to the prompt's own image."""

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        """Up to `n` real images of the same kind, uint8 RGB, `batch` at a time."""
