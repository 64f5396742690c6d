"""One cell's record found without listing the folder, whatever compactions do meanwhile."""

from __future__ import annotations

import pytest

from harness.bench.fake_cells import cell
from harness.store import layout
from harness.store.lookup import Lookup
from harness.store.records import Store
from harness.store.upkeep import compact

ENDED = 1_900_000_000_000


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    store.check_writable()
    return store


def write(store: Store, seed: int, ended: int = ENDED) -> str:
    store.write({**cell(seed).columns(), "status": "ok", "ended_at": ended}, [{"image_index": 0}])
    return cell(seed).cell_id


def agrees(lookup: Lookup, store: Store) -> bool:
    known = store.versions()
    return all(lookup(cell(seed).cell_id) == known.get(cell(seed).cell_id) for seed in range(6))


def test_it_says_what_a_listing_says_through_writes_and_compactions(store):
    lookup = Lookup(store)
    assert agrees(lookup, store)
    for seed in range(3):
        write(store, seed)
        assert agrees(lookup, store)
    compact(store)
    assert agrees(lookup, store), "gone into a file of many"
    write(store, 1, ENDED + 1000)
    assert agrees(lookup, store), "recorded again beside it"
    write(store, 4)
    compact(store)
    assert agrees(lookup, store) and lookup(cell(1).cell_id) is not None


def test_a_compaction_under_way_or_killed_hides_no_record(store):
    write(store, 0)
    compact(store)
    write(store, 1)
    under_way = layout.record("images", "compacted-000002")  # its images are there, its cells are not
    store.place.put(under_way, store.place.read(layout.record("images", "compacted-000001")))
    lookup = Lookup(store)
    assert agrees(lookup, store)
    compact(store)  # number 3: that one was killed
    assert agrees(lookup, store)


def test_what_was_announced_and_ends_under_that_number_is_seen(store):
    write(store, 0)
    compact(store)
    write(store, 1)
    store.place.put(layout.record("images", "compacted-000002"), b"")
    lookup = Lookup(store)
    assert agrees(lookup, store)
    store.place.delete(layout.record("images", "compacted-000002"))
    compact(store)  # number 2, as by the process that had begun it
    assert agrees(lookup, store) and lookup(cell(1).cell_id) is not None


def test_the_folder_is_listed_once_and_not_for_each_cell(store, monkeypatch):
    write(store, 0)
    compact(store)
    lookup, listed = Lookup(store), []
    names = store.place.names
    monkeypatch.setattr(store.place, "names", lambda prefix: listed.append(prefix) or names(prefix))
    for _ in range(3):
        for seed in range(6):
            lookup(cell(seed).cell_id)
        write(store, 5)
    assert lookup(cell(5).cell_id) is not None
    assert listed.count(layout.records("cells")) == 2, "the listing of the first question, and its number"


def test_a_damaged_record_is_set_aside_as_ever(store):
    cell_id = write(store, 0)
    store.place.put(layout.record("cells", cell_id), b"PAR1 and no more")
    assert Lookup(store)(cell_id) is None
    assert store.place.names(layout.QUARANTINE)


def group(store: Store, *seeds: int) -> int:
    rows = [{**cell(seed).columns(), "status": "ok", "ended_at": ENDED + seed} for seed in seeds]
    return store.write_new([(row, [{"image_index": 0}], []) for row in rows])


def test_another_sweeps_groups_are_seen_and_its_own_cost_no_listing(store, monkeypatch):
    lookup, other = Lookup(store), Store(store.place)
    assert agrees(lookup, store)
    group(other, 0, 1)
    assert agrees(lookup, store) and lookup(cell(1).cell_id) == ("ok", store.versions()[cell(1).cell_id][1])
    lookup.wrote(group(store, 2, 3))
    names, listed = store.place.names, []
    monkeypatch.setattr(store.place, "names", lambda prefix: listed.append(prefix) or names(prefix))
    assert lookup(cell(5).cell_id) is None and not listed
    group(other, 4, 5)
    assert lookup(cell(5).cell_id) is not None and listed
    compact(store)
    group(other, 6, 7)
    assert agrees(lookup, store) and lookup(cell(7).cell_id) is not None


def test_a_group_that_was_killed_half_way_is_not_recorded_and_hides_nothing(store, monkeypatch):
    lookup = Lookup(store)
    put_all = store.place.put_all
    monkeypatch.setattr(store.place, "put_all", lambda changes: put_all(changes[:-1]))  # all but the file of cells
    group(store, 0, 1)
    monkeypatch.undo()
    assert store.versions() == {} and agrees(lookup, store)
    group(store, 0, 2)
    assert agrees(lookup, store) and len(store.images()) == 2
    compact(store)
    assert agrees(lookup, store) and len(store.images()) == 2


def test_files_of_few_cells_are_put_together_and_large_ones_left(store):
    compact(store)
    for first in (0, 2, 4):
        group(store, first, first + 1)
    compact(store)
    large = store.files("cells")
    group(store, 6, 7), write(store, 8)
    before = store.versions()
    assert compact(store, few=6) == 1 and store.versions() == before
    assert len(store.files("cells")) == 2 and set(large) < set(store.files("cells"))
    assert len(store.images()) == 9


def test_a_running_sweep_puts_a_slice_together_and_reads_nothing_of_large_files(store, monkeypatch):
    group(store, *range(100, 120))
    for first in range(0, 12, 2):
        group(store, first, first + 1)
    write(store, 0, ENDED + 1000)  # recorded again: its row in a group counts no more
    before, read = store.versions(), []
    other, whole = Store(store.place), Store.read
    monkeypatch.setattr(other, "read", lambda file, *rest: read.append(file) or whole(other, file, *rest))
    for most, files in ((3, 6), (3, 4), (3, 2), (3, 2)):
        compact(other, few=20, most=most)
        assert store.versions() == before and len(store.images()) == 32
        assert len(store.files("cells")) == files
    assert read and layout.record("cells", "compacted-000001") not in read


def test_no_number_is_given_again_however_many_compactions_come_between_two_writes(store):
    """The names of earlier numbers are gone then, and the files that have them are not."""
    for first in range(0, 8, 2):
        group(store, first, first + 1)
    other = Store(store.place)
    for _ in range(2):
        compact(other, most=2)
    group(store, 8, 9)
    assert len(store.recorded()) == 10
