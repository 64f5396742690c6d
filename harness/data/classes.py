"""Names of classes as prompts, for the analytic models: there are no images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from harness.errors import InputError


class ClassData:
    """Prompt i is the i-th name of the list, over and over; "" asks for the whole mixture."""

    name = "classes"
    resizer = "none"
    reference_size = 0

    def __init__(self, spec: Mapping[str, Any], size: tuple[int, int], fingerprint: str) -> None:
        self.classes = [str(name) for name in spec["classes"]]
        self.size, self.fingerprint = size, fingerprint

    def __len__(self) -> int:
        return 1 << 30

    def prompts(self, indices: Sequence[int]) -> list[str]:
        return [self.classes[int(index) % len(self.classes)] for index in indices]

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        raise InputError("data=classes has no images: take data=embedded or data=folder data.path=FOLDER")

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        return self.images(indices)

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        return self.images(indices)

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        return iter(())
