"""One job array on the results' disk: what its pilots are to run, and what they said. Imports nothing heavy.

jobs/<when>-<six letters>/cells.jsonl   a cell a line, with the record of it that was there before
                          pilot.json    how they are run
                          job.json      the array's number in the queue, once it is submitted
                          job.sh        what a node starts
                          <task>.log    what each pilot said
                          parts/        of cells that several pilots make (harness/executors/parts.py)
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.atomic import written_whole
from harness.cell import Cell
from harness.executors.base import HOW, Work
from harness.executors.queue import cuts
from harness.executors.slurm import queue
from harness.executors.slurm.options import Options
from harness.paths import ROOT
from harness.store import layout
from harness.store.places import Folder

PILOT = "harness.sweep.pilot"  # the module that a node starts with the job's folder
Version = tuple[str, Any]  # of a record: its status and when it ended (Store.versions)


@dataclass(frozen=True)
class Job:
    """A job by its folder."""

    folder: Path

    @property
    def name(self) -> str:
        """What it is called in the queue."""
        return queue.PREFIX + self.folder.name

    @property
    def number(self) -> str | None:
        """Its number in the queue; None where it was not submitted, or whoever did so was killed at that moment."""
        try:
            return json.loads((self.folder / "job.json").read_text())["job"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @cached_property
    def asked(self) -> dict[str, Version | None]:
        """cell_id → the record of it that was there before, which a pilot replaces."""
        return {line["id"]: _version(line["before"]) for line in self._lines()}

    @property
    def before(self) -> dict[str, Version]:
        """The same of the cells that were recorded."""
        return {cell_id: version for cell_id, version in self.asked.items() if version is not None}

    def cells(self) -> list[Cell]:
        return [Cell.from_canonical(line["cell"]) for line in self._lines()]

    def orders(self) -> dict[str, Any]:
        """What `written` was told about how to run."""
        return json.loads((self.folder / "pilot.json").read_text())

    @property
    def parts(self) -> Folder | None:
        """Where its pilots keep parts of cells, where it has cells in parts."""
        folder = self.orders().get("parts")
        return Folder(folder) if folder else None

    def last_words(self) -> str:
        """The last line of the newest log; empty where no pilot said anything."""
        logs = sorted(self.folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for log in reversed(logs):
            lines = log.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1][:300]!r} in {log}"
        return ""

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "cells.jsonl").read_text().splitlines()]


def written(work: Work, cells: Sequence[Cell], options: Options, before: Job | None = None) -> Job:
    """A new job's folder for some of the cells. It goes on with the parts of cells that the job `before` has made."""
    results = Path(str(work.store.place)).resolve()
    folder = layout.jobs(results) / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(parents=True)
    with written_whole(folder / "cells.jsonl") as file:
        for cell in cells:
            line = {"id": cell.cell_id, "cell": cell.canonical(), "before": _plain(work.before.get(cell.cell_id))}
            file.write(json.dumps(line).encode() + b"\n")
    count = [len(cuts(cell, work.shard_images)) for cell in cells]
    parts = folder / "parts" if before is None else before.parts
    orders = {
        "results": str(results),
        "tasks": min(options.tasks, sum(count)),
        "parts": str(parts) if parts and max(count) > 1 else None,
        "end_before": options.end_before,
        "restarts": options.restarts,
        **{name: getattr(work, name) for name in HOW},
    }
    _put(folder / "pilot.json", json.dumps(orders, indent=1))
    _put(folder / "job.sh", _script(folder, options))
    return Job(folder)


def submitted(job: Job, options: Options) -> str:
    """Put the job into the queue; its number there. InputError where Slurm refuses."""
    tasks = job.orders()["tasks"]
    limit = "" if options.array_limit is None else f"%{options.array_limit}"
    words = [
        f"--job-name={job.name}",
        f"--array=0-{tasks - 1}{limit}",
        f"--output={job.folder}/%a.log",
        "--open-mode=append",
        "--requeue",
        f"--chdir={os.getcwd()}",
        *options.words(),
        str(job.folder / "job.sh"),
    ]
    number = queue.submit(words)
    _put(job.folder / "job.json", json.dumps({"job": number, "tasks": tasks, "words": words}))
    return number


def jobs(results: Path) -> list[Job]:
    """All jobs of a results folder, oldest first."""
    return [Job(path.parent) for path in sorted(layout.jobs(results).glob("*/pilot.json"))]


def _script(folder: Path, options: Options) -> str:
    """`exec`, so that the signals of a batch job reach Python itself."""
    python = options.python or shlex.quote(sys.executable)
    lines = [
        "#!/bin/bash",
        f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONUNBUFFERED=1',
        *options.setup,
        f"exec {python} -m {PILOT} {shlex.quote(str(folder))}",
    ]
    return "\n".join(lines) + "\n"


def _put(path: Path, text: str) -> None:
    with written_whole(path) as file:
        file.write(text.encode())


def _plain(version: Version | None) -> list[Any] | None:
    if version is None:
        return None
    status, ended = version
    return [status, ended.isoformat() if isinstance(ended, datetime) else ended]


def _version(plain: list[Any] | None) -> Version | None:
    if plain is None:
        return None
    status, ended = plain
    return status, datetime.fromisoformat(ended) if isinstance(ended, str) else ended
