"""A storage backend is one class: a dict that implements Place carries records and leases, and nothing else is touched.

What a bucket must do is what this does. The last test names the ways round a Place that would break it.
"""

from __future__ import annotations

import ast
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
import s3_server

from harness.bench.fake_cells import cell
from harness.errors import InputError
from harness.executors.base import Record
from harness.executors.share import TakenByAnother, run_shared
from harness.store import layout, places
from harness.store.bucket import Bucket
from harness.store.leases import STALE_S, Leases
from harness.store.place import Place, Seen
from harness.store.places import Folder
from harness.store.records import Store
from harness.store.tiles import has_grid, load_grid, save_grid
from harness.store.upkeep import compact, repair

ROOT = Path(__file__).resolve().parents[1]


class InMemory(Place):
    """Files in a dict: name → (content, time of last change). Its clock can be set forward."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, float]] = {}
        self.slept = 0.0
        self.one, self.whole = threading.RLock(), threading.RLock()

    def __str__(self) -> str:
        return "memory:"

    def names(self, prefix: str) -> list[str]:
        return sorted(n for n in list(self.files) if n.startswith(prefix) and "/" not in n[len(prefix) :])

    def below(self, folder: str) -> list[str]:
        return sorted(n for n in list(self.files) if n.startswith(folder))

    def look(self, name: str) -> Seen:
        content, changed = self._file(name)
        return Seen(len(content), changed, hashlib.sha256(content).hexdigest())

    def open(self, name: str) -> pa.NativeFile:
        return pa.BufferReader(self._file(name)[0])

    def _file(self, name: str) -> tuple[bytes, float]:
        try:
            return self.files[name]
        except KeyError:
            raise FileNotFoundError(2, "No such file", name) from None

    def now(self) -> float:
        return time.time() + self.slept

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        sink = BytesIO()
        yield sink
        self.files[name] = (sink.getvalue(), self.now())

    def create(self, name: str, content: bytes) -> None:
        with self.one:
            if name in self.files:
                raise FileExistsError(17, "File exists", name)
            self.files[name] = (content, self.now())

    def renew(self, name: str, content: bytes) -> bool:
        with self.one:
            found = name in self.files and self.files[name][0] == content
            if found:
                self.files[name] = (content, self.now())
            return found

    def delete(self, name: str, content: bytes | None = None) -> None:
        with self.one:
            if name in self.files and content in (None, self.files[name][0]):
                del self.files[name]

    @contextmanager
    def locked(self, alone: bool = False) -> Iterator[None]:
        with self.whole:
            yield


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    if reason := s3_server.missing():
        pytest.skip(reason)
    with s3_server.server():
        yield


@pytest.fixture(params=["in memory", "folder", "bucket"])
def place(request, tmp_path) -> Place:
    """The same tests on the folder and on object storage say that all keep the same promises."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
        return places.at(s3_server.address())
    return InMemory() if request.param == "in memory" else Folder(tmp_path / "results")


def write(store: Store, seed: int, **values) -> str:
    one = cell(seed)
    rows = [{"image_index": k, "prompt": f"image {k}", "clip_score": float(k)} for k in range(3)]
    row = {**one.columns(), "status": "ok", "n_images": 3, "ended_at": 1_900_000_000_000 + seed, **values}
    store.write(row, rows, [{"run": 0, "total_s": 0.5}])
    return one.cell_id


def everything(store: Store) -> list:
    frames = (store.cells().sort_values("cell_id"), store.images(), store.timings())
    return [frame.sort_values(list(frame.columns[:2])).reset_index(drop=True) for frame in frames]


def test_records_are_written_read_replaced_and_compacted(place):
    store = Store(place)
    store.check_writable()
    ids = [write(store, seed) for seed in range(4)]
    assert store.recorded() == dict.fromkeys(ids, "ok") and len(store.images()) == 12
    write(store, 2, fid=7.0)
    store.write({**cell(3).columns(), "status": "failed", "error": "memory"})
    assert store.rows([ids[2]])[0]["fid"] == 7.0 and store.recorded()[ids[3]] == "failed"
    assert not place.exists(layout.record("images", ids[3])), "the rows of the earlier record are gone"
    before = everything(store)
    if not place.lockable:
        with pytest.raises(InputError, match="object storage has no locks, so records there are not compacted"):
            compact(store)
        return
    assert compact(store) == 4 and all(map(lambda a, b: a.equals(b), everything(store), before))
    assert {name for table in ("cells", "images", "timings") for name in place.names(f"{table}/")} == {
        f"{table}/compacted-000001.parquet" for table in ("cells", "images", "timings")
    }
    write(store, 1, fid=9.0)
    assert Store(place).rows([ids[1]])[0]["fid"] == 9.0 and len(store.cells()) == 4


def test_a_damaged_record_is_set_aside_and_restored(place, caplog):
    store = Store(place)
    ids = [write(store, seed) for seed in range(2)]
    before = everything(store)
    place.put(layout.record("cells", ids[0]), b"PAR1 half a file")
    assert set(store.recorded()) == {ids[1]}
    assert place.names(layout.QUARANTINE) == [f"quarantine/cells-{ids[0]}.parquet"]
    assert f"set aside as {place}/quarantine/" in caplog.text
    found = repair(store)
    assert (found.damaged, len(found.restored), found.rerun) == (1, 1, {})
    assert all(map(lambda a, b: a.equals(b), everything(store), before))


def test_grids_are_kept_beside_the_records(place):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    save_grid(images, place, "a" * 16)
    assert np.array_equal(load_grid(place, "a" * 16).images.transpose(0, 3, 1, 2), images)
    assert has_grid(place, "a" * 16) and not has_grid(place, "b" * 16)


CELL = "00000000000000aa"


def far(leases: Leases) -> Leases:
    """A holder on a machine that cannot be looked up: only its age speaks."""
    leases.owner = replace(leases.owner, machine="another machine", host="far")
    return leases


def grow_old(place: Place, monkeypatch, seconds: float) -> None:
    if isinstance(place, InMemory):
        place.slept += seconds
    else:
        now = type(place).now
        monkeypatch.setattr(type(place), "now", lambda self: now(self) + seconds)


def test_a_lease_is_held_once_outbid_when_stale_and_given_back(place, monkeypatch):
    with far(Leases(place)) as asleep, Leases(place) as awake:
        assert asleep.take(CELL) and not awake.take(CELL) and str(awake.other(CELL)).endswith("on far")
        grow_old(place, monkeypatch, STALE_S - 20)
        assert not awake.take(CELL)
        grow_old(place, monkeypatch, 40)
        assert awake.take(CELL) and awake.holds(CELL) and not asleep.holds(CELL)
        asleep.release(CELL)
        assert awake.holds(CELL), "what was outbid gives nothing back of ours"
    assert place.below(layout.LEASES) == []


def test_a_heartbeat_keeps_a_lease_and_brings_back_none_that_is_gone(place, monkeypatch):
    with far(Leases(place)) as holder, Leases(place) as other:
        assert holder.take(CELL)
        held = holder.held[CELL]
        changed = place.look(held.name).changed
        time.sleep(1.1 if isinstance(place, Bucket) else 0.02)  # S3 counts in whole seconds
        assert place.renew(held.name, held.content) and place.look(held.name).changed > changed
        place.delete(held.name)
        assert not place.renew(held.name, held.content) and place.below(layout.LEASES) == []
        # Its name is free again and another's now: neither held, renewed nor given back by the one that slept.
        assert other.take(CELL) and other.held[CELL].name == held.name
        assert not holder.holds(CELL) and not place.renew(held.name, held.content)
        holder.release(CELL)
        assert other.holds(CELL)


def test_of_many_at_once_one_creates(place):
    start, won = threading.Barrier(6), []

    def race(leases: Leases) -> None:
        for number in range(20):
            start.wait()
            if leases.take(f"{number:016x}"):
                won.append(number)

    place.prepare(layout.LEASES, STALE_S)
    racers = [threading.Thread(target=race, args=(Leases(place),)) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(won) == list(range(20))


def test_a_sweep_shares_the_place_with_another(place):
    """Cells are claimed, run and recorded; what another holds is waited for."""

    class Inline:
        def run(self, cells, claim):
            for one in cells:
                if claim(one):
                    yield Record({**one.columns(), "status": "ok"}, [{"image_index": 0}])

    store, cells = Store(place), [cell(seed) for seed in range(3)]
    store.check_writable()
    with far(Leases(place)) as other:
        assert other.take(cells[1].cell_id)
        messages = []
        for message in run_shared(Inline(), store, cells, {}):
            messages.append(message)
            if isinstance(message, TakenByAnother) and not message.done:
                store.write({**cells[1].columns(), "status": "ok", "ended_at": 1_900_000_000_000})
                other.release(cells[1].cell_id)
    assert sum(isinstance(message, Record) for message in messages) == 2 and len(store.recorded()) == 3
    assert place.below(layout.LEASES) == []


def test_what_others_have_recorded_costs_one_lease_and_not_one_a_cell(place, monkeypatch):
    """A sweep of many walks over what the others did: a million cells must not be a million leases."""

    class Inline:
        def run(self, cells, claim):
            return iter([claim(one) for one in cells if claim(one)])

    store, cells, taken = Store(place), [cell(seed) for seed in range(6)], []
    store.check_writable()
    store.write_new([({**one.columns(), "status": "ok", "ended_at": 1_900_000_000_000}, [], []) for one in cells[:3]])
    for one in cells[3:]:
        store.write({**one.columns(), "status": "ok", "ended_at": 1_900_000_000_000})
    take = Leases.take
    monkeypatch.setattr(Leases, "take", lambda self, cell_id: taken.append(cell_id) or take(self, cell_id))
    messages = list(run_shared(Inline(), store, cells, {}))
    assert [message.done for message in messages] == [True] * 6 and len(taken) == 1


def test_a_place_in_trouble_is_one_line(monkeypatch):
    place = InMemory()
    monkeypatch.setattr(place, "now", lambda: (_ for _ in ()).throw(OSError(5, "bucket not reached")))
    for attempt in (Store(place).check_writable, Leases(place).__enter__):
        with pytest.raises(InputError, match=r"cannot write to .*memory:.*bucket not reached"):
            attempt()


def test_records_and_leases_know_places_alone():
    """A call of the file system in them would pass by every place but a folder."""
    calls = {"unlink", "mkdir", "glob", "rglob", "iterdir", "write_bytes", "read_bytes", "scandir"}
    for module in ("records", "upkeep", "leases", "parquet_files", "tiles", "layout"):
        tree = ast.parse((ROOT / "harness" / "store" / f"{module}.py").read_text())
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & calls, module
    assert isinstance(places.at("results"), Folder) and places.at(memory := InMemory()) is memory
