"""What was chosen, frozen: a name of conf/ with its knobs, made once where a config is settled. Imports nothing heavy.

Plain values stand at the edges alone: a composed config comes in as mappings, JSON and parquet go out by `to_plain`.
A spec remembers exactly what it was given. So a cell's JSON, from which its id is made, is the JSON of its config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self


@dataclass(frozen=True, eq=False)
class Section(Mapping[str, Any]):
    """A section of a settled config: it is read as a mapping, never changed, and equal to one of the same values.

    >>> GuidanceSpec({"rescale": 0.5}).with_(threshold="none").to_plain()
    {'rescale': 0.5, 'threshold': 'none'}
    """

    given: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", dict(self.given))  # a copy: whoever gave it may go on to change theirs

    def __getitem__(self, knob: str) -> Any:
        return self.given[knob]

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def __hash__(self) -> int:
        return hash(self._text)

    @cached_property
    def _text(self) -> str:
        return json.dumps(to_plain(self), sort_keys=True)

    def with_(self, **changes: Any) -> Self:
        """The same with other values of some knobs; itself where there are none."""
        return type(self)({**self.given, **changes}) if changes else self

    def to_plain(self) -> dict[str, Any]:
        """What JSON and parquet take: built-in types alone, in the order given."""
        return {knob: to_plain(value) for knob, value in self.given.items()}


@dataclass(frozen=True, eq=False)
class Spec(Section):
    """A section that a file of conf/GROUP/NAME.yaml describes. ValueError where it has no name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.given.get("name"), str):
            raise ValueError(f"{type(self).__name__} needs a name among its values, got {self.given!r:.80}")

    @property
    def name(self) -> str:
        return self.given["name"]


class TaskSpec(Spec):
    """A file of conf/task."""

    @property
    def uses_strength(self) -> bool:
        return self["uses_strength"]

    @property
    def default_strength(self) -> float:
        """Its customary strength, for a task that uses one."""
        return float(self["default_strength"])


class ModelSpec(Spec):
    """A file of conf/model. Its other knobs belong to its kind (harness/models/kinds)."""

    @property
    def default_cfg(self) -> float:
        return self["default_cfg"]

    @property
    def default_precision(self) -> str:
        return self.get("default_precision", "fp32")

    @property
    def default_data(self) -> str | None:
        """The data that data=auto stands for, where the model has a world of its own."""
        return self.get("default_data")

    @property
    def auto_schedule(self) -> Mapping[str, Any]:
        """The schedule that schedule=auto stands for, with its knobs; empty: the sampler's own."""
        return self.get("auto_schedule") or {}

    @property
    def pixel_range(self) -> bool:
        """Whether it predicts pixels in [-1, 1], which a threshold may clip."""
        return bool(self.get("pixel_range", False))


class SamplerSpec(Spec):
    """A file of conf/sampler; `samplers.registry.sampler` makes of it what runs."""

    @property
    def default_schedule(self) -> str:
        """The schedule that schedule=auto stands for."""
        return self["default_schedule"]

    def schedule_of_few(self, calls: Any) -> str | None:
        """The schedule that stands in for it at so few denoiser calls (`few_calls` of its file), if one does."""
        few = self.get("few_calls")
        return few["schedule"] if few and isinstance(calls, int) and calls < few["below"] else None


class ScheduleSpec(Spec):
    """A file of conf/schedule."""


class DataSpec(Spec):
    """A file of conf/data. Its knobs belong to its kind (harness/data/kinds)."""


class MetricSpec(Spec):
    """A file of conf/metric with some of its knobs."""


class GuidanceSpec(Section):
    """The section `guidance` of conf/sweep.yaml; with the scale it makes a harness.models.guidance.Guidance."""


class ExecutorSpec(Spec):
    """A file of conf/executor. Its knobs belong to its kind (harness/executors/kinds)."""


class Settings(Section):
    """How a sweep runs, and not what: the values of conf/sweep.yaml that are in no cell's id."""

    @property
    def results_dir(self) -> str:
        return self["results_dir"]

    @property
    def executor(self) -> ExecutorSpec:
        return ExecutorSpec(self["executor"])

    @property
    def force(self) -> bool:
        """Whether cells that are recorded are run again."""
        return self["force"]

    @property
    def workers(self) -> int:
        """Worker processes for CPU cells."""
        return self["workers"]

    @property
    def cell_timeout(self) -> float | None:
        """Seconds that a cell may take; None: any."""
        return self["cell_timeout"]

    @property
    def retries(self) -> int:
        """How often a cell is tried again whose worker was lost."""
        return self["retries"]

    @property
    def shard_images(self) -> int | None:
        """Images of a part, for cells that several workers are to make; None: a cell is one worker's."""
        return self["shard_images"]

    @property
    def price_per_hour(self) -> float | None:
        """What an hour of a machine costs, in any currency; None: not known."""
        return self.get("price_per_hour")

    @property
    def plots(self) -> bool:
        return self["plots"]

    @property
    def live(self) -> bool:
        return self["live"]

    @property
    def tracker(self) -> str:
        """Where cells are written as well, as they end."""
        return self["tracker"]

    @property
    def debug(self) -> bool:
        return self["debug"]


# The fields of a cell that hold a section, and what each is.
SECTIONS: Mapping[str, type[Section]] = {
    "task": TaskSpec,
    "model": ModelSpec,
    "sampler": SamplerSpec,
    "schedule": ScheduleSpec,
    "data": DataSpec,
    "guidance": GuidanceSpec,
}


def to_plain(value: Any) -> Any:
    """`value` in built-in types: a section and whatever lies in it, as JSON takes them."""
    if type(value) in (str, int, float, bool, type(None)):  # most are: asked a million times
        return value
    if isinstance(value, Mapping):
        return {name: to_plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    return value


def metrics(asked: Sequence[str | Mapping[str, Any]]) -> tuple[str | MetricSpec, ...]:
    """The metrics of a cell: names, and specs of those that have knobs of their own."""
    return tuple(one if isinstance(one, str | MetricSpec) else MetricSpec(one) for one in asked)
