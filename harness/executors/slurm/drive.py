"""A sweep whose cells run on a cluster: submit, watch the queue and the records, submit again what was lost.

The pilots write the records themselves and share the work by leases, as sweeps on one folder do; this process only
looks. It may die: the pilots go on, and the same command finds them again by the names of their jobs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cell import Cell
from harness.errors import one_line
from harness.executors.base import Message, Notice, Progress, Record, Work
from harness.executors.parts import part_id
from harness.executors.queue import cuts
from harness.executors.share import sigterm_raises
from harness.executors.slurm import job as jobs
from harness.executors.slurm import queue
from harness.executors.slurm.job import Job
from harness.executors.slurm.options import Options
from harness.store.leases import running
from harness.store.places import Folder


class Drive:
    """The cells of one command on their way through the queue."""

    def __init__(self, work: Work, options: Options) -> None:
        self.work, self.store, self.options = work, work.store, options
        self.results = Path(str(work.store.place))
        self.pending = {cell.cell_id: cell for cell in work.cells}
        self.before = {cell_id: work.before[cell_id] for cell_id in self.pending if cell_id in work.before}
        self.watched: list[Job] = []
        self.mine: list[Job] = []  # those that end with this command
        self.told: set[str] = set()  # cells that were said to run
        self.news = 0  # records since the last submission
        self.parts: set[str] = set()  # of cells, that were there at the last submission
        self.cell_of = {  # by the lease of a part
            part_id(cell.cell_id, images.start): cell.cell_id
            for cell in work.cells
            if len(images_of := cuts(cell, work.shard_images)) > 1
            for images in images_of
        }
        self.queue = ""  # what was last said of it

    def run(self) -> Iterator[Message]:
        """Records as they are written, and words on the way. Whatever ends it early ends its jobs as well."""
        with sigterm_raises():
            try:
                yield from self._begin()
                if self.options.wait:
                    yield from self._watch()
                    self._cancel()  # pilots that still wait for a node would find nothing to do
            except BaseException:
                self._cancel()
                raise

    def _begin(self) -> Iterator[Message]:
        """Find what an earlier command submitted; submit the rest."""
        new = dict(self.pending)
        for job, tasks in [] if self.work.anew else self._living():
            theirs = [
                cell_id for cell_id, was in job.asked.items() if new.get(cell_id) and was == self.before.get(cell_id)
            ]
            if theirs:
                self.watched.append(job)
                for cell_id in theirs:
                    del new[cell_id]
                yield Notice(
                    f"job {tasks[0].job}, submitted before, has {len(theirs)} of these cells: {queue.said(tasks)}; "
                    f"logs in {job.folder}; to end it: scancel {tasks[0].job}"
                )
        if new:
            yield self._submit(list(new.values()))

    def _living(self) -> list[tuple[Job, list[queue.Task]]]:
        """Jobs of this results folder that wait or run, each with its pilots."""
        tasks = queue.tasks()
        found = ((job, [task for task in tasks if task.name == job.name]) for job in jobs.jobs(self.results))
        return [(job, pilots) for job, pilots in found if pilots]

    def _submit(self, cells: Sequence[Cell]) -> Notice:
        job = jobs.written(self.work, cells, self.options, self.mine[-1] if self.mine else None)
        self.mine.append(job)  # before it is there: whoever interrupts this moment finds it by its name
        self.watched.append(job)
        number = jobs.submitted(job, self.options)
        self.news, self.parts = 0, self._parts_made()
        then = "" if self.options.wait else "; the same command says how far it is, and goes on"
        pilots = job.orders()["tasks"]
        return Notice(f"submitted job {number}: {pilots} pilots for {len(cells)} cells; logs in {job.folder}{then}")

    def _watch(self) -> Iterator[Message]:
        while self.pending:
            there = self._in_queue()  # before the records: what a pilot that has left has written is seen
            if there is not None and (words := queue.said(there)) != self.queue:
                self.queue = words
                yield Notice(f"queue: {words or 'empty'}")
            yield from self._recorded()
            yield from self._begun()
            if there == [] and self.pending:
                if self.mine and not self.news and not self._parts_made() - self.parts:
                    yield self._given_up()
                    return
                yield self._submit(list(self.pending.values()))
            elif self.pending:
                time.sleep(self.options.poll)

    def _in_queue(self) -> list[queue.Task] | None:
        """The pilots that wait or run; None where Slurm does not answer, which ends nothing."""
        names = {job.name for job in self.watched}
        try:
            return [task for task in queue.tasks() if task.name in names]
        except queue.Unreachable:
            return None

    def _recorded(self) -> Iterator[Record]:
        now = self.store.versions(list(self.pending))
        new = [cell_id for cell_id, version in now.items() if version != self.before.get(cell_id)]
        for row in self.store.rows(new) if new else []:
            self.news += 1
            yield Record(row)
            del self.pending[row["cell_id"]]

    def _begun(self) -> Iterator[Progress]:
        found = [(one.cell_id, one) for one in running(self.store.place)]
        for place in self._parts_places():
            found += [(self.cell_of.get(one.cell_id, ""), one) for one in running(place)]
        for cell_id, one in found:
            if cell_id in self.pending and cell_id not in self.told and not one.lost:
                self.told.add(cell_id)
                yield Progress(cell_id, f"running, {one.owner}" if one.owner else "running", 0)

    def _parts_places(self) -> list[Folder]:
        """Where pilots keep parts of cells."""
        found = [job.parts for job in self.watched] if self.cell_of else []
        return list({str(place): place for place in found if place is not None}.values())

    def _parts_made(self) -> set[str]:
        return {name for place in self._parts_places() for name in place.names("")}

    def _given_up(self) -> Notice:
        said = self.watched[-1].last_words()
        return Notice(
            f"{len(self.pending)} cells are not recorded, and the last job ended without recording any"
            + (f"; it said {said}" if said else f"; it left no word in {self.watched[-1].folder}")
            + "; the same command submits them again"
        )

    def _cancel(self) -> None:
        try:
            queue.cancel(job.name for job in self.mine)
        except queue.Unreachable as error:
            names = " ".join(f"--name={job.name}" for job in self.mine)
            print(one_line(f"warning: the jobs may go on ({error}); to end them: scancel {names}"), file=sys.stderr)
