"""The store: what is written comes back, whole or not at all, whatever dies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import InputError
from harness.store import __main__ as command
from harness.store import records
from harness.store.records import STALE_TEMPORARY_S, Store
from harness.store.schema import ARROW_TYPES, SCHEMA_VERSION, TABLES, arrow_schema, describe, to_arrow
from harness.store.upkeep import compact, repair

ROOT = Path(__file__).resolve().parents[1]
COLUMNS_OTHERS_RELY_ON = """
cell_id status error task model sampler implementation schedule steps steps_run cfg strength precision n_images seed
batch_size fid fid_low fid_high fid_extractor kid clip_score clip_score_low clip_score_high clip_definition latency_s
latency_p90_s latency_p95_s images_per_s peak_memory_mib nfe flops discretisation_error device git_commit
"""


def cell_id(number: int) -> str:
    return f"{number:016x}"


def cell(number: int, **values) -> dict:
    return {"cell_id": cell_id(number), "status": "ok", "sampler": "dpmpp", "steps": 20, "cfg": 3.0, **values}


def images(count: int) -> list[dict]:
    return [
        {"image_index": i, "prompt_id": i, "prompt": f"a red circle {i}", "clip_score": 30.0 + i} for i in range(count)
    ]


def sample(kind: str):
    return {
        "text": 'γ, "quoted" $x$ 日本',
        "json": {"b": [1, 2], "a": None},
        "int": np.int64(7),
        "float": np.float32(0.5),
        "bool": np.bool_(True),
        "time": datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "floats": np.array([0.25, 0.5]),
    }[kind]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_keeps_its_value_and_type(table):
    row = {column.name: sample(column.kind) for column in TABLES[table]}
    back = to_arrow(table, [row, {}]).to_pylist()
    for column in TABLES[table]:
        expected = {"json": '{"a": null, "b": [1, 2]}', "floats": [0.25, 0.5]}.get(column.kind, sample(column.kind))
        assert back[0][column.name] == expected, column
        assert back[1][column.name] is None, column


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_documented_once(table):
    names = [column.name for column in TABLES[table]]
    assert len(names) == len(set(names))
    for column in TABLES[table]:
        assert column.meaning and column.kind in ARROW_TYPES
        assert f"| `{column.name}` |" in describe(table)


def test_cells_have_the_columns_that_others_rely_on():
    assert set(COLUMNS_OTHERS_RELY_ON.split()) <= set(arrow_schema("cells").names)


def test_rows_come_back_and_plain_pandas_reads_the_folder(tmp_path):
    store = Store(tmp_path)
    for number in range(3):
        timings = [{"run": 0, "kind": "timed", "total_s": 0.5, "steps": [0.1, 0.2]}]
        store.write(cell(number, fid=None if number else 12.5, plan="a\nb"), images(4), timings)
    (tmp_path / "cells" / ".0000.1.tmp").write_bytes(b"half a file")
    (tmp_path / "cells" / ".0000.parquet").write_bytes(b"half a file")
    assert store.recorded() == {cell_id(n): "ok" for n in range(3)}
    assert len(store.cells()) == 3 and len(store.images()) == 12
    assert list(store.timings(["steps"])["steps"][0]) == [0.1, 0.2]
    frame = pd.read_parquet(tmp_path / "cells")
    assert list(frame.columns) == arrow_schema("cells").names
    assert frame["fid"].tolist()[0] == 12.5 and frame["fid"].isna().sum() == 2
    assert set(frame["schema_version"]) == {SCHEMA_VERSION}
    for table in TABLES:
        schemas = [pq.read_schema(path) for path in (tmp_path / table).glob("[!.]*.parquet")]
        assert all(schema.equals(arrow_schema(table)) for schema in schemas), table
        assert all(schema.metadata.items() >= arrow_schema(table).metadata.items() for schema in schemas), table


def test_a_second_record_replaces_the_first(tmp_path):
    store = Store(tmp_path)
    store.write(cell(1), images(4), [{"run": 0}])
    store.write(cell(1, status="failed", error="out of memory"))
    assert store.recorded() == {cell_id(1): "failed"}
    assert len(store.images()) == 0 and len(store.timings()) == 0
    assert [path.name for path in (tmp_path / "images").iterdir()] == []


def test_a_file_may_hold_many_cells(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    pq.write_table(to_arrow("cells", [cell(1), cell(2, status="failed")]), tmp_path / "cells" / "compacted-1.parquet")
    assert store.recorded() == {cell_id(1): "ok", cell_id(2): "failed"}
    store.write(cell(3))
    assert [row["cell_id"] for row in store.rows([cell_id(3), cell_id(9), cell_id(1)])] == [cell_id(3), cell_id(1)]
    rows = [{"cell_id": cell_id(number), "image_index": 0, "prompt": f"prompt {number}"} for number in (1, 2)]
    pq.write_table(to_arrow("images", rows), tmp_path / "images" / "compacted-1.parquet")
    store.write(cell(3), images(2))
    assert list(store.images(["prompt"], [cell_id(1)])["prompt"]) == ["prompt 1"]
    assert len(store.images(["prompt"], [cell_id(1), cell_id(3)])) == 3


def test_times_are_utc_whatever_they_were_given_as(tmp_path):
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    given = [moment, moment.isoformat(), moment.timestamp(), int(1000 * moment.timestamp())]
    rows = to_arrow("timings", [{"started_at": value} for value in given]).to_pylist()
    assert [row["started_at"] for row in rows] == [moment] * 4
    with pytest.raises(ValueError, match="'started_at' takes time"):
        to_arrow("timings", [{"started_at": moment.replace(tzinfo=None)}])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (cell(1, clip_scor=3.0), "clip_scor.*did you mean 'clip_score'"),
        (cell(1, steps="20"), "cells column 'steps' takes int, given '20'"),
        (cell(1, steps=2.5), "'steps' takes int"),
        (cell(1, fid="low"), "'fid' takes float"),
        (cell(1, git_dirty="no"), "'git_dirty' takes bool"),
        (cell(1, status="done"), "status='done' is not valid; valid: ok, failed, skipped"),
        (cell(1, cell_id="../../etc/passwd"), "16 hexadecimal digits"),
        (cell(1, cell_id="0123456789abcdef\n"), "16 hexadecimal digits"),
        (cell(1, cell_id=None), "16 hexadecimal digits"),
    ],
)
def test_a_wrong_row_is_refused_and_leaves_nothing(tmp_path, row, complaint):
    store = Store(tmp_path)
    store.check_writable()
    with pytest.raises(ValueError, match=complaint):
        store.write(row, images(2))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_text_that_is_not_unicode_is_kept_readable(tmp_path):
    store = Store(tmp_path)
    store.write(cell(1, negative_prompt="bad \udcff byte"), [{"image_index": 0, "prompt": "\udc80"}])
    assert store.cells()["negative_prompt"][0] == "bad \\udcff byte"
    assert store.images()["prompt"][0] == "\\udc80"


def test_damaged_files_are_set_aside_with_one_line_each(tmp_path, caplog):
    store = Store(tmp_path)
    for number in range(5):
        store.write(cell(number), images(2))
    damaged = {0: b"", 1: b"PAR1 not parquet", 2: None, 3: None}
    for number, content in damaged.items():
        path = tmp_path / "cells" / f"{cell_id(number)}.parquet"
        if number == 2:
            content = path.read_bytes()[:-200]
        if number == 3:
            pq.write_table(pa.table({"something": [1]}), path)
        else:
            path.write_bytes(content)
    assert store.recorded() == {cell_id(4): "ok"}
    assert len(caplog.records) == 4 and all("\n" not in record.getMessage() for record in caplog.records)
    assert len(list((tmp_path / "quarantine").iterdir())) == 4
    caplog.clear()
    assert store.recorded() == {cell_id(4): "ok"} and not caplog.records
    assert len(pd.read_parquet(tmp_path / "cells")) == 1


def test_a_file_whose_columns_have_other_types_is_set_aside(tmp_path, caplog):
    store = Store(tmp_path)
    store.write(cell(1))
    pq.write_table(pa.table({"cell_id": [cell_id(2)], "steps": ["many"]}), tmp_path / "cells" / "other.parquet")
    assert list(store.cells()["cell_id"]) == [cell_id(1)]
    assert len(caplog.records) == 1


def test_older_and_newer_schemas_read_together(tmp_path):
    store = Store(tmp_path)
    store.write(cell(1, fid=3.0))
    older = to_arrow("cells", [cell(2)]).drop_columns(["fid", "git_dirty", "discretisation_error"])
    newer = to_arrow("cells", [cell(3, fid=4.0)]).append_column("sharpness", pa.array([0.5]))
    pq.write_table(older, tmp_path / "cells" / f"{cell_id(2)}.parquet")
    pq.write_table(newer, tmp_path / "cells" / f"{cell_id(3)}.parquet")
    frame = store.cells().set_index("cell_id")
    assert frame.loc[cell_id(1), "fid"] == 3.0 and frame.loc[cell_id(3), "fid"] == 4.0
    assert pd.isna(frame.loc[cell_id(2), "fid"]) and frame.loc[cell_id(3), "sharpness"] == 0.5
    assert len(store.recorded()) == 3


def test_a_missing_folder_reads_as_empty(tmp_path):
    store = Store(tmp_path / "none")
    assert store.recorded() == {} and store.cells().empty and "fid" in store.cells().columns
    assert not (tmp_path / "none").exists()


def test_an_unwritable_root_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "results")
    for attempt in (store.check_writable, lambda: store.write(cell(1))):
        with pytest.raises(InputError, match=r"cannot write to results_dir=.*Not a directory") as error:
            attempt()
        assert "\n" not in str(error.value)


def test_a_full_disk_loses_no_earlier_record(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(cell(1, fid=1.0), images(2))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        store.write(cell(1, fid=2.0), images(3))
    assert store.cells()["fid"].tolist() == [1.0] and len(store.images()) == 2
    assert not list(tmp_path.rglob(".*.tmp"))


def test_only_stale_temporaries_are_cleared(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    fresh, stale = tmp_path / "cells" / ".a.1.tmp", tmp_path / "images" / ".b.2.tmp"
    for path in (fresh, stale):
        path.write_bytes(b"")
    os.utime(stale, (time.time() - 2 * STALE_TEMPORARY_S,) * 2)
    store.check_writable()
    assert fresh.exists() and not stale.exists()


KILLER = """
import os, random, signal, sys, time
from harness.store.records import Store
store, kills, chance = Store(sys.argv[1]), int(sys.argv[2]), random.Random(0)
images = [{"image_index": i, "prompt": "a red circle", "clip_score": float(i)} for i in range(64)]

def write(number):
    store.write({"cell_id": f"{number:016x}", "status": "ok"}, images, [{"run": 0, "steps": [0.1]}])

write(0)  # the first write imports what it needs; forks share that, so that each kill meets writing
for kill in range(1, kills + 1):
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        for count in range(10_000):
            write(kill * 10_000 + count)
            os.write(told, b".")
        os._exit(1)
    os.close(told)
    os.read(heard, 1)  # one is written, the next under way
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(heard)
"""


def test_kill_9_leaves_no_damaged_file(tmp_path, caplog):
    kills = 25
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path), str(kills)], cwd=ROOT, check=True, timeout=60)
    store = Store(tmp_path)
    recorded, rows = store.recorded(), store.images(["cell_id"])["cell_id"].value_counts()
    assert not caplog.records and not (tmp_path / "quarantine").exists()
    assert len(recorded) > kills and all(rows[identity] == 64 for identity in recorded)
    assert len(pd.read_parquet(tmp_path / "cells")) == len(recorded)
    # At most one cell a kill was under way: its images may be there, its record is not.
    assert len(set(rows.index) - set(recorded)) <= kills


def test_two_hundred_cells_are_listed_in_well_under_a_second(tmp_path):
    store = Store(tmp_path)
    store.write(cell(0))
    content = (tmp_path / "cells" / f"{cell_id(0)}.parquet").read_bytes()
    for number in range(200):
        (tmp_path / "cells" / f"{cell_id(number)}.parquet").write_bytes(content)
    start = time.process_time()
    store.recorded()
    assert time.process_time() - start < 1.0


def test_importing_the_store_imports_neither_torch_nor_hydra_nor_pandas():
    code = "import sys, harness.store; print([m for m in ('torch', 'hydra', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\]\s*", done.stdout)


# ------------------------------------------------------------------------------------------------ schema evolution

V1 = ROOT / "tests" / "fixtures" / "schema_v1"  # written by the code of schema version 1


@pytest.fixture
def old(tmp_path) -> Store:
    shutil.copytree(V1, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path)


def test_records_of_version_1_are_read_with_nulls_for_what_came_later(old, caplog):
    row = old.cells().iloc[0]
    assert row["schema_version"] == 1 and row["fid"] == 2.5 and row["sampler"] == "dpmpp"
    added = {"noise", "workers", "attempts"}
    assert added <= set(arrow_schema("cells").names) - set(pq.read_schema(next(V1.glob("cells/*"))).names)
    assert row[list(added)].isna().all()
    assert old.images(["image_index", "image_sha256"])["image_sha256"].isna().all() and len(old.images()) == 2
    assert list(old.timings(["steps"])["steps"][0]) == [0.1, 0.2]
    assert not caplog.records


def test_records_of_version_1_are_compacted_with_new_ones(old):
    old.write(cell(1, fid=4.0, noise="brownian"), images(3))
    assert compact(old) == 2
    rows = old.cells().set_index("cell_id")
    assert sorted(rows["schema_version"]) == [1, SCHEMA_VERSION] and sorted(rows["fid"]) == [2.5, 4.0]
    assert rows["noise"].isna().sum() == 1 and len(old.images()) == 5 and len(old.timings()) == 1


def newer(path: Path, column: str, values: pa.Array) -> None:
    """The file as a later version would have written it: one more column, or one of another type."""
    table = pq.read_table(path)
    if column in table.column_names:
        table = table.drop_columns([column])
    table = table.append_column(column, values)
    pq.write_table(table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION + 1)}), path)


def test_columns_of_a_newer_version_are_kept_and_said_once(tmp_path, caplog):
    store = Store(tmp_path)
    for number in (1, 2, 3):
        store.write(cell(number), images(1))
    for number in (1, 2):
        newer(tmp_path / "cells" / f"{cell_id(number)}.parquet", "sharpness", pa.array([0.5]))
    frame = store.cells()
    assert len(frame) == 3 and frame["sharpness"].notna().sum() == 2
    (said,) = caplog.records
    assert f"schema version {SCHEMA_VERSION + 1}" in said.getMessage() and "sharpness" in said.getMessage()
    compact(store)
    assert store.cells()["sharpness"].notna().sum() == 2, "compaction drops no column"


def test_a_newer_file_that_cannot_be_read_here_is_left_alone(tmp_path, caplog):
    store = Store(tmp_path)
    store.write(cell(1))
    path = tmp_path / "cells" / f"{cell_id(1)}.parquet"
    newer(path, "steps", pa.array(["twenty"]))
    assert store.cells().empty and path.exists() and not (tmp_path / "quarantine").exists()
    assert "newer version" in caplog.records[-1].getMessage()


# ------------------------------------------------------------------------------------------------------ compaction


def fill(root: Path, count: int = 6) -> Store:
    store = Store(root)
    for number in range(count):
        timings = [{"run": run, "total_s": 0.5} for run in range(2)]
        values = {"fid": float(number), "n_images": 3, "ended_at": 1_900_000_000_000 + number}
        store.write(cell(number, **values), images(3), timings if number % 2 else [])
    return store


def everything(store: Store) -> list[pd.DataFrame]:
    frames = [
        store.cells().sort_values("cell_id"),
        store.images().sort_values(["cell_id", "image_index"]),
        store.timings().sort_values(["cell_id", "run"]),
    ]
    return [frame.reset_index(drop=True) for frame in frames]


def equal(one: list[pd.DataFrame], other: list[pd.DataFrame]) -> bool:
    return all(a.equals(b) for a, b in zip(one, other, strict=True))


def test_compaction_changes_no_row_and_leaves_one_file_a_table(tmp_path):
    store = fill(tmp_path)
    before = everything(store)
    assert compact(store) == 6 and equal(everything(store), before)
    assert [len(list((tmp_path / table).iterdir())) for table in TABLES] == [1, 1, 1]
    assert len(pd.read_parquet(tmp_path / "cells")) == 6
    assert compact(store) == 0 and equal(everything(Store(tmp_path)), before)
    assert store.rows([cell_id(3)])[0]["fid"] == 3.0 and len(store.images(None, [cell_id(3), cell_id(4)])) == 6
    assert len(store.images(["prompt"], [cell_id(5)])) == 3 and store.images(None, [cell_id(99)]).empty


def test_a_cell_recorded_again_after_compaction_counts_once_with_its_new_rows(tmp_path):
    store = fill(tmp_path)
    compact(store)
    store.write(cell(2, fid=99.0), images(1))
    store.write(cell(3, status="failed", error="gone"))
    for _ in range(2):
        assert store.recorded()[cell_id(3)] == "failed" and store.rows([cell_id(2)])[0]["fid"] == 99.0
        counts = store.images(["cell_id"])["cell_id"].value_counts()
        assert counts[cell_id(2)] == 1 and cell_id(3) not in counts and counts.sum() == 13
        assert cell_id(3) not in set(store.timings(["cell_id"])["cell_id"])
        assert len(store.cells()) == 6
        compact(store)


def test_of_two_files_of_many_the_newer_row_counts(tmp_path):
    """Results of two machines, put into one folder."""
    for name, fid, ended in (("theirs", 1.0, 2_000), ("ours", 2.0, 1_000)):
        store = Store(tmp_path / name)
        store.write(cell(1, fid=fid, ended_at=ended), images(2 if name == "ours" else 4))
        compact(store)
        for table in ("cells", "images"):
            (tmp_path / "all" / table).mkdir(parents=True, exist_ok=True)
            (path,) = (tmp_path / name / table).iterdir()
            path.rename(tmp_path / "all" / table / f"{name}.parquet")
    store = Store(tmp_path / "all")
    assert store.cells()["fid"].tolist() == [1.0] and len(store.images()) == 4
    compact(store)
    assert store.cells()["fid"].tolist() == [1.0] and len(store.images()) == 4


class Killed(Exception):
    """In the place of SIGKILL: raised at a step of the file system, after which nothing more is done to it."""


def killed_at(step: int, monkeypatch, work) -> bool:
    """Run `work`, dying before its `step`-th change of a name; False where it made fewer."""
    made = 0

    def counted(original):
        def change(*args, **kwargs):
            nonlocal made
            if made >= step:
                made += 1
                raise Killed
            made += 1
            return original(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before_that", ["loose files only", "files of many as well"])
def test_a_compaction_killed_at_any_step_loses_and_doubles_nothing(tmp_path, monkeypatch, before_that):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing here loses power
    step = 0
    while True:
        folder = tmp_path / str(step)
        store = fill(folder, 3)
        if before_that == "files of many as well":
            compact(store)
            store.write(cell(2, fid=22.0, n_images=3, ended_at=1_900_000_009_000), images(3))
            store.write(cell(7, fid=7.0, n_images=3, ended_at=1_900_000_009_000), images(3), [{"run": 0}])
        expected = everything(store)
        killed = killed_at(step, monkeypatch, lambda store=store: compact(store))
        assert equal(everything(Store(folder)), expected), step
        compact(Store(folder))
        assert equal(everything(Store(folder)), expected), step
        assert [len(list((folder / table).glob("*.parquet"))) for table in TABLES] == [1, 1, 1], step
        if not killed:
            break
        step += 1
    assert step > 10


def test_a_write_killed_at_any_step_leaves_the_old_record_or_the_new_one_or_none(tmp_path, monkeypatch):
    for step in range(12):
        store = fill(tmp_path / str(step), 2)
        killed = killed_at(step, monkeypatch, lambda store=store: store.write(cell(1, fid=50.0), images(1), []))
        fid = {row["cell_id"]: row["fid"] for row in store.rows([cell_id(0), cell_id(1)])}
        counts = store.images(["cell_id"])["cell_id"].value_counts()
        assert fid[cell_id(0)] == 0.0 and counts[cell_id(0)] == 3
        assert (fid.get(cell_id(1)), counts.get(cell_id(1), 0)) in ((1.0, 3), (50.0, 1), (None, 0)), step
        if not killed:
            return
    raise AssertionError("more steps than a write has")


WRITER = """
import sys
from harness.store.records import Store
store = Store(sys.argv[1])
for number in range(100, 130):
    store.write({"cell_id": f"{number:016x}", "status": "ok"}, [{"image_index": i, "prompt": "p"} for i in range(3)])
"""


def test_compactions_beside_a_writer_and_a_reader_lose_nothing(tmp_path):
    store = fill(tmp_path)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT)
    seen = 0
    while writer.poll() is None:
        compact(store)
        found = Store(tmp_path).recorded()
        assert len(found) >= seen
        seen = len(found)
    assert writer.returncode == 0
    for _ in range(2):
        assert len(store.cells()) == 36 and store.cells()["cell_id"].is_unique
        assert set(store.images(["cell_id"])["cell_id"].value_counts()) == {3} and len(store.images()) == 36 * 3
        compact(store)


@pytest.mark.parametrize("table", ["cells", "images"])
def test_a_reader_that_meets_a_compaction_looks_again(tmp_path, monkeypatch, table):
    store, compacted = fill(tmp_path), []
    read = Store.read

    def late(self, path, *args):
        if path.startswith(f"{table}/") and not compacted:
            compacted.append(path)
            compact(Store(tmp_path))
        return read(self, path, *args)

    monkeypatch.setattr(Store, "read", late)
    frame = store.images() if table == "images" else store.versions()
    assert compacted and len(frame) == (18 if table == "images" else 6)


# ------------------------------------------------------------------------------------------------- damage and repair


def hurt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_record_is_restored_from_its_images(tmp_path):
    store = fill(tmp_path)
    expected = everything(store)
    hurt(tmp_path / "cells" / f"{cell_id(1)}.parquet")
    assert len(store.recorded()) == 5
    found = repair(store)
    assert (found.damaged, len(found.restored), found.lost, found.rerun) == (1, 1, [], {})
    assert equal(everything(store), expected)
    assert repair(store).damaged == 0


def test_a_lost_record_and_lost_images_are_named_and_run_again(tmp_path):
    store = fill(tmp_path)
    (tmp_path / "images" / f"{cell_id(1)}.parquet").unlink()
    hurt(tmp_path / "cells" / f"{cell_id(1)}.parquet")
    hurt(tmp_path / "images" / f"{cell_id(2)}.parquet")
    hurt(tmp_path / "timings" / f"{cell_id(3)}.parquet")
    found = repair(store)
    assert set(found.rerun) == {cell_id(1), cell_id(2)} and len(found.lost) == 3
    recorded = store.recorded()
    assert cell_id(1) not in recorded and recorded[cell_id(2)] == "failed" and recorded[cell_id(3)] == "ok"
    assert store.rows([cell_id(2)])[0]["fid"] == 2.0, "what was measured is not thrown away"


def test_damage_within_a_file_of_many_costs_that_part_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(records.GROUP_ROWS, "cells", 2)
    monkeypatch.setitem(records.GROUP_ROWS, "images", 6)
    store = fill(tmp_path)
    compact(store)
    for table, group in (("cells", 1), ("images", 2)):
        (path,) = (tmp_path / table).iterdir()
        column = pq.read_metadata(path).row_group(group).column(1)
        content = bytearray(path.read_bytes())
        start = column.dictionary_page_offset or column.data_page_offset
        content[start + 20 : start + column.total_compressed_size] = bytes(column.total_compressed_size - 20)
        path.write_bytes(content)
    found = repair(Store(tmp_path))
    assert found.damaged == 2 and len(found.restored) == 2
    assert set(found.rerun) == {cell_id(number) for number in (2, 3, 4, 5)}
    recorded = Store(tmp_path).recorded()
    assert [recorded.get(cell_id(number)) for number in range(6)] == ["ok", "ok", None, None, "failed", "failed"]
    assert set(Store(tmp_path).images(["cell_id"])["cell_id"]) == {cell_id(0), cell_id(1)}


def test_the_fast_copy_of_a_row_is_the_row(tmp_path):
    """What is read from a file's metadata is what pandas reads from its columns."""
    store = Store(tmp_path)
    row = {column.name: sample(column.kind) for column in TABLES["cells"]}
    store.write({**row, "cell_id": cell_id(1), "status": "ok", "fid": float("nan"), "kid": 0.1 + 0.2}, images(1))
    ours, theirs = store.cells(), pd.read_parquet(tmp_path / "cells")
    pd.testing.assert_frame_equal(ours, theirs)


def test_the_commands_say_what_they_did_in_clear_lines(tmp_path, capsys):
    store = fill(tmp_path)
    assert command.main(["list", str(tmp_path)]) == 0
    assert "6 cells: 6 ok, 0 failed, 0 skipped" in capsys.readouterr().out
    assert command.main(["compact", str(tmp_path)]) == 0
    assert command.main(["compact", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["6 files of one cell put together", "nothing to put together"]
    store.write(cell(9))
    hurt(tmp_path / "cells" / f"{cell_id(9)}.parquet")
    assert command.main(["repair", str(tmp_path)]) == 1
    assert f"must run again: {cell_id(9)} (its record is lost)" in capsys.readouterr().out
    assert command.main(["compact", str(tmp_path / "none")]) == 2
    assert "no records in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
