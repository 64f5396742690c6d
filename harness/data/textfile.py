"""Text files as people have them: UTF-8 with or without a mark, UTF-16 with one; lines end at \\n, \\r\\n, \\r."""

from __future__ import annotations

import codecs
import re
from itertools import pairwise
from pathlib import Path

from harness.errors import InputError

MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a file that is not UTF-8 may be in; the last takes anything.
GUESSES = ("gbk", "gb18030", "big5", "shift_jis", "euc_kr", "cp1252", "latin-1")
LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines: a separator such as U+2028 is part of a text


def read_text(file: Path) -> str:
    """The file's text without its mark. InputError says which encoding it may be in where it is not UTF-8."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from None
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_read(file, raw, f"{error.reason} at byte {error.start}") from None
    if "\0" in text:  # letters of two bytes without a mark, or no text at all
        raise _not_read(file, raw, f"a zero byte at {raw.index(0)}")
    return text


def lines(text: str) -> list[str]:
    return LINE_END.split(text)


def _not_read(file: Path, raw: bytes, why: str) -> InputError:
    guess = _guess(raw)
    if guess is None:
        return InputError(f"{str(file)!r} cannot be read as UTF-8 text ({why}): save it as UTF-8")
    return InputError(
        f"{str(file)!r} cannot be read as UTF-8 text ({why}); it may be {guess}: "
        f"convert it, iconv -f {guess.upper()} -t UTF-8 OLD > NEW"
    )


def _guess(raw: bytes) -> str | None:
    sample = raw[: 1 << 16]
    if any(raw.startswith(mark) for mark, _ in MARKS):
        return None  # it says what it is and is damaged
    if 0 in sample:
        if sample[1::2].count(0) > len(sample) // 5:
            return "utf-16le"
        return "utf-16be" if sample[::2].count(0) > len(sample) // 5 else None
    fitting = [name for name in GUESSES if _decodes(sample, name)]
    # A text of two-byte letters has them side by side; Latin text has single ones among ASCII.
    high = sum(byte >= 0x80 for byte in sample)
    pairs = sum(a >= 0x80 and b >= 0x40 and not chr(b).isspace() for a, b in pairwise(sample))
    wide = [name for name in fitting if name not in ("cp1252", "latin-1")]
    if wide and high > 3 and pairs > 0.6 * high and re.search(rb"[\x80-\xff]{4}", sample):
        return wide[0]
    return next((name for name in ("cp1252", "latin-1") if name in fitting), None)


def _decodes(sample: bytes, name: str) -> bool:
    for cut in range(4):  # the sample may end inside a letter
        try:
            sample[: len(sample) - cut].decode(name)
        except UnicodeDecodeError:
            continue
        return True
    return False
