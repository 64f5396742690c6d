"""A cell in parts is the whole cell, to the last bit; a part that is lost is run again, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.fake_cells import cell
from harness.cell import Cell
from harness.executors.base import Part, Record
from harness.executors.local import LocalExecutor
from harness.executors.queue import cuts
from harness.measure.session import Session
from harness.sweep.enumerate import enumerate_cells

# Durations and what the machine was doing: they differ between two runs of one cell as well.
MEASURED = {"load_s", "cell_s", "quality_s", "images_per_s", "load_average", "peak_memory_mib", "process_peak_mib"}
MEASURED |= {"started_at", "ended_at", "attempts", "workers"}


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 300))
def test_parts_are_all_images_once_cut_at_multiples_of_the_batch(n, batch, most):
    parts = cuts(replace(cell(0), n_images=n, batch_size=batch), most)
    assert [image for part in parts for image in part] == list(range(n))
    assert all(part.start % batch == 0 for part in parts) and max(map(len, parts)) <= max(most, batch)


# ------------------------------------------------------------------------------------------------- the embedded model


WORDS = ["n_images=64", "batch_size=16", "device=cpu", "threads=1", "timing=off", "reference_count=128"]
MODELS = {
    "embedded": ["steps=1", "cfg=1", "metrics=[fid,kid,precision_recall,clip_score,attributes]"],
    "gmm": ["model=gmm", "steps=4", "metrics=[discretisation,exact,law]"],
}


@pytest.fixture(scope="module", params=MODELS)
def one(request):
    (found,) = enumerate_cells([*WORDS, *MODELS[request.param]]).cells.values()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def session(folder) -> Session:
    return Session(folder)


@pytest.fixture(scope="module")
def whole(session, one) -> Record:
    return session.run(one, lambda *_: None).checked()


def differ(record: Record, whole: Record) -> set[str]:
    columns = {name for name in whole.cell if record.cell.get(name) != whole.cell[name]}
    for made, meant in zip(record.images, whole.images, strict=True):
        columns |= {name for name in meant if made.get(name) != meant[name]}
    return columns - MEASURED


def grid(folder: Path, one: Cell) -> bytes:
    """Of the cell, where its model makes images."""
    path = folder / "grids" / f"{one.cell_id}.png"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("most", [64, 32, 16])
def test_a_cell_in_parts_is_the_whole_cell_to_the_last_bit(session, one, whole, folder, most):
    before = grid(folder, one)
    parts = [session.part(one, images, lambda *_: None) for images in cuts(one, most)]
    record = session.join(one, parts[::-1], lambda *_: None).checked()
    assert len(parts) == 64 // most and record.cell.keys() == whole.cell.keys()
    assert differ(record, whole) == set() and len(record.images) == 64
    assert grid(folder, one) == before


def test_cuts_elsewhere_are_seen(session, one, whole):
    """What the test above would say if the rule were broken."""
    parts = [session.part(one, images, lambda *_: None) for images in (range(24), range(24, 64))]
    assert one.model.name == "gmm" or "image_sha256" in differ(
        session.join(one, parts, lambda *_: None).checked(), whole
    )


def test_parts_of_different_hardware_are_not_joined(session, one):
    parts = [Part(one.cell_id, start, f"GPU {start}", b"") for start in (0, 32)]
    with pytest.raises(ValueError, match="different hardware, GPU 0 and GPU 32: pin one kind"):
        session.join(one, parts, lambda *_: None)


def test_two_workers_make_one_cell(tmp_path, one, whole, folder):
    executor = LocalExecutor(str(tmp_path), workers=2, shard_images=32)
    (record,) = (message for message in executor.run([one]) if isinstance(message, Record))
    assert differ(record, whole) == set() and len(record.images) == 64
    assert record.files.get(f"grids/{one.cell_id}.png", b"") == grid(folder, one)


def test_the_first_part_times_the_cell(session, one):
    timed = replace(one, timing="quick", n_images=32, metrics=())
    first, second = (session.part(timed, images, lambda *_: None) for images in cuts(timed, 16))
    record = session.join(timed, [second, first], lambda *_: None)
    assert record.cell["timing_runs"] >= 8 and len(record.timings) == record.cell["timing_runs"] + 1
