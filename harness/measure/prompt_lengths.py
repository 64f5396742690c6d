"""How many of a cell's prompts its tokenizer cuts short, and a word where it does. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.models.base import Model

MOST_QUOTED = 60  # letters of a prompt


class PromptLengths:
    """The prompts of a cell that are longer than its model reads."""

    def __init__(self, model: Model, negative_prompt: str = "") -> None:
        self.model, self.negative = model, negative_prompt
        self.cut: dict[int, str] = {}  # by the prompt's number

    def add(self, indices: Iterable[int], prompts: Sequence[str]) -> None:
        told = self.model.too_long(prompts)
        self.cut |= {k: prompt for k, prompt, is_cut in zip(indices, prompts, told, strict=True) if is_cut}

    @property
    def truncated(self) -> int | None:
        """Prompts that were cut; None where the model reads no text."""
        return None if self.model.token_limit is None else len(self.cut)

    def words(self) -> list[str]:
        """A line where prompts were cut, one where the negative prompt was: the same in every cell that they are of."""
        said = []
        limit = f"more than the {self.model.token_limit} tokens, start and end included, that the model reads"
        if self.cut:
            first = min(self.cut)
            quoted = f"{self.cut[first][:MOST_QUOTED]!r}…"
            said.append(f"prompt {first} ({quoted}) is cut, with {limit}; prompts_truncated counts such prompts")
        if self.negative and self.model.too_long([self.negative])[0]:
            said.append(f"the negative prompt is cut, with {limit}")
        return said
