"""The knobs of `executor=slurm` (conf/executor/slurm.yaml), checked. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from harness.bounds import Number, Whole, YesOrNo
from harness.errors import InputError
from harness.executors.knobs import Text, Texts, Words, or_null

LAST_S = 10  # what is left of `end_before` when the cells that still run are given up
_SEVERAL = re.compile(r"gpu(:[a-z]\w*)?[:=]([2-9]|\d\d+)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What each knob means stands in the YAML; InputError for a value that cannot be."""

    tasks: int
    array_limit: int | None
    partition: str | None
    time: str | int | None
    gres: str | None
    mem: str | int | None
    cpus: int
    account: str | None
    constraint: str | None
    extra: tuple[str, ...]
    setup: tuple[str, ...]
    python: str | None
    end_before: int
    restarts: int
    poll: float
    wait: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        checked = {field.name: CHECKS[field.name](f"executor.{field.name}", given[field.name]) for field in fields(cls)}
        if several := _SEVERAL.search(str(checked["gres"])):
            raise InputError(
                f"executor.gres={checked['gres']} is not valid: a pilot uses one GPU; give gres=gpu:1 and "
                f"executor.tasks={several[2]} times as many pilots"
            )
        return cls(**checked)

    def words(self) -> list[str]:
        """What sbatch is told of a pilot's share of the cluster."""
        named = ("partition", "time", "gres", "mem", "account", "constraint")
        given = [f"--{name}={value}" for name in named if (value := getattr(self, name)) is not None]
        return [*given, f"--cpus-per-task={self.cpus}", f"--signal=B:USR1@{self.end_before}", *self.extra]


CHECKS: Mapping[str, Any] = {
    "tasks": Whole(1, 100_000),
    "array_limit": or_null(Whole(1, 100_000)),
    "partition": Text("the name of a partition"),
    "time": Text("a time as sbatch takes it, as in 2:00:00"),
    "gres": Text("resources as sbatch takes them, as in gpu:1"),
    "mem": Text("a size as sbatch takes it, as in 16G"),
    "cpus": Whole(1, 4_096),
    "account": Text("the name of an account"),
    "constraint": Text("features of nodes as sbatch takes them"),
    "extra": Words("--qos=long --exclusive"),
    "setup": Texts("[module load cuda]"),
    "python": Text("the command that starts Python on a node"),
    "end_before": Whole(2 * LAST_S, 86_400),
    "restarts": Whole(0, 1_000),
    "poll": Number(0.1, 3_600),
    "wait": YesOrNo(),
}
