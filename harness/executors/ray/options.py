"""The knobs of `executor=ray` (conf/executor/ray.yaml), checked. Imports nothing heavy."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Self

from harness.bounds import Number, Whole, YesOrNo, shown
from harness.errors import InputError
from harness.executors.base import Work
from harness.executors.knobs import Text, or_null

ANSWER_S = 5.0  # a cluster's head that is there answers at once


@dataclass(frozen=True)
class Options:
    """What each knob means stands in the YAML; InputError for a value that cannot be."""

    address: str | None
    actors: int | None
    num_gpus: float | None
    num_cpus: int
    resources: Mapping[str, float]
    uv: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        return cls(**{one.name: CHECKS[one.name](f"executor.{one.name}", given[one.name]) for one in fields(cls)})

    @property
    def where(self) -> str | None:
        """The address of the cluster to join; None: one is started on this machine."""
        return self.address or os.environ.get("RAY_ADDRESS") or None

    def gpus(self, device: str) -> float:
        """GPUs of an actor for cells of that device."""
        return 0 if device == "cpu" else 1 if self.num_gpus is None else self.num_gpus

    def check_here(self) -> None:
        """InputError where Ray is not installed or the cluster's head does not answer."""
        if find_spec("ray") is None:
            raise InputError("executor=ray needs the package ray: uv sync --extra ray, or pip install 'ray>=2.50'")
        where = self.where
        if where is None or where in ("auto", "local"):
            return
        host, _, port = where.rpartition(":")
        if "://" in where or not host or not port.isdigit():
            raise InputError(
                f"executor.address={where} is not valid: give HOST:PORT of the head (6379 by default) or auto, and run "
                "on a node of the cluster or by `ray job submit`; ray:// cannot stream what workers say"
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except (OSError, OverflowError) as error:
            raise InputError(
                f"no Ray cluster answers at {where} ({error}); start it or give executor.address"
            ) from None

    def check(self, work: Work) -> None:
        """InputError where these cells cannot be run so."""
        if work.workers != 1:
            raise InputError(f"workers={work.workers} is not for executor=ray; give executor.actors={work.workers}")
        on_gpu = [cell for cell in work.cells if cell.device != "cpu"]
        share = self.gpus("cuda")
        if on_gpu and share == 0:
            raise InputError("executor.num_gpus=0 is not valid for device=cuda; give 1, or 0.5 for two actors a GPU")
        if share < 1 and any(cell.timing != "off" for cell in on_gpu):
            raise InputError(
                f"executor.num_gpus={share:g} lets actors share a GPU, where timings measure the neighbours; "
                "give timing=off or executor.num_gpus=1"
            )


def _resources(name: str, given: Any) -> Mapping[str, float]:
    number = Number(1e-4, 1e6)
    if not isinstance(given, Mapping) or not all(isinstance(one, str) and one.isprintable() for one in given):
        raise InputError(f"{name}={shown(given)} is not valid: give names and amounts, as in {name}={{a100: 1}}")
    return {one: number(f"{name}.{one}", amount) for one, amount in given.items()}


CHECKS: Mapping[str, Any] = {
    "address": Text("HOST:PORT of the cluster's head, or auto"),
    "actors": or_null(Whole(1, 100_000)),
    "num_gpus": or_null(Number(0, 1)),
    "num_cpus": Whole(1, 4_096),
    "resources": _resources,
    "uv": YesOrNo(),
}
