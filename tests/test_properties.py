"""What must hold for every plan file and every history of a results folder, not for the examples that came to mind.

hypothesis makes the cases, the same ones on every run, and shows the smallest that fails.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_toy_place import InMemory

from harness.store.leases import STALE_S, Leases
from harness.store.places import Folder
from harness.store.records import Store
from harness.store.upkeep import compact
from samplers.core import plan_json
from samplers.core.levels import DiscreteVP, Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage

LEVELS = NoiseLevels.from_ratios(DiscreteVP.scaled_linear(), [10.0, 1.0, 0.1])


def cases(count: int) -> settings:
    return settings(derandomize=True, deadline=None, max_examples=count, database=None)


# ------------------------------------------------------------------------------------------------------- plan files

numbers = st.floats(allow_nan=False, allow_infinity=False)  # the smallest and the largest float64 among them
levels = st.builds(Level, numbers, numbers, numbers)


@st.composite
def plans(draw) -> Plan:
    """Any plan that may be: up to five calls, each of which reaches back as far as there are calls."""
    stages = []
    for i in range(draw(st.integers(1, 5))):
        past = st.lists(numbers, max_size=i + 1).map(tuple)
        churn = draw(st.sampled_from([(1.0, 0.0), None])) or (draw(numbers), draw(numbers))
        since = draw(st.none() | levels)
        noise = draw(st.just(0.0) | numbers)
        stages.append(Stage(draw(levels), draw(levels), draw(past), draw(past), noise, churn, since))
    return Plan(draw(levels), tuple(stages), Capabilities(draw(st.integers(1, 9)), len(stages), draw(st.booleans())))


def said_by(values: dict, of: Callable[[float], float] = float) -> np.ndarray:
    """The influence that `of` the numbers of a plan file state, one vector a state: columns as in `Plan.influence`."""
    stages = values["stages"]
    draws = sum((stage["churn"][1] != 0) + (stage["noise"] != 0) for stage in stages)
    basis = iter(np.eye(1 + len(stages) + draws))
    state, outputs = next(basis), [next(basis) for _ in stages]
    states = []
    for i, stage in enumerate(stages):
        (scale, amount), (noise,) = map(of, floats(stage["churn"])), map(of, floats([stage["noise"]]))
        states.append(scale * state + (amount * next(basis) if amount else 0))
        state = np.zeros_like(state)
        for j, a in enumerate(map(of, floats(stage["states"]))):
            state = state + (a * states[i - j] if a else 0)  # a zero beyond the first call reaches nothing
        for j, b in enumerate(map(of, floats(stage["x0"]))):
            state = state + (b * outputs[i - j] if b else 0)
        state = state + (noise * next(basis) if noise else 0)
    return np.array([*states, state])


def floats(values: list) -> list[float]:
    assert all(type(value) in (int, float) for value in values), f"{values} are no numbers"
    return [float(value) for value in values]


def refused_or_read_rightly(text: str | bytes) -> str:
    """Read it, and say which of the two it was; fails where it was read as something else than it says."""
    try:
        saved = plan_json.loads(text)
    except ValueError as error:
        assert "\n" not in str(error), "a message is one line"
        return "refused"
    values = json.loads(text)
    with np.errstate(all="ignore"):
        found, said, most = saved.plan.influence(), said_by(values), said_by(values, abs)
    # Sums may cancel, and beyond the largest double the order of the arithmetic decides between inf and nan.
    if np.isfinite(most).all():
        assert (abs(found - said) <= 1e-12 * most).all()
    assert [list(stage.level) for stage in saved.plan.stages] == [floats(stage["level"]) for stage in values["stages"]]
    for name in ("alpha", "sigma", "time"):
        assert getattr(saved, name).tolist() == floats(values["levels"][name])
    return "read"


@cases(60)
@given(plans())
def test_a_plan_comes_back_as_it_was_written(plan):
    text = plan_json.dumps(plan, LEVELS)
    saved = plan_json.loads(text)
    assert saved.plan == plan and saved.plan.capabilities == plan.capabilities
    assert all(np.array_equal(getattr(saved, name), getattr(LEVELS, name)) for name in ("alpha", "sigma", "time"))
    assert plan_json.dumps(saved.plan, LEVELS) == text, "the text is canonical, zeros with a sign included"
    assert refused_or_read_rightly(text) == "read"


PUT_IN = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), numbers, st.just(10**400), st.text(max_size=3), st.just([]),
    st.lists(st.integers(-2, 2) | numbers, max_size=3), st.dictionaries(st.text(max_size=3), numbers, max_size=2),
)  # fmt: skip


def places(value, path=()):
    """The paths of all values inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


@cases(150)
@given(plans(), st.data())
def test_a_changed_value_is_refused_or_meant(plan, data):
    values = json.loads(plan_json.dumps(plan, LEVELS))
    for _ in range(data.draw(st.integers(1, 2))):
        *path, key = data.draw(st.sampled_from(list(places(values))))
        inside = values
        for step in path:
            inside = inside[step]
        change = data.draw(st.sampled_from(["replace", "remove", "double", "quote"]))
        if change == "remove":
            del inside[key]
        elif change == "double" and isinstance(inside, list):
            inside.insert(key, inside[key])
        elif change == "quote":
            inside[key] = str(inside[key])
        else:
            inside[key] = data.draw(PUT_IN)
    refused_or_read_rightly(json.dumps(values))


@cases(100)
@given(plans(), st.data())
def test_a_damaged_text_is_refused_or_meant(plan, data):
    text = plan_json.dumps(plan, LEVELS).encode()
    start = data.draw(st.integers(0, len(text)))
    gone = data.draw(st.integers(0, 3) | st.just(len(text)))
    new = data.draw(
        st.sampled_from([b"", b"1", b"-", b".", b"e9", b",", b"]", b"}", b'"', b"NaN", b"\xff", b"[" * 9999])
    )
    refused_or_read_rightly(text[:start] + new + text[start + gone :])


# ------------------------------------------------------------------------------------------------------------ store

IDS = [f"{k:016x}" for k in range(3)]
records = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["ok", "failed", "skipped"]),
        "fid": st.none() | st.floats(0, 1e3),
        "images": st.lists(st.floats(0, 100), max_size=3),
        "timings": st.lists(st.floats(0, 100), max_size=2),
    }
)
soon = st.none() | st.integers(0, 9)  # changes of the folder that a process lives to make; None: all
changes = st.one_of(
    st.tuples(st.just("write"), soon, st.sampled_from(IDS), records),
    st.tuples(st.just("compact"), soon, st.none(), st.none()),
    st.tuples(st.just("left over"), st.none(), st.sampled_from(IDS), st.sampled_from(["cells", "images", "timings"])),
)


class Killed(BaseException):
    """No code of the store runs after it, but for what a `finally` does."""


class Mortal(Folder):
    """A folder whose process is killed once it has made `left` changes."""

    left: int | None = None

    def _change(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Killed
            self.left -= 1

    def put_all(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        for change in changes:
            self._change()
            super().put_all([change])

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        self._change()
        return super().writing(name)

    def delete(self, name: str, content: bytes | None = None) -> None:
        self._change()
        super().delete(name, content)


def write(store: Store, cell_id: str, record: dict, at: int) -> None:
    cell = {"cell_id": cell_id, "status": record["status"], "fid": record["fid"], "ended_at": 1_900_000_000_000 + at}
    images = [{"image_index": k, "clip_score": value} for k, value in enumerate(record["images"])]
    store.write(cell, images, [{"run": k, "total_s": value} for k, value in enumerate(record["timings"])])


def read(store: Store) -> dict[str, dict]:
    """The records as the model has them, through every way to read them."""
    found = {row["cell_id"]: row for row in store.rows(IDS)}
    assert store.recorded() == {cell_id: row["status"] for cell_id, row in found.items()}
    assert sorted(store.cells()["cell_id"]) == sorted(found), "a row a cell"

    def values(frame, order: str, column: str) -> dict[str, list]:
        rows = frame.sort_values(["cell_id", order])
        return {cell_id: list(rows[column][rows["cell_id"] == cell_id]) for cell_id in {*found, *rows["cell_id"]}}

    images = values(store.images(), "image_index", "clip_score")
    timings = values(store.timings(), "run", "total_s")
    assert images.keys() == timings.keys() == found.keys(), "no rows of a cell that is not recorded"
    return {
        cell_id: {"status": row["status"], "fid": row["fid"], "images": images[cell_id], "timings": timings[cell_id]}
        for cell_id, row in found.items()
    }


@cases(60)
@given(st.lists(changes, min_size=1, max_size=8))
def test_the_store_is_a_dict_whatever_was_killed(history):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store, other = Store(Mortal(root)), Store(root)  # `other` has read the folder before each change
        store.check_writable()
        now: dict[str, dict] = {}
        compacted: dict[str, dict] = {}
        for at, (what, left, cell_id, more) in enumerate(history):
            store.place.left = left
            killed = False
            try:
                if what == "write":
                    write(store, cell_id, more, at)
                elif what == "compact":
                    compact(store)
                else:
                    (root / more / f".{cell_id}.parquet.dead-1.tmp").write_bytes(b"PAR1 half a file")
            except Killed:
                killed = True
            if what == "write" and not killed:
                now[cell_id] = more
            elif what == "write" and left:  # the earlier record is gone; one that a compaction kept counts again
                now.pop(cell_id, None)
                now |= {cell_id: compacted[cell_id]} if cell_id in compacted else {}
            elif what == "compact" and (not killed or left >= 3):  # its three files were there
                compacted = dict(now)
            assert not killed or read(other) == now, "what a kill left over is not read"
        assert read(other) == read(Store(root)) == now
        assert not (root / "quarantine").exists(), "nothing was taken for damaged"


# ----------------------------------------------------------------------------------------------------------- leases


class Raced(InMemory):
    """A place in which others act between an owner's look at a cell and its attempt to create the lease."""

    meanwhile: Callable[[], object] | None = None

    def create(self, name: str, content: bytes) -> None:
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        super().create(name, content)


class Once:
    """In the place of the event that ends an owner's heartbeat: one beat, and it ends."""

    def __init__(self) -> None:
        self.answers = iter((False, True))

    def wait(self, seconds: float) -> bool:
        return next(self.answers)


owners, cell_ids = st.integers(0, 2), st.sampled_from(IDS[:2])
turns = st.one_of(
    st.tuples(st.just("take"), owners, cell_ids, st.none() | owners),  # the last: who takes it at the same moment
    st.tuples(st.just("give back"), owners, cell_ids, st.none()),
    st.tuples(st.just("beat"), owners, st.none(), st.none()),
    st.tuples(st.just("pass"), st.none(), st.none(), st.sampled_from([STALE_S / 2 - 5, STALE_S + 5])),
)


@cases(400)
@given(st.lists(turns, min_size=10, max_size=40))
def test_a_cell_never_has_two_owners(history):
    place = Raced()
    every = [Leases(place) for _ in range(3)]
    for k, one in enumerate(every):  # processes elsewhere: only the age of a lease speaks
        one.owner = replace(one.owner, machine=f"machine {k}", host=f"host {k}")
    holder: dict[str, int] = {}
    touched: dict[str, float] = {}
    for what, who, cell_id, more in history:
        if what == "pass":
            place.slept += more
        elif what == "beat":
            every[who].ended = Once()
            every[who]._beat()
            touched |= {one: place.slept for one, holds in holder.items() if holds == who}
        elif what == "give back":
            every[who].release(cell_id)
            if holder.get(cell_id) == who:
                del holder[cell_id]
        else:
            free = cell_id not in holder or place.slept - touched[cell_id] > STALE_S
            rival = None if more == who else more
            answers: dict[int, bool] = {}
            if rival is not None:
                place.meanwhile = lambda rival=rival, cell_id=cell_id, answers=answers: answers.update(
                    {rival: every[rival].take(cell_id)}
                )
            answers[who] = every[who].take(cell_id)
            place.meanwhile = None
            winner = who if rival is None else rival
            assert [k for k, took in answers.items() if took] == ([winner] if free else [])
            if free:
                holder[cell_id], touched[cell_id] = winner, place.slept
        for one in IDS[:2]:
            assert [k for k in range(3) if every[k].holds(one)] == ([holder[one]] if one in holder else [])
