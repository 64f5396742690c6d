"""What runs where: `python -m harness.status [RESULTS]`, from any machine that sees the results folder. No torch.

Says of each sweep that is not done what is recorded, running and missing, how long it will take and the command that
goes on with it; of each running cell where, since when and when it was last heard of; what failed, by its reason; and
where jobs of a cluster stand and log. Changes nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError, one_line
from harness.executors.slurm import job as slurm
from harness.executors.slurm import queue
from harness.store import places, sweeps
from harness.store.leases import Running, running
from harness.store.records import Store
from harness.store.sweeps import Sweep
from harness.sweep.display import in_words

LONGEST_REASON = 160  # letters of a reason that are shown


@dataclass(frozen=True)
class Look:
    """What was found at one moment. `now`: seconds since 1970."""

    store: Store
    versions: Mapping[str, tuple[str, Any]]
    running: Sequence[Running]
    sweeps: Sequence[Sweep]
    now: float

    @classmethod
    def at(cls, results: Path) -> Look:
        store = Store(results)
        return cls(store, store.versions(), running(store.place), sweeps.kept(store.place), time.time())

    def failed(self) -> list[dict[str, Any]]:
        """The rows of the cells that failed."""
        return self.store.rows([cell_id for cell_id, (status, _) in self.versions.items() if status == "failed"])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.status", description="What runs where, and how far it is.")
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder of records")
    asked = parser.parse_args(words)
    try:
        if not places.at(asked.results).there():
            raise InputError(f"{asked.results} holds no records: give the results_dir of a sweep")
        for line in lines(Look.at(asked.results)):
            print(line)
        for line in jobs(asked.results):
            print(line)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def lines(look: Look) -> Iterator[str]:
    """Everything but the queue of a cluster."""
    failed = look.failed()
    open_ = [sweep for sweep in look.sweeps if _left(sweep, look)]
    done = len(look.sweeps) - len(open_)
    yield (
        f"{look.store.place}: {len(look.versions)} cells recorded, {len(failed)} of them failed; "
        f"{len(look.running)} running; {len(open_)} sweeps not done, {done} done"
    )
    for sweep in open_:
        yield from _sweep(sweep, look)
    if look.running:
        yield ""
        yield "running:"
        labels = {cell_id: label for sweep in look.sweeps for cell_id, label in sweep.cells.items()}
        yield from (f"  {_running(one, labels, look.now)}" for one in look.running)
    if failed:
        yield ""
        yield "failed, by reason:"
        yield from (f"  {line}" for line in _reasons(failed))


def jobs(results: Path) -> Iterator[str]:
    """Jobs of a cluster that wait or run, as far as the queue can be asked from here."""
    known = slurm.jobs(results)
    if not known:
        return
    yield ""
    try:
        there = queue.tasks()
    except queue.Unreachable as error:
        yield f"{len(known)} jobs were submitted from here; the queue cannot be asked ({error})"
        return
    for job in known:
        pilots = [task for task in there if task.name == job.name]
        if pilots:
            yield f"job {pilots[0].job}: {queue.said(pilots)}; logs in {job.folder}"
            yield from (f"  pilot {one.index} on {one.node}" for one in pilots if one.node)
            if job.parts is not None:
                made, being = len(job.parts.names("")), len(running(job.parts))
                yield f"  of cells in parts {made} parts are there, {being} are being made"
    if not any(task.name == job.name for task in there for job in known):
        yield f"none of the {len(known)} jobs submitted from here is in the queue; last logs in {known[-1].folder}"


def _left(sweep: Sweep, look: Look) -> list[str]:
    """Cells that are not recorded as good."""
    return [cell_id for cell_id in sweep.cells if look.versions.get(cell_id, ("", None))[0] != "ok"]


def _sweep(sweep: Sweep, look: Look) -> Iterator[str]:
    left = _left(sweep, look)
    failed = sum(1 for cell_id in left if cell_id in look.versions)
    alive = [one for one in look.running if one.cell_id in sweep.cells and not one.lost]
    waiting = len(left) - failed - len(alive)
    yield ""
    yield (
        f"sweep {sweep.sweep_id}: {len(sweep.cells)} cells, {len(sweep.cells) - len(left)} good, {failed} failed, "
        f"{len(alive)} running, {max(0, waiting)} not begun; {_time_left(sweep, look, len(left) - failed, bool(alive))}"
    )
    by = f"{sweep.owner}, which has ended" if sweep.owner.gone else str(sweep.owner)
    yield f"  started {_ago(look.now - sweep.owner.started)} by {by}, executor={sweep.executor}"
    yield f"  to go on: {sweep.command}"


def _time_left(sweep: Sweep, look: Look, left: int, alive: bool) -> str:
    """By the pace since the sweep began; cells of one sweep are taken to be alike."""
    ended = [when.timestamp() for c in sweep.cells if c in look.versions and (when := look.versions[c][1]) is not None]
    since = [when for when in ended if when >= sweep.owner.started]
    if not left:
        return "nothing left but what failed"
    if not alive:
        return "nothing of it is running"
    if not since:
        return "no cell is done yet, so the time left is not known"
    return f"about {in_words(left * max(max(since) - sweep.owner.started, 0.0) / len(since))} left"


def _running(one: Running, labels: Mapping[str, str], now: float) -> str:
    where = f"{one.owner}, {_since(now - one.owner.started)}" if one.owner else "by an owner that cannot be read"
    heard = f"heard of {_ago(one.age)}"
    lost = ": lost, the next sweep on this folder takes it over" if one.lost else ""
    return f"{one.cell_id} {labels.get(one.cell_id, '')}: {where}, {heard}{lost}"


def _reasons(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many failed why, the most frequent first; texts that differ in numbers alone are one reason."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(re.sub(r"\d+", "#", str(row.get("error") or "no reason recorded")), []).append(row)
    for cells in sorted(found.values(), key=len, reverse=True):
        reason = one_line(cells[0].get("error") or "no reason recorded")[:LONGEST_REASON]
        yield f"{len(cells)} × {reason} (as in {cells[0]['cell_id']})"


def _since(seconds: float) -> str:
    return f"for {in_words(max(0.0, seconds))}"


def _ago(seconds: float) -> str:
    return f"{in_words(max(0.0, seconds))} ago"
