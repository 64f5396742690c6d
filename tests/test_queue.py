"""The queue under every engine, with workers that are plain objects: they lose, hang, die idle or find no room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.bench.fake_cells import cell
from harness.errors import InputError
from harness.executors import queue
from harness.executors.base import Due, Part, PartsClaim, Progress, Record, Task
from harness.executors.queue import Engine, Handle, Lost, Queue


class Toy(Engine):
    """`acts`: what a worker does with the cell of a seed, turn by turn: ok, lost, hang. It says one word first.

    `slots`: how many workers of a machine may be there at once; machines take turns. A worker for which there is no
    room is never ready.
    """

    def __init__(self, workers=1, acts=None, slots=None, places=None):
        self.workers, self.acts, self.slots = workers, acts or {}, slots
        self.places = places or ["here"]
        self.handles: list[Worker] = []
        self.loads: list[tuple[int, object]] = []  # worker and model, each time that it loads another
        self.clock = 0.0

    def count(self, device, cells):
        return min(self.workers, cells)

    def handle(self, device):
        self.handles.append(Worker(self, len(self.handles)))
        return self.handles[-1]

    def place(self):
        """Whoever waits for room gets what there is, first come, first served."""
        for one in self.handles:
            up = sum(other.ready or other.words == [None] for other in self.handles)
            if one.there and not one.ready and not one.words and (self.slots is None or up < self.slots):
                one.words = [None]

    def wait(self, handles: Sequence[Handle], seconds):
        assert handles, "nothing to wait for"
        speaking = [handle for handle in handles if handle.words]
        if not speaking:
            assert seconds is not None, "waits for ever"
            self.clock += seconds
        return speaking


class Worker(Handle):
    def __init__(self, engine: Toy, number: int):
        self.engine, self.number, self.words, self.there, self.loaded = engine, number, [], False, None
        self.starts = 0

    def start(self, threads):
        self.there, self.ready, self.loaded, self.words = True, False, None, []
        self.starts += 1
        self.engine.place()

    def alive(self):
        return self.there

    def send(self, task: Task):
        self.task = task
        if task.cell.model_key != self.loaded:
            self.loaded = task.cell.model_key
            self.engine.loads.append((self.number, task.cell.model["work_s"]))
        acts = self.engine.acts.get(task.cell.seed, [])
        act = acts.pop(0) if acts else "ok"
        word, record = Progress(task.cell.cell_id, "loading", 0), Record({**task.cell.columns(), "status": "ok"})
        self.words = {"ok": [word, record], "lost": [word, Lost("a bolt")], "dead": [Lost("a bolt")], "hang": [word]}[
            act
        ]

    def receive(self):
        said = self.words.pop(0)
        if isinstance(said, Lost):
            raise said
        if said is None:
            self.ready, self.machine = True, self.engine.places[self.number % len(self.engine.places)]
        return said

    def stop(self):
        self.there = self.ready = False
        self.machine, self.words = "", []
        self.engine.place()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The queue's clock is the engine's: it stands still until there is nothing to do but wait."""
    now = [0.0]
    monkeypatch.setattr(queue, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 1e9))
    waited = Toy.wait

    def wait(self, handles, seconds):
        speaking = waited(self, handles, seconds)
        now[0] += 0.0 if speaking else seconds
        return speaking

    monkeypatch.setattr(Toy, "wait", wait)


def run(engine: Toy, cells, claim=lambda cell: True, **options) -> dict[int, dict]:
    records = [one for one in Queue(engine, **options).run(cells, claim) if isinstance(one, Record)]
    assert len(records) == len({one.cell["seed"] for one in records}), "a cell was recorded twice"
    assert not any(one.there for one in engine.handles), "a worker was left"
    return {one.cell["seed"]: one.cell for one in records}


def cells(count, **changes):
    return [replace(cell(seed), **changes) for seed in range(count)]


def test_all_cells_run_and_no_worker_is_left():
    rows = run(engine := Toy(3), cells(10))
    assert set(rows) == set(range(10)) and {row["attempts"] for row in rows.values()} == {1}
    assert [one.starts for one in engine.handles] == [1, 1, 1]


def test_a_lost_cell_is_tried_again_by_whoever_is_free():
    rows = run(Toy(2, {1: ["lost"], 2: ["lost", "lost"]}), cells(5))
    assert {seed: (row["status"], row["attempts"]) for seed, row in rows.items() if seed in (1, 2)} == {
        1: ("ok", 2), 2: ("failed", 2),
    }  # fmt: skip
    assert rows[2]["error"] == "the worker process died, 2 times: a bolt"


def test_a_worker_that_died_between_two_cells_costs_no_attempt():
    rows = run(Toy(1, {1: ["dead", "ok"]}), cells(3), retries=0)
    assert {row["status"] for row in rows.values()} == {"ok"} and rows[1]["attempts"] == 1


def test_a_cell_that_hangs_fails_after_its_time_and_the_others_run():
    rows = run(engine := Toy(2, {0: ["hang"]}), cells(6), cell_timeout=7)
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "failed", **dict.fromkeys(range(1, 6), "ok")}
    assert "cell_timeout=7 s" in rows[0]["error"] and engine.clock == 7


def test_where_there_is_room_for_fewer_workers_than_were_asked_for_those_do_all():
    """The lost cell, too: given to the worker that waits for room, it would wait for ever."""
    rows = run(engine := Toy(4, {3: ["lost"]}, slots=1), cells(8))
    assert {row["status"] for row in rows.values()} == {"ok"} and rows[3]["attempts"] == 2
    assert [number for number, _ in engine.loads] == [0, 1]


def test_workers_that_cannot_start_end_the_sweep_with_one_line():
    class Nowhere(Worker):
        def start(self, threads):
            super().start(threads)
            self.words = [Lost("no module named harness")]

    engine = Toy()
    engine.handle = lambda device: engine.handles.append(Nowhere(engine, 0)) or engine.handles[-1]
    with pytest.raises(InputError, match="no worker could be started, 3 times: no module named harness"):
        run(engine, cells(2))


def test_a_cell_that_is_refused_starts_no_worker():
    assert run(engine := Toy(2), cells(4), claim=lambda cell: False) == {}
    assert [one.starts for one in engine.handles] == [0, 0]


def test_each_cell_is_claimed_once_though_its_worker_is_lost():
    asked = []
    run(Toy(2, {0: ["lost"]}, slots=1), cells(5), claim=lambda cell: asked.append(cell.seed) or True)
    assert sorted(asked) == list(range(5))


def test_a_worker_stays_with_the_model_that_it_has_loaded():
    mixed = [cell(seed, work_s=1.0 + seed % 3) for seed in range(30)]
    run(engine := Toy(3), mixed)
    assert len(engine.loads) == 3 and {model for _, model in engine.loads} == {1.0, 2.0, 3.0}


def test_a_record_says_how_many_workers_share_the_machine():
    rows = run(Toy(4, places=["a", "b"]), cells(12))
    assert rows[11]["workers"] == 2


def test_cells_of_one_worker_are_timed_in_turn_and_of_several_are_not():
    given: list[tuple[int, int]] = []

    class Noted(Worker):
        def send(self, task):
            given.append((task.cell.seed, len(task.beside)))
            super().send(task)

    for workers, beside in ((1, 3), (2, 0)):
        given.clear()
        engine = Toy(workers)
        engine.handle = lambda device, engine=engine: engine.handles.append(Noted(engine, 0)) or engine.handles[-1]
        run(engine, cells(4, timing="quick"))
        assert given[0] == (0, beside)


class Staggered(Toy):
    """Its workers speak one after the other, 20 ms apart."""

    def wait(self, handles, seconds):
        speaking = super().wait(handles, seconds)
        self.turn = getattr(self, "turn", 0) + 1
        self.clock += 0.02
        return [speaking[self.turn % len(speaking)]] if speaking else []

    def now(self):
        return self.clock


@pytest.mark.parametrize("workers", [queue.MANY + 1, queue.MANY - 10])
def test_records_of_many_workers_wait_for_others_and_of_few_do_not(workers):
    engine, sizes, group = Staggered(workers), [], []
    for said in Queue(engine).run(cells(300)):
        if isinstance(said, Record):
            group.append(engine.clock)
        if group and (isinstance(said, Due) or (isinstance(said, Record) and not said.more)):
            assert engine.clock - group[0] <= queue.WITHIN_S + 0.05
            sizes.append(len(group))
            group = []
    assert not group and sum(sizes) == 300, "every record is followed by word that it is to be written"
    assert max(sizes) > 10 if workers >= queue.MANY else max(sizes) == 1
    assert sizes[-1] == 1, "at the end there are few"


# ------------------------------------------------------------------------------------------------------- cells in parts


class Maker(Worker):
    """Makes parts of 8 images and joins them; the record says which parts it was made of."""

    def send(self, task):
        super().send(task)
        self.engine.given.append(task.images if not task.parts else "join")
        said = self.words[-1]
        if isinstance(said, Record) and task.images is not None and "status" in said.cell:
            word = Progress(task.cell.cell_id, "images", len(task.images))
            self.words = [word, Part(task.cell.cell_id, task.images.start, "x", b"")]
        if task.parts:
            said.cell["error"] = str([part.start for part in task.parts])


class Makers(Toy):
    def __init__(self, workers, acts=None):
        super().__init__(workers, acts)
        self.given = []

    def handle(self, device):
        self.handles.append(Maker(self, len(self.handles)))
        return self.handles[-1]


def in_parts(engine: Makers, count: int = 1, **options):
    cells = [replace(cell(seed), n_images=32, batch_size=4) for seed in range(count)]
    messages = list(Queue(engine, shard_images=8, **options).run(cells))
    return [one.cell for one in messages if isinstance(one, Record)], messages


def test_parts_run_anywhere_and_are_joined_once():
    (row,), messages = in_parts(engine := Makers(3))
    assert engine.given == [range(0, 8), range(8, 16), range(16, 24), range(24, 32), "join"]
    assert sorted(eval(row["error"])) == [0, 8, 16, 24] and row["status"] == "ok" and row["attempts"] == 1
    assert max(one.images for one in messages if isinstance(one, Progress)) == 32


def test_a_lost_part_alone_is_run_again():
    (row,), _ = in_parts(engine := Makers(2, {0: ["ok", "lost"]}))
    assert row["status"] == "ok" and row["attempts"] == 2
    assert sorted(map(str, engine.given)) == sorted(
        ["join", *(str(range(k, k + 8)) for k in (0, 8, 16, 24)), str(range(8, 16))]
    )


def test_a_part_that_is_lost_too_often_fails_its_cell_once_and_the_next_runs():
    rows, _ = in_parts(engine := Makers(2, {0: ["ok", "lost", "lost", "lost", "lost"]}), count=2)
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "failed"), (1, "ok")]
    assert engine.given.count("join") == 1


def test_a_part_that_takes_too_long_fails_its_cell():
    rows, _ = in_parts(Makers(1, {0: ["hang"]}), count=2, cell_timeout=3)
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "failed"), (1, "ok")]


class Shared(PartsClaim):
    """What two queues see of one another: parts that are taken, parts that are there, cells that are claimed."""

    def __init__(self):
        self.taken, self.parts, self.claimed = set(), {}, set()

    def __call__(self, cell):
        ours = cell.cell_id not in self.claimed
        self.claimed.add(cell.cell_id)
        return ours

    def part(self, cell, images):
        key = cell.cell_id, images.start
        ours = key not in self.taken and cell.cell_id not in self.claimed
        self.taken.add(key)
        return ours

    def made(self, part):
        self.parts[part.cell_id, part.start] = part

    def is_whole(self, cell):
        return all((cell.cell_id, start) in self.parts for start in range(0, 32, 8))

    def all_parts(self, cell):
        return tuple(self.parts[cell.cell_id, start] for start in range(0, 32, 8))


def side_by_side(engines: list[Makers], shared: Shared, count: int) -> list[dict]:
    """The records of queues that work on the same cells, a word of each in turn."""
    cells = [replace(cell(seed), n_images=32, batch_size=4) for seed in range(count)]
    running = [Queue(engine, shard_images=8, retries=0).run(cells, shared) for engine in engines]
    records = []
    while running:
        for one in list(running):
            message = next(one, None)
            if message is None:
                running.remove(one)
            elif isinstance(message, Record):
                records.append(message.cell)
    return records


def test_two_queues_make_the_parts_of_the_same_cells_and_one_joins_each():
    rows = side_by_side(engines := [Makers(1), Makers(2)], Shared(), 3)
    assert sorted(row["seed"] for row in rows) == [0, 1, 2] and {row["status"] for row in rows} == {"ok"}
    made = [[one for one in engine.given if one != "join"] for engine in engines]
    assert all(made) and len(made[0]) + len(made[1]) == 3 * 4, "each part once, and each queue has its share"
    assert sum(engine.given.count("join") for engine in engines) == 3
    assert all(sorted(eval(row["error"])) == [0, 8, 16, 24] for row in rows)


def test_a_part_that_fails_in_one_queue_fails_the_cell_once_and_neither_goes_on_with_it():
    rows = side_by_side(engines := [Makers(1, {0: ["lost"]}), Makers(1)], Shared(), 2)
    assert sorted((row["seed"], row["status"]) for row in rows) == [(0, "failed"), (1, "ok")]
    assert sum(engine.given.count("join") for engine in engines) == 1


def test_parts_that_are_all_there_are_joined_by_whoever_comes():
    """Whoever made them died before it joined them."""
    shared, one = Shared(), replace(cell(0), n_images=32, batch_size=4)
    for start in range(0, 32, 8):
        shared.made(Part(one.cell_id, start, "x", b""))
        shared.taken.add((one.cell_id, start))
    (row,) = side_by_side([engine := Makers(2)], shared, 1)
    assert row["status"] == "ok" and engine.given == ["join"]
