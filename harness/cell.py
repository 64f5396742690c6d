"""`Cell`: one point of a sweep as plain values. Its id is the hash of its canonical form. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from harness import bounds
from harness.errors import InputError, nearest
from harness.knob_paths import by_content
from harness.paths import NOT_KNOBS

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
TIMINGS = ("quick", "full", "off")
IMPLEMENTATIONS = ("native", "diffusers", "k_diffusion")
NOISES = ("independent", "brownian")


@dataclass(frozen=True)
class Cell:
    """Everything that was asked of one cell. Groups (task, model, ...) are plain dicts with a `name`."""

    task: dict[str, Any]
    model: dict[str, Any]
    model_fingerprint: str
    sampler: dict[str, Any]
    schedule: dict[str, Any]
    data: dict[str, Any]
    data_fingerprint: str
    implementation: str
    noise: str
    steps: int
    cfg: float
    guidance: dict[str, Any]
    strength: float | None
    keep_steps: bool
    negative_prompt: str
    precision: str
    seed: int
    n_images: int
    batch_size: int
    device: str
    threads: int | None  # None: all that the worker may use; on a GPU, where the number changes no image
    metrics: tuple[str, ...]
    reference_count: int
    timing: str
    timing_batch: int

    def canonical(self) -> str:
        """JSON with sorted keys: everything that was asked, the places of its files included."""
        return _json(self._values())

    @cached_property
    def cell_id(self) -> str:
        """16 hexadecimal digits. Files enter by their fingerprints: where these lie does not."""
        return _hash(by_content(self._values()))

    def has_id(self, recorded: str) -> bool:
        """Whether a record's id belongs to this question; older records hashed the paths as well."""
        return recorded in (self.cell_id, _hash(self._values()))

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_canonical(cls, text: str) -> Cell:
        values = json.loads(text)
        values["metrics"] = tuple(values["metrics"])
        return cls(**values)

    @property
    def cpu_threads(self) -> int:
        """Threads of the worker's CPU, wherever the cell is run."""
        return self.threads or allowed_cores()

    @cached_property
    def model_key(self) -> tuple[str, str, str, str, int | None]:
        """Cells with the same key share one loaded model."""
        return (
            json.dumps(self.model, sort_keys=True),
            self.model_fingerprint,
            self.precision,
            self.device,
            self.threads,
        )

    @property
    def label(self) -> str:
        """Short name for people, not unique."""
        parts = [self.task["name"], self.sampler["name"], f"{self.steps} steps", f"cfg {self.cfg:g}", self.precision]
        parts += [value for value in (self.implementation, self.noise) if value not in ("native", "independent")]
        return " · ".join(parts if self.strength is None else [*parts, f"strength {self.strength:g}"])

    def columns(self) -> dict[str, Any]:
        """The columns of a record that say what was asked; the same whether the cell succeeds or fails."""
        same = ("model_fingerprint", "data_fingerprint", "implementation", "noise", "steps", "cfg", "strength")
        same += ("keep_steps", "negative_prompt", "precision", "seed", "n_images", "batch_size", "device")
        same += ("reference_count", "timing_batch")
        groups = {name: getattr(self, name) for name in ("task", "model", "sampler", "schedule", "data")}
        return {
            "cell_id": self.cell_id,
            "cell": self.canonical(),
            **{name: getattr(self, name) for name in same},
            "threads": self.cpu_threads,
            **{name: group["name"] for name, group in groups.items()},
            **{f"{name}_knobs": _knobs(groups[name]) for name in ("task", "sampler", "schedule")},
            "guidance_rescale": self.guidance["rescale"],
            "guidance_knobs": _knobs(self.guidance),
            "metrics": list(self.metrics),
            "timing_preset": self.timing,
        }


def allowed_cores() -> int:
    """Processor cores that this process may use: fewer than there are under taskset, Slurm or a container's cpuset."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(values).encode()).hexdigest()[:16]


def _knobs(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in NOT_KNOBS}


def whole(values: Mapping[str, Any], name: str, hint: str = "") -> int:
    """`values[name]` as an integer between its ends (harness/bounds.py), or an InputError that says what was given."""
    given, (low, high) = values[name], bounds.AXES[name]
    number_ = isinstance(given, (int, float)) and not isinstance(given, bool) and low <= given <= high
    if not number_ or given != int(given):
        said = bounds.said(low, high, "whole number")
        raise InputError(f"{name}={bounds.shown(given)} is not valid: {said}{hint}")
    return int(given)


def number(values: Mapping[str, Any], name: str, low: float | None = None, high: float | None = None) -> float:
    """`values[name]` as a finite number from `low` to `high`, which are those of harness/bounds.py where not given."""
    given = values[name]
    if low is None or high is None:
        low, high = bounds.AXES[name]
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not low <= given <= high:
        raise InputError(f"{name}={bounds.shown(given)} is not valid: {bounds.said(low, high)}")
    return float(given)


def yes_or_no(values: Mapping[str, Any], name: str) -> bool:
    """`values[name]`, true or false: a text such as "no" is neither."""
    if not isinstance(values[name], bool):
        raise InputError(f"{name}={values[name]!r} is not valid: give true or false")
    return values[name]


def choice(given: Any, name: str, valid: tuple[str, ...]) -> str:
    if given not in valid:
        raise InputError(f"{name}={given!r} is not valid; {nearest(given, valid)}")
    return given
