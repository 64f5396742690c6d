"""From the plain values of conf/model/NAME.yaml to a `Model`: its kind is found here, and asked. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from harness import paths
from harness.axes import PRECISIONS
from harness.errors import InputError, nearest
from harness.kinds import kind
from harness.models import kinds
from harness.models.base import Kind, Model, Spec
from harness.models.guidance import Guidance
from samplers.core.levels import NoiseLevels, Process

__all__ = [
    "check",
    "check_fitted",
    "check_run",
    "check_use",
    "fingerprint",
    "kind_of",
    "levels",
    "load",
    "named",
    "process",
]

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
    name = spec.get("kind", USUAL)
    return kind(kinds, name, f"model.kind={name!r} is not valid")


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


def levels(spec: Spec, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
    """The levels of a schedule for this model, before it is loaded; see `Kind.levels`."""
    return kind_of(spec).levels(spec, schedule, steps)


def check_run(spec: Spec, guidance: Guidance, adaptive: bool, implementation: str) -> None:
    """What is wrong with a model only together with this guidance and this way to step: InputError."""
    kind_of(spec).check_run(spec, guidance, adaptive, implementation)


def check_fitted(
    spec: Spec, fitted: Mapping[str, Any], precision: str, device: str, task: str = "txt2img"
) -> Mapping[str, Any]:
    """Adapters and switches as a cell keeps them, or what is wrong with them: InputError."""
    return kind_of(spec).check_fitted(spec, fitted, precision, device, task)


def load(spec: Spec, precision: str, device: str, fitted: Mapping[str, Any] | None = None) -> Model:
    """The model on `device` in `precision`, checked first: InputError, before anything heavy is read."""
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not valid; {nearest(precision, PRECISIONS)}")
    fitted = dict(fitted or {})
    model = kind_of(spec).load(spec, precision, device)
    _round_products(bool(fitted.pop("tf32", False)))
    if fitted:
        model.fit(fitted)
    return model


def _round_products(tf32: bool) -> None:
    """Float32 products of this process rounded to TF32, or not: one model is loaded at a time."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = tf32
