"""The store: what is written comes back, whole or not at all, whatever dies."""

from __future__ import annotations

import os
import re
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
from harness.schema import ARROW_TYPES, SCHEMA_VERSION, TABLES, arrow_schema, describe, to_arrow
from harness.store import STALE_TEMPORARY_S, Store

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
        assert all(schema.equals(arrow_schema(table), check_metadata=True) for schema in schemas), table


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
    assert not list(tmp_path.rglob(".*"))


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
from harness.store import Store
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
