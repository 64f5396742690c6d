"""Errors that are the user's to mend: one clear line, no traceback, exit code 2."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

LONGEST = 500  # the most letters of a message


class InputError(ValueError):
    """What was given, what is valid, what to do: in one line of at most LONGEST letters, whatever it quotes."""

    def __init__(self, message: object = "") -> None:
        text = str(message)
        super().__init__(text if len(text) <= LONGEST else f"{text[:300]} … {text[-(LONGEST - 303) :]}")


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM, which ends a command as cleanly as Ctrl-C does, with exit code 143."""


def interruptible(main: Callable[[], int | None]) -> int:
    """The exit code of a command, `main`: Ctrl-C ends it with one line and code 130 instead of a traceback."""
    try:
        return main() or 0
    except KeyboardInterrupt:
        print("\ninterrupted: what was written before is whole", file=sys.stderr)
        return 130


def one_line(text: object) -> str:
    """One line of printable text: a prompt, a name or an error may hold anything, a terminal's commands included."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest valid one, then all of them.

    >>> nearest("eulre", ["heun", "euler"])
    "did you mean 'euler'? valid: euler, heun"
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}valid: {', '.join(valid)}"
