"""Words of a command line as people type them, before Hydra's grammar reads them. Knows nothing of Hydra.

Hydra's grammar takes letters, digits and a few signs in a value without quotes; `~`, `=`, `(` or any letter outside
ASCII need quotes, and those need quotes for the shell once more. Nobody does that to a path, so it is done here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.errors import InputError

# A value that is meant as an expression: what is wrong in one is said, not read as a text.
EXPRESSION = re.compile(r"\s*([\[{'\"]|(choice|range|glob|sort|shuffle|interval|tag|int|float|str|bool|json_str)\s*\()")


def joined(words: Sequence[str]) -> list[str]:
    """Join the words of a list again that a blank after a comma has split.

    >>> joined(["sampler=euler,", "dpmpp", "steps=10"])
    ['sampler=euler,dpmpp', 'steps=10']
    """
    found: list[str] = []
    for word in words:
        goes_on = bool(found) and "=" in found[-1] and (found[-1].rstrip().endswith(",") or word.startswith(","))
        if goes_on and "=" not in word and not word.startswith("-"):
            found[-1] += word
        else:
            found.append(word)
    return found


def quoted(word: str) -> str | None:
    """KEY=VALUE with the parts of a plain list quoted for Hydra; None where the value is an expression.

    >>> quoted("data.path=/my/images, new")
    "data.path='/my/images','new'"
    """
    key, _, value = word.partition("=")
    if EXPRESSION.match(value):
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        return None
    return f"{key}=" + ",".join(f"'{_escaped(part)}'" for part in parts)


def _escaped(text: str) -> str:
    """Between single quotes, where backslashes count only before a quote."""
    return re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)


def check_form(word: str, choices: dict[str, Iterable[str]]) -> None:
    """InputError where `word` is no KEY=VALUE. `choices`: the groups, each with the names that may be chosen."""
    if word.startswith("~"):
        raise InputError(f"{word} is not taken: nothing can be deleted from a sweep; write KEY=VALUE words")
    if word.partition("=")[0].strip() and "=" in word:
        return
    homes = [group for group, names in choices.items() if word in names]
    sign = "+" if homes[:1] == ["experiment"] else ""
    guess = f"did you mean {sign}{homes[0]}={word}? " if homes else ""
    raise InputError(f"{word!r} is not KEY=VALUE: {guess}a value with a blank needs quotes, as in 'KEY=a b'")
