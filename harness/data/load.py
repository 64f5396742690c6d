"""Data by name: `conf/data/NAME.yaml` holds every knob, `harness/data/NAME.py` the code. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from harness import paths
from harness.errors import InputError, nearest

if TYPE_CHECKING:
    from harness.data.base import Data

CONF = paths.CONF / "data"
SOURCES = ("own", "other")


def names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "auto")


@cache
def _defaults(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def complete(spec: Mapping[str, Any]) -> dict[str, Any]:
    """`spec` with the defaults of its YAML; InputError for an unknown name, knob or kind of source."""
    name = spec.get("name")
    if name not in names():
        raise InputError(f"data={name!r} is not known; {nearest(name, names())}")
    defaults = _defaults(name)
    for knob in spec:
        if knob not in defaults:
            raise InputError(f"data.{knob} is not an option of data={name}; {nearest(knob, defaults)}")
    full = {**defaults, **spec}
    if "source" in full and full["source"] not in SOURCES:
        raise InputError(f"data.source={full['source']!r} is not valid; {nearest(full['source'], SOURCES)}")
    return full


def check(spec: Mapping[str, Any], n_images: int | None = None, task: str | None = None) -> None:
    """InputError for what can be known to be wrong before a model is loaded. Opens no image, imports no torch."""
    full = complete(spec)
    if full["name"] == "embedded":
        return _check_embedded(full)
    if full["name"] == "classes":
        return _check_classes(full)
    from harness.data import captions

    captions.check(full, n_images, task)
    if task == "inpaint" and full["masks"] not in (None, "center"):
        from harness.data.masks import check_masks

        known = captions.entries(full)[:n_images]
        check_masks(full["masks"], dict.fromkeys(entry.image for entry in known), full["path"])


def remarks(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """A line each on what a reader may not expect of the data, such as images without captions."""
    if spec.get("name") != "folder":
        return ()
    from harness.data import captions

    return captions.remarks(complete(spec))


def fingerprint(spec: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change with the content: prompts, images, masks and how they are cut to size."""
    full = complete(spec)
    if full["name"] == "classes":
        return hashlib.sha256(json.dumps(full["classes"]).encode()).hexdigest()[:16]
    from harness.data import fingerprints

    return fingerprints.of_folder(full) if full["name"] == "folder" else fingerprints.of_embedded(full)


def load(spec: Mapping[str, Any], size: tuple[int, int]) -> Data:
    """The data that `spec` names, every image at `size` (H, W)."""
    full = complete(spec)
    check(full)
    if full["name"] == "embedded":
        from harness.data.embedded import EmbeddedData

        return EmbeddedData(full, size, fingerprint(full))
    if full["name"] == "classes":
        from harness.data.classes import ClassData

        return ClassData(full, size, fingerprint(full))
    from harness.data.folder import FolderData

    return FolderData(full, size, fingerprint(full))


def _check_classes(spec: Mapping[str, Any]) -> None:
    names = spec["classes"]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise InputError(f"data.classes={names!r} is not valid: give a list of names, as data.classes=[left,right]")


def _check_embedded(spec: Mapping[str, Any]) -> None:
    start, share = spec["start"], spec["two_objects"]
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < 1 << 40:
        raise InputError(f"data.start={start!r} is not valid: give a whole number from 0 to 2^40")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise InputError(f"data.two_objects={share!r} is not valid: give a share from 0 to 1")
