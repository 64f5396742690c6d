"""From the plain values of conf/model/NAME.yaml to a `Model`: its kind is found here, and asked. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import yaml

from harness import paths
from harness.axes import PRECISIONS
from harness.errors import InputError, nearest
from harness.models import kinds
from harness.models.base import Kind, Model, Spec
from samplers.core.levels import Process

__all__ = ["check", "check_use", "fingerprint", "kind_of", "load", "named", "process"]

CONF = paths.CONF / "model"
USUAL = "latent"  # the kind of a file that names none


def named(name: str, **changes: Any) -> Spec:
    """The values of conf/model/NAME.yaml with these changes."""
    valid = [path.stem for path in CONF.glob("*.yaml")]
    if name not in valid:
        raise InputError(f"model={name!r} is unknown; {nearest(name, valid)}")
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")), **changes}


def kind_of(spec: Spec) -> Kind:
    """The `KIND` of harness/models/kinds/KIND.py for the kind that a spec names."""
    name, valid = spec.get("kind", USUAL), [module.name for module in iter_modules(kinds.__path__)]
    if name not in valid:
        raise InputError(f"model.kind={name!r} is not valid; {nearest(str(name), valid)}")
    return import_module(f"{kinds.__name__}.{name}").KIND


def check(spec: Spec, task: str | None = None) -> Any:
    """Everything that can be wrong with a model before it is loaded, as one InputError; see `Kind.check`."""
    return kind_of(spec).check(spec, task)


def check_use(spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str = "") -> None:
    """What is wrong with a model only together with these data, this precision or this negative prompt: InputError."""
    kind_of(spec).check_use(spec, data, precision, negative_prompt)


def fingerprint(spec: Spec) -> str:
    """Short text that changes with the weights or, of an analytic model, with its numbers."""
    return kind_of(spec).fingerprint(spec)


def process(spec: Spec) -> Process:
    """The model's forward process, known before it is loaded: noise levels are checked against it."""
    return kind_of(spec).process(spec)


def load(spec: Spec, precision: str, device: str) -> Model:
    """The model on `device` in `precision`, checked first: InputError, before anything heavy is read."""
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not valid; {nearest(precision, PRECISIONS)}")
    return kind_of(spec).load(spec, precision, device)
