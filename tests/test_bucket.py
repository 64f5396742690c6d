"""`results_dir=s3://…` from the command line to the page, on a real S3 server in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server

from harness.bench.fake_cells import cell
from harness.bench.kills import same, table
from harness.errors import InputError
from harness.paths import ROOT
from harness.store import layout, places
from harness.store.bucket import Bucket
from harness.store.leases import running
from harness.store.records import Store

needs_server = pytest.mark.skipif(bool(s3_server.missing()), reason=s3_server.missing() or "there is one")
WORDS = ("--cells", "12", "--work", "0.02")


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server.server():
        yield


@pytest.fixture
def address(server) -> str:
    return s3_server.address()


def sweep(results: object, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harness.bench.fake_cells", str(results), *WORDS, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes)


def local(folder: Path, *words: str) -> dict:
    assert sweep(folder, *words).wait() == 0
    return table(folder)


@pytest.mark.parametrize("address", ["s3://", "s3://B/run", "s3://bucket//run", "s3://bu cket/run", "s3://ab"])
def test_an_address_that_cannot_be_is_one_line(address):
    with pytest.raises(InputError, match="as in s3://bucket/run"):
        Bucket(address)


@pytest.mark.parametrize("address", ["s3://", "gs://bucket/run", "https://host/run"])
def test_no_address_becomes_a_folder_of_its_name(address):
    """A sweep once made a folder s3: here: pathlib makes that of s3://."""
    for given in (address, Path(address)):
        with pytest.raises(InputError, match=r"is not valid: give a (bucket and a name|folder, or s3://BUCKET/RUN)"):
            places.at(given)


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setattr("harness.store.bucket.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package s3fs: uv sync --extra s3"):
        places.at("s3://bucket/run")


def test_what_a_path_makes_of_an_address_is_the_same_one():
    assert layout.is_remote(Path("s3://bucket/run")) and not layout.is_remote(Path("results"))
    assert layout.plots(Path("s3://bucket/a/run")) == Path("results/bucket-a-run/plots")


@needs_server
def test_a_bucket_that_is_not_there_ends_the_command_with_one_line(server):
    process = sweep("s3://nowhere-at-all/run")
    out, err = process.communicate()
    (line,) = err.splitlines()
    assert process.returncode == 2 and line.startswith("error: cannot write to results_dir=s3://nowhere-at-all/run: ")
    assert "NoSuchBucket" in line and "Traceback" not in out + err


@needs_server
def test_two_sweeps_at_once_share_the_work_and_record_what_one_does(address, tmp_path):
    both = [sweep(address), sweep(address)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    ran = [{line.split()[1] for line in out.splitlines() if line.startswith("ok ")} for out, _ in said]
    assert len(ran[0]) + len(ran[1]) == 12 and not ran[0] & ran[1]
    place = places.at(address)
    assert not place.below(layout.LEASES) and same(table(address), local(tmp_path))
    assert len(place.names(layout.GRIDS)) == 12


@needs_server
def test_a_dead_owners_cell_is_taken_over_and_the_rest_goes_on(address, tmp_path):
    first = sweep(address, "--fault", "hang:1")
    until = time.monotonic() + 300
    while not [one for one in running(places.at(address)) if one.cell_id == cell(1, "hang:1", 0.02).cell_id]:
        assert first.poll() is None and time.monotonic() < until, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    # It meets the fault, too, and its own deadline ends that: the cell was taken over, and the others were not touched.
    second = sweep(address, "--fault", "hang:1", "--timeout", "5")
    out, err = second.communicate()
    assert second.returncode == 1, out + err
    cells = Store(address).cells().set_index("cell_id")
    assert len(cells) == 12 and (cells["status"] == "ok").sum() == 11
    assert "cell_timeout" in cells.loc[cell(1, "hang:1", 0.02).cell_id, "error"]
    assert not places.at(address).below(layout.LEASES)


@needs_server
def test_a_put_whose_answer_was_lost_and_is_asked_again_is_ours(address, monkeypatch):
    place = Bucket(address)
    ask = Bucket._ask

    def twice(self, method, name, **more):
        if "IfNoneMatch" in more:
            ask(self, method, name, **more)
        return ask(self, method, name, **more)

    monkeypatch.setattr(Bucket, "_ask", twice)
    place.create("leases/x", b"me")
    with pytest.raises(FileExistsError):
        Bucket(address).create("leases/x", b"me")


@needs_server
def test_a_large_file_is_read_in_pieces(address, monkeypatch):
    store = Store(address)
    for seed in range(3):
        store.write({**cell(seed).columns(), "status": "ok"}, [{"image_index": 0}])
    monkeypatch.setattr("harness.store.bucket.AT_ONCE", 1000)
    assert len(Store(address).cells()) == 3


@needs_server
def test_reports_the_store_and_status_read_from_there(address, tmp_path):
    assert sweep(address).wait() == 0
    for command, said in (
        (["-m", "harness.store", "list", address], "12 cells: 12 ok"),
        (["-m", "harness.status", address], ""),
        (["reports/page.py", "--results", address, "--out", str(tmp_path / "page.html")], "written: "),
        (["reports/check.py", address, "--help"], "usage"),
    ):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
    nothing = subprocess.run(
        [sys.executable, "reports/page.py", "--results", f"{address}-other"], cwd=ROOT, capture_output=True, text=True
    )
    assert nothing.returncode == 2 and nothing.stderr.startswith("error: no records in s3:")
