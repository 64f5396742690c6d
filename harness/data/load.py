"""Data by name: conf/data/NAME.yaml holds every knob, harness/data/kinds/NAME.py the code. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from harness import paths
from harness.data import kinds
from harness.data.base import Data, Kind, Knobs
from harness.errors import InputError, nearest
from harness.kinds import kind

CONF = paths.CONF / "data"
SOURCES = ("own", "other")


def names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "auto")


@cache
def _defaults(name: str) -> Knobs:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def kind_of(knobs: Knobs) -> Kind:
    """The `KIND` of harness/data/kinds/KIND.py: of the kind that the YAML names, or of the YAML's own name."""
    name = knobs.get("kind", knobs.get("name"))
    return kind(kinds, name, f"data={name!r} is not known")


def complete(spec: Mapping[str, Any]) -> Knobs:
    """`spec` with the defaults of its YAML; InputError for an unknown name, knob or kind of source."""
    name = spec.get("name")
    if name not in names():
        raise InputError(f"data={name!r} is not known; {nearest(str(name), names())}")
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
    kind_of(full).check(full, n_images, task)


def remarks(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """A line each on what a reader may not expect of the data, such as images without captions."""
    full = complete(spec)
    return kind_of(full).remarks(full)


def fingerprint(spec: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change with the content: prompts, images, masks and how they are cut to size."""
    full = complete(spec)
    return kind_of(full).fingerprint(full)


def load(spec: Mapping[str, Any], size: tuple[int, int]) -> Data:
    """The data that `spec` names, every image at `size` (H, W)."""
    full = complete(spec)
    kind = kind_of(full)
    kind.check(full)
    return kind.load(full, size)
