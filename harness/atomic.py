"""Files that are written whole or not at all, wherever they are. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def made_anew(path: Path) -> BinaryIO:
    """Open a file that was not there, to write and to read back; a link put under a guessable name is not followed."""
    path.unlink(missing_ok=True)
    return path.open("x+b")


def mark(pid: int | None = None) -> str:
    """What a process puts into the names of its temporaries: its number, and its machine, since two may share one."""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    return f"{host}-{os.getpid() if pid is None else pid}"


def temporary(path: Path, more: str = "") -> Path:
    """Where this process writes what is to become `path`: beside it, under a hidden name that says whose it is."""
    return path.with_name(f".{path.name}{more}.{mark()}.tmp")


def complete(file: BinaryIO) -> None:
    """Wait until what was written to `file` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary beside `path` for writing; it takes the name when the block ends well, complete on disk.

    Even when the writer is killed half-way, or two workers write at once, `path` is a whole file or is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(path)
    try:
        with made_anew(unfinished) as file:
            yield file
            complete(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def clear_after(folder: Path, pid: int) -> None:
    """Remove what the process `pid` of this machine, now dead, left half-written anywhere in `folder`."""
    for left in folder.rglob(f".*.{mark(pid)}.tmp"):
        with suppress(OSError):
            left.unlink()
