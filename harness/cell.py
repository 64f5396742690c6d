"""`Cell`: one point of a sweep as plain values. Its id is the hash of its canonical form. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from harness import axes, specs
from harness.knob_paths import by_content
from harness.specs import DataSpec, GuidanceSpec, MetricSpec, ModelSpec, SamplerSpec, ScheduleSpec, TaskSpec

T = TypeVar("T", bound=type)


def _with_later_axes(cls: T) -> T:
    """The axes that the class does not spell are fields of it as well, at their defaults."""
    for axis in axes.KEPT:
        if axis.name not in cls.__annotations__:
            cls.__annotations__[axis.name] = "Any"
            setattr(cls, axis.name, axis.default)
    return cls


@dataclass(frozen=True)
@_with_later_axes
class Cell:
    """Everything that was asked of one cell: a field an axis (harness/axes.py). Groups are specs (harness/specs.py).

    Spelled here are the fields that the harness reads by name; the decorator adds the other axes. Plain mappings in
    the place of specs, as a record's text has them, become specs.
    """

    task: TaskSpec
    model: ModelSpec
    model_fingerprint: str
    sampler: SamplerSpec
    schedule: ScheduleSpec
    data: DataSpec
    data_fingerprint: str
    implementation: str
    noise: str
    steps: int
    cfg: float
    guidance: GuidanceSpec
    strength: float | None
    keep_steps: bool
    negative_prompt: str
    precision: str
    seed: int
    n_images: int
    batch_size: int
    device: str
    threads: int | None  # None: all that the worker may use; on a GPU, where the number changes no image
    metrics: tuple[str | MetricSpec, ...]
    reference_count: int
    timing: str
    timing_batch: int
    protocol: str = axes.default("protocol")
    classifier_scale: float = axes.default("classifier_scale")

    def __post_init__(self) -> None:
        for name, kind in specs.SECTIONS.items():
            given = getattr(self, name)
            if not isinstance(given, kind):
                object.__setattr__(self, name, kind(given))
        object.__setattr__(self, "metrics", specs.metrics(self.metrics))

    def canonical(self) -> str:
        """JSON with sorted keys: everything that was asked, the places of its files included."""
        return _json(self.to_plain())

    @cached_property
    def cell_id(self) -> str:
        """16 hexadecimal digits. Files enter by their fingerprints: where these lie does not."""
        return _hash(by_content(self.to_plain()))

    def has_id(self, recorded: str) -> bool:
        """Whether a record's id belongs to this question; older records hashed the paths as well."""
        return recorded in (self.cell_id, _hash(self.to_plain()))

    def to_plain(self, *names: str) -> dict[str, Any]:
        """The axes as JSON takes them, all or those named: what was added later stands there where it is set."""
        chosen = names or self.__dataclass_fields__
        return specs.to_plain(axes.written({name: getattr(self, name) for name in chosen}))

    @classmethod
    def from_canonical(cls, text: str) -> Cell:
        """The cell that `canonical` wrote; an axis that the text does not have is at its default."""
        values: dict[str, Any] = json.loads(text)
        values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
        return cls(**values)

    @property
    def cpu_threads(self) -> int:
        """Threads of the worker's CPU, wherever the cell is run."""
        return self.threads or allowed_cores()

    @cached_property
    def model_key(self) -> tuple[str, ...]:
        """Cells with the same key share one loaded model."""
        loaded = (specs.to_plain(getattr(self, axis.name)) for axis in axes.KEPT if axis.loads)
        return tuple(json.dumps(value, sort_keys=True) for value in loaded)

    @cached_property
    def fitted(self) -> Mapping[str, Any]:
        """Adapters and switches that are put into the model, by axis: those that are not at their default."""
        given = [(axis, getattr(self, axis.name)) for axis in axes.KEPT if axis.fits]
        return {axis.name: value for axis, value in given if value != axis.default}

    @property
    def label(self) -> str:
        """Short name for people, not unique."""
        parts = [self.task.name, self.sampler.name, f"{self.steps} steps", f"cfg {self.cfg:g}", self.precision]
        parts += [said for axis in axes.KEPT if (said := axis.unusual(getattr(self, axis.name)))]
        return " · ".join(parts if self.strength is None else [*parts, f"strength {self.strength:g}"])

    def columns(self) -> dict[str, Any]:
        """The columns of a record that say what was asked; the same whether the cell succeeds or fails."""
        filled = {
            part.name: part.value(getattr(self, axis.name))
            for axis in axes.KEPT
            for part in axis.parts
            if part.value is not None
        }
        return {"cell_id": self.cell_id, "cell": self.canonical(), **filled, "threads": self.cpu_threads}


def allowed_cores() -> int:
    """Processor cores that this process may use: fewer than there are under taskset, Slurm or a container's cpuset."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(values).encode()).hexdigest()[:16]
