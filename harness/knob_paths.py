"""One rule for the paths among a cell's knobs: a path counts in the cell's id by what lies there, not by its spelling.

`found` makes a path that exists absolute and resolves its links and `..`. `by_content` leaves absolute paths out of
what is hashed, because the fingerprints beside them say what lies there. A hub id (owner/name) is no path and stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KNOBS = {
    "data": ("path", "captions", "prompts", "masks", "statistics", "latents"),
    "model": ("path", "vae", "config", "file", "prior", "gguf"),
}
ADAPTER = ("path", "image", "images", "encoder")
NO_PATHS = ("center", "embedded")  # values of data.masks and model.path that are words, not paths
CONTENT = "by content"  # what the hashed text has in a path's place


def expanded(given: Any) -> Path:
    """`given` as a path, `~` and `~user` replaced by the home folder where there is one."""
    try:
        return Path(str(given)).expanduser()
    except RuntimeError:  # no such user
        return Path(str(given))


def found(kind: str, group: Mapping[str, Any]) -> Mapping[str, Any]:
    """`group` (data or model) with every path in it that exists absolute and resolved; others as they were given."""
    return {knob: _found(value) if knob in KNOBS[kind] else value for knob, value in group.items()}


def _found(value: Any) -> Any:
    if not isinstance(value, str) or not value or value in NO_PATHS:
        return value
    path = expanded(value)
    try:
        if path.is_dir():
            return str(path.resolve())
        # A file that is a link keeps its own name, its kind: caches link x.safetensors to a hash.
        return str(path.parent.resolve() / path.name) if path.exists() else value
    except (OSError, ValueError, RuntimeError):
        return value


def by_content(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` of a cell with every absolute path of its data, model and adapters replaced by one word.

    Looks at no file.
    """
    known = {**values, **{kind: _without_paths(values[kind], knobs) for kind, knobs in KNOBS.items()}}
    if values.get("adapters"):
        known["adapters"] = [_without_paths(one, ADAPTER) for one in values["adapters"]]
    return known


def _without_paths(group: Mapping[str, Any], knobs: tuple[str, ...]) -> Mapping[str, Any]:
    return {knob: CONTENT if knob in knobs and _is_path(value) else value for knob, value in group.items()}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and os.path.isabs(value)
