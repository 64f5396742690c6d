"""What a fingerprint of data is made of: content, and never where the content lies. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.data import captions, listing, statistics
from harness.knob_paths import expanded

SMALL_FOLDER = 64 << 20  # bytes; folders up to this are fingerprinted by content, larger ones by names, sizes and times
READING = 2  # how files become prompts, images and masks; raised when it changes, so that no record meets other pixels


def of_folder(spec: Mapping[str, Any]) -> str:
    """The fingerprint of prompts, images and masks. A copy, a link and another spelling of a folder have the same."""
    knobs = [READING, spec["fit"], spec["source"], spec["masks"] == "center"]
    digest = hashlib.sha256(json.dumps(knobs).encode())
    top = None if spec["path"] is None else expanded(spec["path"])
    for entry in captions.entries(spec):
        name = "" if entry.image is None else _name(entry.image, top)
        digest.update(f"{entry.caption}\0{name}\0".encode("utf-8", "surrogatepass"))
    files = [(path, _name(path, top)) for path in captions.images_of(spec)]
    if spec["masks"] not in (None, "center"):
        masks = listing.folder(spec["masks"], "data.masks")
        files += [(path, _name(path, masks)) for path in listing.images(masks)]
    if (reference := statistics.given(spec)) is not None:
        digest.update(_content(reference.path, *reference.stamp))
    facts = [path.stat() for path, _ in files]
    small = sum(fact.st_size for fact in facts) <= SMALL_FOLDER
    for (path, name), fact in zip(files, facts, strict=True):
        digest.update(name.encode("utf-8", "surrogatepass"))
        digest.update(
            _content(path, fact.st_size, fact.st_mtime_ns) if small else f"{fact.st_size} {fact.st_mtime_ns}".encode()
        )
    return digest.hexdigest()[:16]


def of_prompts(knobs: Mapping[str, Any], asked: list[str], files: list[Path]) -> str:
    """The fingerprint of a list of prompts, of knobs that say what is made of them and of files that go with them."""
    digest = hashlib.sha256(json.dumps([READING, dict(knobs)], sort_keys=True).encode())
    digest.update("\0".join(asked).encode("utf-8", "surrogatepass"))
    for path in files:
        facts = path.stat()
        digest.update(_content(path, facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()[:16]


def _name(path: Path, top: Path) -> str:
    return Path(os.path.relpath(path, top)).as_posix()


@lru_cache(maxsize=65_536)
def _content(path: Path, *stamp: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
