"""Plans that were learned for a model, chosen by model, guidance scale and number of calls: `sampler=learned nfe=5`.

The files of samplers/plans/learned ship with the project; `python -m harness.learn` made them and makes others, which
run as `sampler=plan sampler.file=FILE`. A learned plan is for what it was learned for and may be worse than a textbook
method elsewhere, so whatever no file was learned for is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from samplers.core.levels import NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities
from samplers.solvers import plan_file
from samplers.solvers.plan_file import ROOT, PlanFile

SHIPPED = "samplers/plans/learned"


@dataclass(frozen=True)
class Learned(PlanFile):
    """The plan in `file`, which `chosen` finds for a model, a guidance scale and a number of calls."""

    file: str | None = None  # type: ignore[assignment]  # None: not chosen yet

    def declares(self, steps: int) -> Capabilities:
        """What the file declares; of one that is not chosen yet what every learned plan does."""
        return Capabilities(order=1, nfe=steps) if self.file is None else super().declares(steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        self._needs_file()
        return super().plan(levels)

    def settle(self) -> Mapping[str, Any]:
        self._needs_file()
        return super().settle()

    def schedule(self, process: Process) -> NoiseLevels:
        self._needs_file()
        return super().schedule(process)

    def _needs_file(self) -> None:
        if self.file is None:
            raise ValueError(f"a learned plan is chosen by model, guidance scale and calls, or named; {_there()}")


def chosen(model: str, fingerprint: str, cfg: float, calls: int) -> str:
    """The shipped file that was learned for this model, guidance scale and number of calls, from the project's folder.

    ValueError, which says what there is, where none was.
    """
    for file, learned in shipped():
        if (learned["model_fingerprint"], learned["cfg"], learned["nfe"]) == (fingerprint, cfg, calls):
            return file
    known = [learned for _, learned in shipped() if learned["model_fingerprint"] == fingerprint]
    if known:
        why = f"none is for cfg={cfg:g} and {calls} calls"
    elif any(learned["model"] == model for _, learned in shipped()):
        why = f"those of model={model} are for other weights than these ({fingerprint})"
    else:
        why = f"none is for model={model}"
    raise ValueError(
        f"sampler=learned has no plan here: {why}; {_there()}. Learn one: python -m harness.learn model={model} "
        f"cfg={cfg:g} nfe={calls}"
    )


@cache
def shipped() -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The files that ship with the project, and what each was learned for."""
    return tuple(_read())


def _read() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(Path(ROOT / SHIPPED).glob("*.json")):
        file = f"{SHIPPED}/{path.name}"
        learned = plan_file.read(file).learned
        if learned is None:
            raise ValueError(f"{file} does not say what it was learned for")
        yield file, learned


def _there() -> str:
    by: dict[tuple[str, float], list[int]] = {}
    for _, learned in shipped():
        by.setdefault((learned["model"], learned["cfg"]), []).append(learned["nfe"])
    said = [f"model={name} cfg={cfg:g} nfe={','.join(map(str, sorted(calls)))}" for (name, cfg), calls in by.items()]
    return f"there is: {'; '.join(sorted(said)) or 'nothing'}"


SOLVER = Learned
