"""A plan read from a file as a sampler: `sampler=plan sampler.file=my.json` runs the very coefficients in it.

The file may hold any plan in the format of samplers/core/plan_json.py: one that `python -m samplers.show --json` wrote,
one that a sweep kept beside its records (results/plans), one that `python -m harness.learn` fitted to a model, or one
that was made by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from samplers.core import plan_json
from samplers.core.levels import NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "samplers/plans/dpmpp_2m_20.json"
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class PlanFile(Solver):
    """The plan in `file`, on the levels that it was made for: the schedule `file` gives them.

    `sha256`: hexadecimal digest that the file must have, so that a record names what really ran.
    """

    own_levels: ClassVar[bool] = True

    file: str = EXAMPLE
    sha256: str | None = None

    def declares(self, steps: int) -> Capabilities:
        """What the file declares; its number of steps is its own, whatever `steps` says."""
        return read(self.file, self.sha256).plan.capabilities

    def plan(self, levels: NoiseLevels) -> Plan:
        saved = read(self.file, self.sha256)
        own = np.stack([saved.alpha, saved.sigma, saved.time])
        given = np.stack([levels.alpha, levels.sigma, levels.time])
        if own.shape != given.shape or not np.allclose(own, given, rtol=1e-9, atol=1e-9):
            raise ValueError(
                f"the plan in {self.file} was made for {saved.steps} steps over levels of its own, not for these "
                f"{levels.steps} steps: it runs with schedule=auto (or schedule=file) on a model of the same training "
                "schedule, and whole"
            )
        return saved.plan

    def settle(self) -> Mapping[str, Any]:
        read(self.file, self.sha256)
        return {"file": self.file, "sha256": hashlib.sha256(_found(self.file).read_bytes()).hexdigest()}

    def schedule(self, process: Process) -> NoiseLevels:
        """The levels that the plan was made for, on `process`, which must scale its state as the file does.

        If `process` is the file's own, the times are the file's; otherwise `process` computes them from the levels.
        """
        saved = read(self.file, self.sha256)
        levels = NoiseLevels(saved.alpha, saved.sigma, saved.time, process)
        if not plan_json.same_process(saved.process, plan_json.describe(process)):
            levels = NoiseLevels(saved.alpha, saved.sigma, process.time(levels.ratio), process)
        alpha, sigma = process.scale(levels.ratio)
        if not (np.allclose(alpha, saved.alpha, atol=1e-9) and np.allclose(sigma, saved.sigma, rtol=1e-9, atol=1e-9)):
            raise ValueError(
                f"the levels in {self.file} are of a {saved.process.get('kind')} process, this model's is a "
                f"{type(process).__name__}: its state is scaled otherwise"
            )
        return levels

    def elsewhere(self, model: str, fingerprint: str, cfg: float) -> str | None:
        learned = read(self.file, self.sha256).learned
        if learned is None or (learned["model_fingerprint"] == fingerprint and learned["cfg"] == cfg):
            return None
        other = [] if learned["model_fingerprint"] == fingerprint else [f"model={model} (weights {fingerprint})"]
        other += [] if learned["cfg"] == cfg else [f"cfg={cfg:g}"]
        return (
            f"{self.file} was learned for model={learned['model']} (weights {learned['model_fingerprint']}) at "
            f"cfg={learned['cfg']:g}, not for {' and '.join(other)}: it may be worse here than a textbook sampler"
        )


def read(file: str, sha256: str | None = None) -> plan_json.SavedPlan:
    """The plan in `file`, looked up from the working folder and then from the project's. ValueError in one line."""
    path = _found(file)
    status = path.stat()
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{file} has {status.st_size >> 20} MiB: no plan is so long")
    digest, saved = _read(path, status.st_mtime_ns, status.st_size)
    if sha256 is not None and digest != sha256:
        raise ValueError(f"{file} has changed: its sha256 is {digest}, asked for was {sha256}")
    if isinstance(saved, str):
        raise ValueError(f"{file} is not a plan to run: {saved}")
    return saved


@lru_cache(maxsize=16)
def _read(path: Path, changed: int, size: int) -> tuple[str, plan_json.SavedPlan | str]:
    """The digest of the file, and its plan or what is wrong with it. Read again when the file changes."""
    data = path.read_bytes()
    try:
        saved: plan_json.SavedPlan | str = plan_json.loads(data)
    except ValueError as error:
        saved = " ".join(str(error).split())
    return hashlib.sha256(data).hexdigest(), saved


def _found(file: str) -> Path:
    if isinstance(file, str):
        for path in (Path(file).expanduser(), ROOT / file):
            if path.is_file():
                return path.resolve()
    raise ValueError(f"there is no plan file {file!r}: write one with `python -m samplers.show NAME --json FILE`")


SOLVER = PlanFile
