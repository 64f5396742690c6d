"""The knobs of `executor=slurm` (conf/executor/slurm.yaml), checked. Imports nothing heavy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn, Self

from harness.bounds import Number, Whole, YesOrNo, shown
from harness.errors import InputError

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


@dataclass(frozen=True)
class Text:
    """One line of text, or (`null`: true) none; a number is its text."""

    hint: str

    def __call__(self, name: str, given: Any) -> str | None:
        text = str(given).strip() if isinstance(given, (str, int)) and not isinstance(given, bool) else ""
        if given is not None and not (text and text.isprintable()):
            raise InputError(f"{name}={shown(given)} is not valid: give {self.hint}, or null")
        return None if given is None else text


@dataclass(frozen=True)
class Texts:
    """A list of lines."""

    example: str

    def __call__(self, name: str, given: Any) -> tuple[str, ...]:
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) and one.isprintable() for one in given):
            raise InputError(f"{name}={shown(given)} is not valid: give a list, as in {name}={self.example}")
        return tuple(given)


@dataclass(frozen=True)
class Words:
    """A text of words as a shell has them."""

    example: str

    def __call__(self, name: str, given: Any) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(given)) if given.isprintable() else self._refuse(name, given)
        except (AttributeError, ValueError):  # no text, or a quote that is not closed
            self._refuse(name, given)

    def _refuse(self, name: str, given: Any) -> NoReturn:
        raise InputError(f"{name}={shown(given)} is not valid: give words in quotes, as in \"{name}='{self.example}'\"")


def _or_null(check: Any) -> Any:
    return lambda name, given: None if given is None else check(name, given)


CHECKS: Mapping[str, Any] = {
    "tasks": Whole(1, 100_000),
    "array_limit": _or_null(Whole(1, 100_000)),
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
