"""What a folder holds that its owner would call data: no hidden names, no thumbnails of programs. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.data.pictures import IMAGE_SUFFIXES, OTHER_SUFFIXES
from harness.errors import InputError
from harness.knob_paths import expanded

SIDECARS = ("txt", "caption", "json")  # captions beside their images, in the order in which they are looked for
# Folders that systems make: copies inside of archives of macOS, thumbnails of Synology, bins.
NO_DATA = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__")


def folder(given: Any, name: str) -> Path:
    """`given` as a folder, `~` expanded; InputError that calls it `name` where there is none."""
    place = expanded(given)
    if not place.is_dir():
        raise InputError(f"{name}={str(given)!r} is not a folder (looked at {place.absolute()})")
    return place


def files(top: Path, deep: bool = True) -> list[Path]:
    """Every file below `top` (in it, unless `deep`) that may be data, sorted."""
    return sorted(_walk(top, deep))


def _walk(top: Path, deep: bool) -> Iterator[Path]:
    with os.scandir(top) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield Path(entry.path)
            elif deep and entry.name not in NO_DATA and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), deep)


def images(top: Path) -> list[Path]:
    return [path for path in files(top) if path.suffix.lower() in IMAGE_SUFFIXES]


def beside(listed: list[Path]) -> dict[Path, dict[str, Path]]:
    """Of each image among `listed` the files of its stem that may hold its caption, by kind."""
    texts: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in listed:
        kind = path.suffix.lower()[1:]
        if kind in SIDECARS:
            texts.setdefault((path.parent, path.stem), {})[kind] = path
    pictures = [path for path in listed if path.suffix.lower() in IMAGE_SUFFIXES]
    return {path: texts.get((path.parent, path.stem), {}) for path in pictures}


def of_other_kinds(listed: list[Path]) -> str:
    """What is there of pictures that are not taken, in words; empty where there is none."""
    found = sorted({path.suffix.lower() for path in listed if path.suffix.lower() in OTHER_SUFFIXES})
    count = sum(path.suffix.lower() in OTHER_SUFFIXES for path in listed)
    taken = ", ".join(IMAGE_SUFFIXES)
    return f"{count} files of kinds that are not taken ({', '.join(found)}; taken: {taken})" if count else ""
