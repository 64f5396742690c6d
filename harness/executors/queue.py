"""The cells of a sweep and the workers that run them, whatever engine has the workers. Knows no processes, no cluster.

What is decided here, once for all engines: which worker gets which cell (one that has its model loaded), how long it
may take, how often a cell is tried again whose worker was lost, and which cells are timed in turn. An engine brings up
workers, carries messages and says who is gone.
"""

from __future__ import annotations

import heapq
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from harness.cell import Cell
from harness.errors import InputError
from harness.executors.base import TIMED, Claim, Due, Part, PartsClaim, Progress, Record, Task, failed
from harness.store.shared_machine import cost_per_1000, of_shared_machine

START_S = 600.0  # a worker that says nothing for so long hangs; importing torch takes 5 to 60 s and is no cell's time
START_TRIES = 3  # how often in a row a worker may be lost before it is there
# Cells offered to be timed in turn; how many there is time for, the worker finds (harness/measure/rounds.py).
TOGETHER = 24
# While so many workers are busy, records wait for others so long, to be written with them. A group costs about as much
# as a record (hundreds of columns), and what a kill may cost besides is little beside what so many workers are at.
MANY, WITHIN_S = 50, 1.0


class Lost(Exception):
    """A worker is gone, and what it was sent with it. The text says how it ended."""


class Handle(ABC):
    """This end of one worker. It may be started again after it was lost or stopped."""

    ready = False  # whether a cell may be sent; a cluster first has to find room
    machine = ""  # where it is: workers of one machine share it

    @abstractmethod
    def start(self, threads: int) -> None:
        """Bring the worker up, with so many CPU threads. Once it is `ready`, `receive` has None to say."""

    @abstractmethod
    def alive(self) -> bool:
        """Whether it was started and is not known to be gone."""

    @abstractmethod
    def send(self, task: Task) -> None:
        """Give it work. If it is gone, `receive` says so."""

    @abstractmethod
    def receive(self) -> Progress | Part | Record | None:
        """Its next message, once `Engine.wait` has named it. Raises Lost."""

    @abstractmethod
    def stop(self) -> None:
        """End the worker, whatever it is doing."""


class Engine(ABC):
    """Whoever has the workers."""

    @abstractmethod
    def count(self, device: str, cells: int) -> int:
        """How many workers so many cells of one device are to have, at least 1."""

    @abstractmethod
    def handle(self, device: str) -> Handle:
        """Another worker for that device, not started."""

    @abstractmethod
    def wait(self, handles: Sequence[Handle], seconds: float | None) -> Sequence[Handle]:
        """Wait for a word of any of these, for so long at most (None: any time); those that have something to say."""

    def now(self) -> float:
        """The clock of deadlines, in seconds."""
        return time.monotonic()

    def apart(self, device: str) -> bool:
        """Whether a worker has its device for itself, so that cells may be timed in turn there."""
        return True


@dataclass(slots=True)
class Todo:
    """A cell, or a part of one, on its way: how often it was given out, and when for the first time."""

    cell: Cell
    images: range | None = None  # of a part
    parts: tuple[Part, ...] = ()  # to be joined
    attempts: int = 0
    before: int = 0  # the most attempts that a part took
    started: float = 0.0


@dataclass
class _Split:
    """A cell whose parts are under way."""

    count: int
    parts: list[Part] = field(default_factory=list)
    made: dict[int, int] = field(default_factory=dict)  # images so far, by the first of each part
    attempts: int = 0


@dataclass(eq=False)
class _Worker:
    """What a handle's worker is doing, since when, and until when it may."""

    handle: Handle
    pool: _Pool
    todo: Todo | None = None
    beside: tuple[Cell, ...] = ()  # what it times in turn with its cell, until it says that this is done
    model: tuple[str, ...] | None = None  # of the last cell: it is loaded
    fresh: bool = True  # nothing was heard since it was started
    heard: bool = False  # a word of this attempt
    deadline: float = float("inf")  # on the engine's clock
    lost: int = 0  # in a row, before it was ready

    @property
    def coming(self) -> bool:
        """Whether it was started and is not ready yet."""
        return self.handle.alive() and not self.handle.ready

    def freed(self) -> Todo:
        """The cell that it had."""
        assert self.todo is not None
        todo, self.todo, self.deadline = self.todo, None, float("inf")
        del self.pool.busy[self]
        self.pool.idle[self] = None
        return todo

    def ended(self) -> None:
        """It is gone, or is now."""
        self.handle.stop()
        self.model, self.fresh = None, True


@dataclass
class _Pool:
    """The cells of one device and its workers."""

    device: str
    todo: dict[tuple[str, ...], deque[Todo]]  # not claimed, by model: those of one model in the order given
    # Workers in the order in which they became so: no event costs more where there are more of them.
    idle: dict[_Worker, None] = field(default_factory=dict)
    busy: dict[_Worker, None] = field(default_factory=dict)
    held: deque[Todo] = field(default_factory=deque)  # claimed, and no worker has them

    @property
    def workers(self) -> list[_Worker]:
        return [*self.idle, *self.busy]

    def take(self, model: tuple[str, ...] | None) -> Todo | None:
        """The next cell for a worker that has `model` loaded: of that model, else of one that no other works on."""
        if not self.todo:
            return None
        if model not in self.todo:
            others = {worker.model for worker in self.busy}
            others |= {todo.cell.model_key for todo in self.held}
            model = next((key for key in self.todo if key not in others), next(iter(self.todo)))
        queue = self.todo[model]
        todo = queue.popleft()
        if not queue:
            del self.todo[model]
        return todo


class Queue:
    """An `Executor` over any engine.

    `cell_timeout`: seconds that a cell may take, loading its model included; None: any. `retries`: how often a cell is
    tried again whose worker was lost (killed, crashed, its machine gone). A cell that ends with an error, or too late,
    is not.

    `shard_images`: a cell of more images is cut into parts of about so many, which several workers make and one joins.
    A part that is lost is tried again, and no other; where one fails the cell fails. With a `PartsClaim` other
    processes make parts of the same cells, and whoever finds all of them there joins them.

    `price_per_hour`: of a machine, which its workers share. Records then say what 1,000 images cost.

    A worker that has its device for itself times cells of one model in turn: it gets a cell with those after it and
    keeps their timings until they come. What is timed and then run by another sweep is timed in vain; a worker that is
    lost while it times several is no cell's fault: they are timed one by one.
    """

    def __init__(
        self,
        engine: Engine,
        cell_timeout: float | None = None,
        retries: int = 1,
        shard_images: int | None = None,
        price_per_hour: float | None = None,
    ) -> None:
        self.engine, self.cell_timeout, self.retries = engine, cell_timeout, retries
        self.shard_images, self.price_per_hour = shard_images, price_per_hour
        self.splits: dict[str, _Split] = {}  # by cell
        self.apart: set[str] = set()  # cells in whose company a worker was lost
        self.shared: PartsClaim | None = None
        self.joined: set[str] = set()  # cells that we joined of parts which others made as well
        self.deadlines: list[tuple[float, int, _Worker]] = []  # a heap; those that no longer hold are passed over
        self.turns = count()
        self.due: float | None = None  # until when records wait for others
        self.sharing: Counter[str] | None = None  # workers by machine; None: somebody came or went since it was counted

    def run(self, cells: Sequence[Cell], claim: Claim = lambda cell: True) -> Iterator[Progress | Record | Due]:
        self.shared = claim if isinstance(claim, PartsClaim) else None
        self.due = self.sharing = None
        pools = self._pools(cells)
        worker_of = {id(worker.handle): worker for pool in pools for worker in pool.workers}
        workers = list(worker_of.values())
        try:
            for pool in pools:
                self._give_out(pool, claim)
            while any(pool.busy or pool.held for pool in pools):
                there = [worker.handle for pool in pools for worker in pool.busy]
                there += [worker.handle for pool in pools for worker in pool.idle if worker.coming]
                until = [moment for moment in (self._next_deadline(), self.due) if moment is not None]
                left = max(0.0, min(until) - self.engine.now()) if until else None
                said: list[tuple[_Worker, Progress | Record]] = []
                for handle in self.engine.wait(there, left):
                    worker = worker_of[id(handle)]
                    if (message := self._heard(worker, worker.pool)) is not None:
                        said.append((worker, message))
                while (deadline := self._next_deadline()) is not None and self.engine.now() >= deadline:
                    _, _, worker = heapq.heappop(self.deadlines)
                    if (late := self._late(worker, worker.pool)) is not None:
                        said.append((worker, late))
                # Few workers' records are written before more is begun: a kill may cost what runs, nothing finished.
                yield from self._together(self._counted(said, workers), sum(len(pool.busy) for pool in pools))
                for pool in pools:
                    self._give_out(pool, claim)
        finally:
            for worker in workers:
                worker.handle.stop()

    def _counted(
        self, said: list[tuple[_Worker, Progress | Record]], workers: Sequence[_Worker]
    ) -> list[Progress | Record]:
        """What was said; a record says how many workers share its worker's machine, and what follows from that."""
        for worker, message in said:
            if isinstance(message, Record):
                self.sharing = self.sharing or Counter(one.handle.machine for one in workers)
                self._count(message.cell, self.sharing[worker.handle.machine])
        return [message for _, message in said]

    def _count(self, row: dict[str, Any], workers: int) -> None:
        row["workers"] = workers
        row.update(of_shared_machine(row, workers))
        if self.price_per_hour is not None:
            row["price_per_hour"] = self.price_per_hour
            row["cost_per_1000"] = cost_per_1000(self.price_per_hour, row.get("images_per_s"), workers)

    def _together(self, said: list[Progress | Record], busy: int) -> Iterator[Progress | Record | Due]:
        """What was said, records last: whoever writes them need not do it one by one."""
        yield from (one for one in said if not isinstance(one, Record))
        records = [one for one in said if isinstance(one, Record)]
        if records and self.due is None and busy >= MANY:
            self.due = self.engine.now() + WITHIN_S
        waits = self.due is not None and busy >= MANY and self.engine.now() < self.due
        for record in records:
            record.more = waits or record is not records[-1]
            yield record
        if self.due is not None and not waits:
            self.due = None
            if not records:
                yield Due()

    def _next_deadline(self) -> float | None:
        """When the first of the busy workers is late, on the engine's clock; None: none ever is."""
        while self.deadlines and self.deadlines[0][2].deadline != self.deadlines[0][0]:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else None

    def _pools(self, cells: Sequence[Cell]) -> list[_Pool]:
        queues: dict[str, dict[tuple[str, ...], deque[Todo]]] = {}
        for cell in cells:
            device = "cuda:0" if cell.device == "cuda" else cell.device
            parts = cuts(cell, self.shard_images) if self.shared else ()
            queue = queues.setdefault(device, {}).setdefault(cell.model_key, deque())
            queue += [Todo(cell, part) for part in parts] if len(parts) > 1 else [Todo(cell)]
        pools = []
        for device, todo in queues.items():
            pools.append(pool := _Pool(device, todo))
            for _ in range(self.engine.count(device, sum(map(len, todo.values())))):
                pool.idle[_Worker(self.engine.handle(device), pool)] = None
        return pools

    # ------------------------------------------------------------------------------------------------- giving out

    def _give_out(self, pool: _Pool, claim: Claim) -> None:
        """A cell to every idle worker that is ready; for each cell beyond, a worker is brought up."""
        if not pool.idle or not (pool.held or pool.todo):
            return
        for worker in sorted(pool.idle, key=lambda one: not one.handle.ready):
            if worker.handle.ready:
                if not pool.held and not self._claim(pool, worker.model, claim):
                    return
                self._give(worker, pool.held.popleft(), pool)
            elif not worker.handle.alive():
                coming = sum(one.coming for one in pool.idle)
                if len(pool.held) <= coming and not self._claim(pool, None, claim):
                    return
                worker.fresh = True
                worker.handle.start(pool.held[0].cell.cpu_threads)

    def _claim(self, pool: _Pool, model: tuple[str, ...] | None, claim: Claim) -> bool:
        """Hold the next cell that we may run, or all its parts; False where there is none."""
        while (todo := pool.take(model)) is not None:
            cell = todo.cell
            if todo.images is not None:
                if self._claim_part(todo, pool):
                    return True
            elif claim(cell):
                parts = cuts(cell, self.shard_images)
                if len(parts) > 1:
                    self.splits[cell.cell_id] = _Split(len(parts))
                pool.held += [Todo(cell, part) for part in parts] if len(parts) > 1 else [todo]
                return True
        return False

    def _claim_part(self, todo: Todo, pool: _Pool) -> bool:
        """Hold a part that others may make as well or, where all are there by now, the joining of its cell."""
        assert self.shared is not None and todo.images is not None
        if self.shared.part(todo.cell, todo.images):
            self.splits.setdefault(todo.cell.cell_id, _Split(0))
            pool.held.append(todo)
            return True
        return self._join(todo.cell, 0, pool)

    def _join(self, cell: Cell, attempts: int, pool: _Pool) -> bool:
        """Hold the joining of a cell whose parts are all there, unless another has it or we had it before."""
        assert self.shared is not None
        if cell.cell_id in self.joined or not self.shared.is_whole(cell) or not self.shared(cell):
            return False
        self.joined.add(cell.cell_id)
        self.splits.pop(cell.cell_id, None)
        pool.held.appendleft(Todo(cell, parts=self.shared.all_parts(cell), before=attempts))
        return True

    def _give(self, worker: _Worker, todo: Todo, pool: _Pool) -> None:
        if not worker.handle.alive():  # it is brought up by what it is sent, or died while it was idle
            worker.handle.start(todo.cell.cpu_threads)
            worker.fresh = True
        todo.started = todo.started or time.time()
        beside = self._beside(todo, pool) if todo.attempts == 0 else ()
        todo.attempts += 1
        worker.todo, worker.beside, worker.heard, worker.model = todo, beside, False, todo.cell.model_key
        del pool.idle[worker]
        pool.busy[worker] = None
        self._wind_up(worker, START_S if worker.fresh else 0.0)
        worker.handle.send(Task(todo.cell, beside, todo.images, todo.parts))

    def _beside(self, todo: Todo, pool: _Pool) -> tuple[Cell, ...]:
        """The next cells that may be timed in turn with this one."""
        cell, alone = todo.cell, len(pool.idle) + len(pool.busy) == 1 and self.engine.apart(pool.device)
        timed = cell.timing != "off" and not todo.parts and (todo.images is None or todo.images.start == 0)
        if not timed or not alone or cell.cell_id in self.apart:
            return ()
        queued = pool.todo.get(cell.model_key, ())
        next_ones = (todo.cell for todo in queued if todo.images is None or todo.images.start == 0)
        near = islice(
            (c for c in next_ones if (c.timing, c.timing_batch) == (cell.timing, cell.timing_batch)), TOGETHER
        )
        return tuple(c for c in near if c.cell_id not in self.apart)

    def _wind_up(self, worker: _Worker, start_s: float = 0.0) -> None:
        allowed = float("inf") if self.cell_timeout is None else self.cell_timeout * (1 + len(worker.beside))
        worker.deadline = self.engine.now() + start_s + allowed
        if worker.deadline != float("inf"):
            heapq.heappush(self.deadlines, (worker.deadline, next(self.turns), worker))

    # --------------------------------------------------------------------------------------------------- hearing

    def _heard(self, worker: _Worker, pool: _Pool) -> Progress | Record | None:
        try:
            message = worker.handle.receive()
        except Lost as lost:
            return self._lost(worker, pool, str(lost))
        if message is None:
            worker.lost, self.sharing = 0, None
            return None
        worker.fresh = False
        if isinstance(message, Part):
            return self._made(worker.freed(), message, pool)
        if isinstance(message, Record):
            return self._done(worker.freed(), message, pool)
        if message.what == TIMED:
            worker.beside = ()
            self._wind_up(worker)  # what timing the other cells took is not the cell's time
        elif not worker.heard:
            worker.heard = True
            self._wind_up(worker)  # starting the worker is not the cell's time
        return self._of_all(message, worker.todo)

    def _of_all(self, message: Progress, todo: Todo | None) -> Progress | None:
        """A part's word on its images counts those of the others."""
        if todo is None or todo.images is None:
            return message
        split = self.splits.get(todo.cell.cell_id)
        if split is None:
            return None
        split.made[todo.images.start] = message.images
        return replace(message, images=sum(split.made.values()))

    def _made(self, todo: Todo, part: Part, pool: _Pool) -> None:
        """Once all parts of a cell are there, they are to be joined."""
        split = self.splits.get(part.cell_id)
        if split is None:  # another of its parts has failed
            return
        split.attempts = max(split.attempts, todo.attempts)
        if self.shared is not None:
            self.shared.made(part)
            self._join(todo.cell, split.attempts, pool)
            return
        split.parts.append(part)
        if len(split.parts) == split.count:
            del self.splits[part.cell_id]
            pool.held.appendleft(Todo(todo.cell, parts=tuple(split.parts), before=split.attempts))

    def _late(self, worker: _Worker, pool: _Pool) -> Progress | Record | None:
        todo, self.sharing = worker.freed(), None
        worker.ended()
        if self._is_vain(todo):
            return None
        if worker.beside and worker.heard:
            return self._one_by_one(worker, todo, pool, "took too long")
        what = f"it was not done after cell_timeout={self.cell_timeout:g} s; give more, or a smaller cell"
        return self._done(todo, failed(todo.cell, what, todo.started), pool)

    def _lost(self, worker: _Worker, pool: _Pool, cause: str) -> Progress | Record | None:
        """What becomes of a lost worker's cell: another try, with whoever is free first, or a failed record."""
        fresh, self.sharing = worker.fresh, None
        worker.ended()
        if worker.todo is None:  # it was not ready yet
            worker.lost += 1
            if worker.lost >= START_TRIES:
                raise InputError(f"no worker could be started, {worker.lost} times: {cause}")
            return None
        todo = worker.freed()
        if self._is_vain(todo):
            return None
        if not fresh and not worker.heard:  # it died between two cells: this one had not begun
            todo.attempts -= 1
            pool.held.appendleft(todo)
            return Progress(todo.cell.cell_id, "starting another worker", 0)
        if worker.beside and worker.heard:
            return self._one_by_one(worker, todo, pool, f"died ({cause})")
        if todo.attempts <= self.retries:
            pool.held.appendleft(todo)
            return Progress(todo.cell.cell_id, f"the worker process died: {cause}; trying again", 0, notable=True)
        times = f", {todo.attempts} times" if todo.attempts > 1 else ""
        return self._done(todo, failed(todo.cell, f"the worker process died{times}: {cause}", todo.started), pool)

    def _one_by_one(self, worker: _Worker, todo: Todo, pool: _Pool, end: str) -> Progress:
        """The cell again without the others: whichever of them it was fails in its own turn."""
        self.apart |= {todo.cell.cell_id, *(other.cell_id for other in worker.beside)}
        todo.attempts -= 1
        pool.held.appendleft(todo)
        what = f"the worker process {end} while it timed several cells in turn; they are timed one by one"
        return Progress(todo.cell.cell_id, what, 0, notable=True)

    def _done(self, todo: Todo, record: Record, pool: _Pool) -> Record | None:
        """The record; None where another part of the cell has failed before, and that is what is recorded."""
        if todo.images is not None:
            if self._is_vain(todo) or (self.shared is not None and not self.shared(todo.cell)):
                return None
            del self.splits[todo.cell.cell_id]
            pool.held = deque(other for other in pool.held if other.cell is not todo.cell)
        record.cell["attempts"] = max(todo.attempts, todo.before)
        return record

    def _is_vain(self, todo: Todo) -> bool:
        """Whether it is a part of a cell of which another part has failed."""
        return todo.images is not None and todo.cell.cell_id not in self.splits


def cuts(cell: Cell, most: int | None) -> list[range]:
    """The parts of a cell of at most so many images, cut at multiples of its batch size.

    There alone every image is made and measured in the company that it has in the whole cell, and so the same to the
    last bit. A part has at least one batch.
    """
    size = cell.n_images if most is None else max(1, most // cell.batch_size) * cell.batch_size
    return [range(start, min(start + size, cell.n_images)) for start in range(0, cell.n_images, size)]
