"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def made_anew(path: Path) -> BinaryIO:
    """Open a file that was not there: where someone put a link under a name that can be guessed, it is not followed."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def mark(pid: int | None = None) -> str:
    """What a process puts into the names of its temporaries: the machine, as processes of two may share a number."""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    return f"{host}-{os.getpid() if pid is None else pid}"


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary beside `path` for writing; it takes the name when the block ends well, complete on disk.

    Also when killed half-way, or when two workers write at once, `path` is a whole file or not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{mark()}.tmp")
    try:
        with made_anew(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
