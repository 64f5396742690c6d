"""Sweeps through a real Slurm of one node, disturbed in every way that a cluster knows. `-m slurm` runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_node

from harness.bench.kills import same, table
from harness.paths import ROOT
from harness.store import places
from harness.store.leases import running

pytestmark = pytest.mark.slurm
CELLS = 60
WORDS = ("--cells", str(CELLS), "--work", "0.1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    if reason := slurm_node.missing():
        pytest.skip(reason)
    with slurm_node.node(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict:
    """What the local executor records of the same cells."""
    folder = tmp_path_factory.mktemp("local")
    command = [sys.executable, "-m", "harness.bench.fake_cells", str(folder), *WORDS, "--workers", "2"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return table(folder)


class Sweep:
    """A command whose cells Slurm runs, in two pilots."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: str) -> None:
        knobs = ("--executor", "slurm", "--knob", "tasks=2", "--knob", "poll=0.3")
        command = [sys.executable, "-m", "harness.bench.fake_cells", str(folder), *WORDS, *knobs, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.folder, self.environment = folder, environment
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)

    def end(self) -> tuple[int, str]:
        """Exit code and everything that was said."""
        out, err = self.process.communicate(timeout=240)
        assert "Traceback" not in out + err, out + err
        return self.process.returncode, out + err

    @property
    def job(self) -> str:
        (path,) = self.folder.glob("jobs/*/job.json")
        return json.loads(path.read_text())["job"]

    def running(self) -> None:
        """Wait until each pilot has recorded something and more is to come."""
        until(lambda: len({one.owner.pid for one in self.leases() if one.owner}) == 2 and self.recorded() > 4)

    def leases(self) -> list:
        return running(places.at(self.folder))

    def recorded(self) -> int:
        return len(list(self.folder.glob("cells/[0-9a-f]*.parquet")))

    def slurm(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def whole(folder: Path, local: dict, said: str) -> None:
    """Every cell is recorded once, as the local executor records it, and nothing is left behind."""
    assert same(table(folder), local), said
    assert not list(folder.glob("leases/*/*")) and not list(folder.rglob(".*.tmp"))


def queued(sweep: Sweep) -> list[str]:
    return sweep.slurm("squeue", "-h", "-r", "-o", "%i %T").splitlines()


def test_a_sweep_leaves_what_the_local_executor_leaves(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster)
    code, said = sweep.end()
    assert code == 0 and f"{CELLS} cells run, 0 already recorded, 0 failed" in said
    whole(tmp_path, local, said)
    ran = [set(re.findall(r"^ok (\w+)", log.read_text(), re.M)) for log in tmp_path.glob("jobs/*/*.log")]
    assert len(ran) == 2 and not ran[0] & ran[1] and min(map(len, ran)) > CELLS / 4, "each pilot has a share"


def test_a_killed_pilot_loses_nothing(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster)
    sweep.running()
    os.kill(sweep.leases()[0].owner.pid, signal.SIGKILL)
    code, said = sweep.end()
    assert code == 0 and f"{CELLS} cells run" in said
    whole(tmp_path, local, said)


def test_a_pilot_that_is_queued_again_goes_on(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster)
    sweep.running()
    sweep.slurm("scontrol", "requeue", f"{sweep.job}_0")
    code, said = sweep.end()
    assert code == 0 and f"{CELLS} cells run" in said
    whole(tmp_path, local, said)
    until(lambda: not queued(sweep))


def test_a_cancelled_job_is_submitted_again_and_the_same_command_resumes_an_interrupted_one(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster)
    sweep.running()
    sweep.slurm("scancel", sweep.job)
    until(lambda: len(list(tmp_path.glob("jobs/*/job.json"))) == 2)
    os.killpg(sweep.process.pid, signal.SIGINT)
    code, said = sweep.end()
    assert code == 130 and "goes on from here" in said
    until(lambda: not queued(sweep))
    assert not sweep.leases() and 0 < sweep.recorded() < CELLS
    before = sweep.recorded()
    code, said = Sweep(tmp_path, cluster).end()
    assert code == 0 and f"{CELLS - before} cells run, {before} already recorded" in said
    whole(tmp_path, local, said)


def test_a_sweep_that_does_not_wait_is_found_again(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster, "--knob", "wait=false")
    code, said = sweep.end()
    assert code == 0 and f"{CELLS} not recorded yet" in said and "the same command says how far it is" in said
    sweep.running()
    code, said = Sweep(tmp_path, cluster, "--knob", "wait=false").end()
    assert code == 0 and f"job {sweep.job}, submitted before, has" in said and "2 running" in said
    until(lambda: sweep.recorded() == CELLS and not queued(sweep))
    whole(tmp_path, local, said)
    assert len(list(tmp_path.glob("jobs/*"))) == 1, "nothing was submitted twice"


def test_a_pilot_near_its_limit_ends_by_itself_and_enters_the_queue_again(tmp_path, cluster, local):
    sweep = Sweep(tmp_path, cluster, "--knob", "tasks=1", "--knob", "wait=false")
    assert sweep.end()[0] == 0
    until(lambda: sweep.recorded() > 2)
    sweep.slurm("scancel", "--batch", "--signal=USR1", sweep.job)  # as sbatch --signal sends it
    (log,) = tmp_path.glob("jobs/*/0.log")
    until(lambda: "is in the queue again" in log.read_text())
    assert 2 < sweep.recorded() < CELLS and not sweep.leases(), "the running cell was finished, no other begun"
    until(lambda: sweep.recorded() == CELLS and not queued(sweep))
    assert log.read_text().count("the first cell begins") == 2
    whole(tmp_path, local, log.read_text())


def test_what_slurm_refuses_is_one_line_and_nothing_is_left_in_the_queue(tmp_path, cluster):
    sweep = Sweep(tmp_path, cluster, "--knob", "partition=nowhere")
    code, said = sweep.end()
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert code == 2 and "Invalid partition" in line and not queued(sweep)


def test_pilots_that_cannot_start_are_reported_with_their_last_words(tmp_path, cluster):
    sweep = Sweep(tmp_path, cluster, "--knob", "python=/no/such/python")
    code, said = sweep.end()
    assert code == 1 and f"{CELLS} cells are not recorded" in said and "/no/such/python" in said
    assert len(list(tmp_path.glob("jobs/*"))) == 1, "what cannot work is not tried again"


def test_pilots_make_a_cell_in_parts_as_one_process_makes_it_whole(tmp_path, cluster):
    """One of two pilots is killed while both make parts of the one cell: the record is the undisturbed one's."""
    words = ("--cells", "1", "--work", "0.5", "--images", "64", "--shard-images", "4")
    whole_one = tmp_path / "whole"
    command = [sys.executable, "-m", "harness.bench.fake_cells", str(whole_one), *words]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    sweep = Sweep(tmp_path / "parts", cluster, *words)

    def makers() -> set[str]:
        return {path.name.split(".")[2] for path in (tmp_path / "parts").glob("made/*")}

    until(lambda: len(makers()) == 2)
    (parts,) = (tmp_path / "parts").glob("jobs/*/parts")
    os.kill(running(places.at(parts))[0].owner.pid, signal.SIGKILL)
    code, said = sweep.end()
    assert code == 0 and "1 cells run, 0 already recorded, 0 failed" in said
    made = [path.name.split(".")[1] for path in (tmp_path / "parts").glob("made/*")]
    assert set(map(int, made)) == set(range(0, 64, 4)) and len(made) <= 17, "but for the lost one each was made once"
    whole(tmp_path / "parts", table(whole_one), said)


def test_the_embedded_models_parts_made_by_pilots_are_its_whole_cell_bit_for_bit(tmp_path, cluster):
    words = ["steps=2", "n_images=32", "batch_size=8", "reference_count=64", "metrics=[fid,clip_score]", "timing=off"]
    words += ["device=cpu", "threads=1", "plots=false"]
    slurm = ["executor=slurm", "executor.tasks=2", "executor.poll=0.5", "shard_images=8"]
    tables = {}
    for name, more in (("whole", []), ("parts", slurm)):
        command = [sys.executable, "-m", "harness.sweep", *words, *more, f"results_dir={tmp_path / name}"]
        done = subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        tables[name] = table(tmp_path / name)
    cells, images = (
        [
            column
            for column in tables["whole"][kind]
            if not tables["whole"][kind][column].equals(tables["parts"][kind][column])
        ]
        for kind in ("cells", "images")
    )
    assert not images and set(cells) <= {*MEASURED, "attempts", "workers", "started_at", "ended_at"}, (cells, images)


# What is measured of the machine, and differs from run to run in one process as well.
MEASURED = ("load_s", "cell_s", "quality_s", "images_per_s", "load_average", "peak_memory_mib", "process_peak_mib")
