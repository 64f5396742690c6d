"""How much of its images a cell repaints, and a word where a mask repaints nothing or everything. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_NAMED = 3  # masks that the word lists
EXTREMES = {0.0: "nothing", 1.0: "everything"}


class MaskShare:
    """The share of pixels repainted, 0..1, of every mask of a cell, at the size of its images."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.shares: dict[int, float] = {}  # by the prompt's number

    def add(self, indices: Iterable[int], masks: Any) -> None:
        """`masks` (N, 1, H, W), 1 = repaint; None where the task has none."""
        if masks is not None:
            self.shares.update(
                (index, float((mask == 1).double().mean())) for index, mask in zip(indices, masks, strict=True)
            )

    @property
    def mean(self) -> float | None:
        return sum(self.shares.values()) / len(self.shares) if self.shares else None

    def words(self) -> list[str]:
        """A line each for the masks that repaint nothing and everything, with their files."""
        said = []
        for extreme, what in EXTREMES.items():
            found = [index for index, share in self.shares.items() if share == extreme]
            if found:
                named = ", ".join(repr(self._name(index)[-100:]) for index in found[:MOST_NAMED])
                more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
                said.append(f"{len(found)} of {len(self.shares)} masks repaint {what}: {named}{more}")
        return said

    def _name(self, index: int) -> str:
        name = getattr(self.data, "mask_name", None)  # folders have it; the embedded world's masks are no files
        return f"mask of prompt {index}" if name is None else name(index)
