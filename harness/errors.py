"""Errors that are the user's to mend: one clear line, no traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given, what is valid, what to do: in one line."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: as clean an end as Ctrl-C, exit code 143."""


def one_line(text: object) -> str:
    """One line of printable text: a prompt, a name or an error may hold anything, a terminal's commands included."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest valid one, then all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}valid: {', '.join(valid)}"
