"""A model's files as they lie on the disk: configurations, and what the headers of weights say. Imports no torch."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import InputError

MOST_JSON = 64 * 2**20  # bytes of a configuration file, and of the header of a .safetensors file
PICKLES = (b"PK\x03\x04", b"\x80")  # torch's own formats
# How files begin that are often found where weights should be -> what to say of them.
IMPOSTORS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights themselves: run `git lfs pull` in its folder",
    b"<": "is a web page, not weights: fetch the file itself",
    **dict.fromkeys(PICKLES, "is a pickled checkpoint under another format's name: convert it to .safetensors"),
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a configuration file. InputError for anything else."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"it has {path.stat().st_size >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a configuration: it holds a {type(content).__name__}, not an object")
    return content


def check_is_weights(path: Path) -> None:
    """InputError where a file of weights, of whatever format, is absent, empty, a pointer to it or a web page."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise InputError(f"{path} is empty (0 bytes): fetch it again")
    if start[8:9] == b"{":  # the header of a .safetensors file, whose length may begin with any byte
        return
    for beginning, what in IMPOSTORS.items():
        if start.startswith(beginning) and (path.suffix == ".safetensors" or beginning not in PICKLES):
            raise InputError(f"{path} {what}")


def safetensors_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor in a .safetensors file, read from its header alone.

    InputError for another kind of file, and for one that has not as many bytes as its header says.
    """
    check_is_weights(path)
    stat = path.stat()
    return _shapes(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _shapes(path: Path, size: int, changed: int) -> dict[str, list[int]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_JSON:
                raise ValueError(f"its header would have {length} bytes")
            text = file.read(length)
        if text[:1] not in (b"", b"{"):
            raise ValueError("its header is no JSON object")
        if size < 8 + length:
            raise InputError(f"{path} is truncated: {size} bytes of at least {8 + length}; fetch it again")
        header = json.loads(text)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        whole = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {name: [int(side) for side in entry["shape"]] for name, entry in tensors.items()}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a readable .safetensors file: {error}") from error
    if size < whole:
        raise InputError(f"{path} is truncated: {size} bytes of {whole}; fetch it again")
    if size > whole:
        raise InputError(f"{path} is damaged: it has {size} bytes, and its header speaks of {whole}; fetch it again")
    return shapes
