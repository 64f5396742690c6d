"""What a knob of an executor may be: one check a kind of value, each with the example that its message gives."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.bounds import shown
from harness.errors import InputError


@dataclass(frozen=True)
class Text:
    """One line of text, or (`null`: true) none; a number is its text."""

    hint: str

    def __call__(self, name: str, given: Any) -> str | None:
        text = str(given).strip() if isinstance(given, (str, int)) and not isinstance(given, bool) else ""
        if given is not None and not (text and text.isprintable()):
            raise InputError(f"{name}={shown(given)} is not valid: give {self.hint}, or null")
        return None if given is None else text


@dataclass(frozen=True)
class Texts:
    """A list of lines."""

    example: str

    def __call__(self, name: str, given: Any) -> tuple[str, ...]:
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) and one.isprintable() for one in given):
            raise InputError(f"{name}={shown(given)} is not valid: give a list, as in {name}={self.example}")
        return tuple(given)


@dataclass(frozen=True)
class Words:
    """A text of words as a shell has them."""

    example: str

    def __call__(self, name: str, given: Any) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(given)) if given.isprintable() else self._refuse(name, given)
        except (AttributeError, ValueError):  # no text, or a quote that is not closed
            self._refuse(name, given)

    def _refuse(self, name: str, given: Any) -> NoReturn:
        raise InputError(f"{name}={shown(given)} is not valid: give words in quotes, as in \"{name}='{self.example}'\"")


def or_null(check: Any) -> Any:
    return lambda name, given: None if given is None else check(name, given)
