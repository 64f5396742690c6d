"""What Slurm is asked and told: sbatch, squeue, scancel. No accounting is needed. Imports nothing heavy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import InputError, one_line

PROGRAMS = ("sbatch", "squeue", "scancel")
ANSWER_S = 60.0  # a controller that says nothing for so long is out of reach for now
PREFIX = "harness-"  # of the names of our jobs


class Unreachable(Exception):
    """Slurm does not answer now. What was submitted is not touched by that."""


@dataclass(frozen=True)
class Task:
    """One pilot in the queue, waiting or running. `reason`: why it waits."""

    job: str  # the array's number
    index: str
    state: str
    reason: str
    node: str
    name: str  # of the job: PREFIX and its folder


def check_installed() -> None:
    """InputError on a machine without Slurm's programs."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise InputError(
            f"executor=slurm needs {', '.join(missing)}, which this machine does not have; start the command on a "
            "login node of the cluster, or with executor=local"
        )


def check_reachable() -> None:
    """InputError where the cluster does not answer."""
    try:
        tasks()
    except Unreachable as error:
        raise InputError(
            f"executor=slurm: the cluster does not answer ({error}); try again, or executor=local"
        ) from error


def tasks() -> list[Task]:
    """Every pilot of this user that waits or runs; of a job that has ended, none. Unreachable where Slurm is."""
    answer = _ask(["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%T|%r|%N|%j"])
    rows = (line.split("|", 5) for line in answer.splitlines())
    return [Task(*row) for row in rows if len(row) == 6 and row[5].startswith(PREFIX)]


def submit(words: Sequence[str]) -> str:
    """The number of the job that sbatch makes. InputError with what it says where it refuses."""
    try:
        return _ask(["sbatch", "--parsable", *words]).strip().partition(";")[0]
    except Unreachable as error:
        raise InputError(f"sbatch refused the job: {error}; change executor.* and try again") from error


def cancel(names: Iterable[str]) -> None:
    """End the jobs of those names that are there. Raises Unreachable if Slurm does not answer."""
    for name in names:
        _ask(["scancel", "--quiet", f"--user={os.getuid()}", f"--name={name}"])


def said(of: Sequence[Task]) -> str:
    """How many pilots do what: "2 running, 3 pending (Priority)"; empty where there are none."""
    count = Counter((task.state.lower(), task.reason if task.state == "PENDING" else "") for task in of)
    return ", ".join(
        f"{n} {state}" + (f" ({reason})" if reason else "") for (state, reason), n in sorted(count.items())
    )


def _ask(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{command[0]} said nothing for {ANSWER_S:g} s") from error
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unreachable(one_line(lines[-1])[:300])
    return done.stdout
