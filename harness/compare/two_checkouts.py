"""Did this checkout become slower, larger or costlier than another commit? `python -m harness.compare BASE_REF`.

The other commit is checked out beside this one and both are run in one sitting: a worker of each stays alive, and the
same cells are timed in turn, in random order within a pair. Only paired ratios are judged: a stored time depends on
what else the machine did that day. Denoiser calls and FLOPs are compared exactly, peak memory by its difference.

Exit codes: 0 pass, 1 regression, 2 unusable input, 3 inconclusive.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from harness.compare import decide
from harness.errors import InputError, one_line
from harness.paths import ROOT
from harness.verdict import output
from harness.verdict.findings import COLUMNS, IMPROVEMENT, INCONCLUSIVE, NUMBERS, PASS, REGRESSION, Report

CONF = ROOT / "conf" / "check" / "speed.yaml"


@dataclass(frozen=True)
class Limits:
    """conf/check/speed.yaml."""

    rule: decide.Rule
    memory_mib: float
    memory_runs: int
    cells: tuple[str, ...]

    @classmethod
    def load(cls, path: Path = CONF) -> Limits:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        rule = {field.name: values.pop(field.name) for field in fields(decide.Rule)}
        return cls(decide.Rule(**rule), **{**values, "cells": tuple(values["cells"])})


class Worker:
    """A process that runs the cells of one checkout. It computes only while it is asked something."""

    def __init__(self, name: str, root: Path, results: Path) -> None:
        self.name = name
        script = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(root), str(results)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Its answer; ChildProcessError where it died, RuntimeError with its own words where it failed."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildProcessError(f"the worker of the {self.name} died (exit code {self.process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Finding:
    """One line of the verdict; `low` and `high` are the interval of the ratio candidate/base (time only)."""

    cell: str
    what: str  # time | memory | nfe | flops | cell
    outcome: str  # one of harness.verdict.findings.VERDICTS
    base: float = math.nan
    candidate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: float = math.nan
    note: str = ""


def compare(base: Worker, candidate: Worker, words: Sequence[str], limits: Limits, seed: int = 0) -> Iterator[Finding]:
    """Findings as they are made."""
    sides = (base, candidate)
    labels = [side.ask("cells", words=list(words))["labels"] for side in sides]
    for label in [label for label in labels[0] if label not in labels[1]]:
        yield Finding(label, "cell", REGRESSION, note="the candidate does not have this cell")
    order = random.Random(seed)
    for label in [label for label in labels[0] if label in labels[1]]:
        index = [found.index(label) for found in labels]
        try:
            costs = [side.ask("prepare", cell=k) for side, k in zip(sides, index, strict=True)]
        except RuntimeError as error:
            if str(error).startswith(base.name):
                raise InputError(f"the base cannot run {label!r}: {error}") from error
            yield Finding(label, "cell", REGRESSION, note=str(error))
            continue
        yield from _costs(label, *costs)
        yield _memory(label, sides, index, limits)
        yield _time(label, sides, index, limits, order)


def _costs(label: str, base: dict[str, float], candidate: dict[str, float]) -> Iterator[Finding]:
    for what in ("nfe", "flops"):
        one, other = base[what], candidate[what]
        if one is None or other is None:  # a formula has no FLOPs to count
            continue
        outcome = REGRESSION if other > one else IMPROVEMENT if other < one else PASS
        yield Finding(label, what, outcome, one, other, note="compared exactly")


def _memory(label: str, sides: tuple[Worker, Worker], index: list[int], limits: Limits) -> Finding:
    """The smallest of a few peaks of each side: an allocator may hold on to more, never to less than it needs."""
    peaks = [
        min(side.ask("memory", cell=k)["mib"] for _ in range(limits.memory_runs))
        for side, k in zip(sides, index, strict=True)
    ]
    more = peaks[1] - peaks[0]
    outcome = REGRESSION if more > limits.memory_mib else IMPROVEMENT if -more > limits.memory_mib else PASS
    note = f"{more:+.1f} MiB, limit +{limits.memory_mib:g} MiB"
    return Finding(label, "memory", outcome, *peaks, n=limits.memory_runs, note=note)


def _time(label: str, sides: tuple[Worker, Worker], index: list[int], limits: Limits, order: random.Random) -> Finding:
    def pair() -> tuple[float, float]:
        seconds = [0.0, 0.0]
        for which in order.sample((0, 1), 2):
            seconds[which] = sides[which].ask("time", cell=index[which])["seconds"]
        return seconds[0], seconds[1]

    verdicts, taken = decide.decide(pair, limits.rule)
    last = verdicts[-1]
    faster = last.high < 1 / limits.rule.slower
    outcomes = {decide.PASS: IMPROVEMENT if faster else PASS, decide.SLOWER: REGRESSION, decide.UNDECIDED: INCONCLUSIVE}
    note = f"ratio {last.ratio:.3f} ({last.low:.3f} to {last.high:.3f}), {last.pairs} pairs"
    note += ", measured twice" if len(verdicts) > 1 else ""
    middle = [statistics.median(column) for column in zip(*taken, strict=True)]
    return Finding(label, "time", outcomes[last.outcome], *middle, last.low, last.high, last.pairs, note)


@contextmanager
def checkout(ref: str, folder: Path) -> Iterator[Path]:
    """The commit's files in a folder of their own, gone afterwards."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found is None:
        raise InputError(f"BASE_REF={ref!r} is not a commit of this checkout: give a branch, a tag or a hash")
    _git("worktree", "prune")  # forget what a killed comparison left
    if _git("worktree", "add", "--detach", "--force", str(folder), found) is None:
        raise InputError(f"git could not check out {ref!r} beside this checkout: is the disk full?")
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> str | None:
    done = subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def report(ref: str, found: Sequence[Finding]) -> Report:
    """The findings in the form that every check of this project writes."""
    frame = pd.DataFrame(
        [
            {
                "tier": "speed", "check": one.what, "label": one.cell, "verdict": one.outcome, "message": one.note,
                "baseline": one.base, "candidate": one.candidate, "difference": one.candidate - one.base, "n": one.n,
            }
            for one in found
        ],
        columns=COLUMNS,
    )  # fmt: skip
    return Report(
        frame.astype(dict.fromkeys(NUMBERS, float)),
        [f"base: {ref}"],
        len({one.cell for one in found}),
        "Speed, memory and cost against another commit",
    )


def run(ref: str, words: Sequence[str], limits: Limits, seed: int, tell: Callable[[Finding], None]) -> list[Finding]:
    """Check the base out, start a worker of each, compare."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        base_root = stack.enter_context(checkout(ref, folder / "base"))
        given = [*words, f"results_dir={folder / 'results'}"]
        workers = []
        for name, root in (("base", base_root), ("candidate", ROOT)):
            worker = Worker(name, root, folder / "results")
            stack.callback(worker.stop)
            workers.append(worker)
        findings = []
        for finding in compare(*workers, given, limits, seed):
            findings.append(finding)
            tell(finding)
        return findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.compare", description=__doc__.splitlines()[0])
    parser.add_argument("base_ref", help="the commit to compare with: a branch, a tag or a hash")
    parser.add_argument("words", nargs="*", help="which cells, as in a sweep (default: those of conf/check/speed.yaml)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within pairs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write them as JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write them as Markdown, for a job summary")
    asked = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    limits = Limits.load()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the other checkout is taken away all the same
    try:
        found = run(asked.base_ref, asked.words or limits.cells, limits, asked.seed, lambda one: _tell(console, one))
        whole = report(asked.base_ref, found)
        output.write(whole, asked.json, asked.junit, asked.markdown)
    except (InputError, ChildProcessError, RuntimeError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    said = one_line(f"{whole.outcome}: {asked.base_ref} against this checkout")
    console.print(said, style="bold", markup=False, highlight=False)
    return whole.exit_code


def _tell(console: Console, one: Finding) -> None:
    """A line as soon as it is known: a comparison takes minutes."""
    numbers = "" if math.isnan(one.base) else f"{one.base:.6g} → {one.candidate:.6g}  "
    console.print(f"{one.outcome:>12}  ", style=output.STYLES.get(one.outcome), end="")
    said = f"{one.what:<7}{numbers}{one_line(one.note)}  ({one_line(one.cell)})"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
