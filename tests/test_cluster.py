"""What a sweep on a cluster is without one: its knobs, its cells, its job's folder, its pilots as plain processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bench.fake_cells import SESSION, FakeSession, cell
from harness.bench.kills import same, table
from harness.cell import Cell
from harness.errors import InputError
from harness.executors.base import Part, Work
from harness.executors.load import named
from harness.executors.parts import SharedParts
from harness.executors.slurm import job as jobs
from harness.executors.slurm import queue
from harness.executors.slurm.options import Options
from harness.paths import ROOT
from harness.store.records import Store
from harness.sweep import status
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.pilot import left

QUICK = ("model=gmm", "metrics=[]", "steps=3")


def options(**changes) -> Options:
    return Options.of(named("slurm", **changes))


def job(folder: Path, count: int, before=None, shard_images=None, of=cell, **changes) -> jobs.Job:
    store = Store(folder)
    store.check_writable()
    cells = [of(seed) for seed in range(count)]
    work = Work(store, cells, before or {}, session=SESSION, shard_images=shard_images)
    return jobs.written(work, cells, options(**changes))


def pilot(made: jobs.Job, task: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}
    return subprocess.Popen(["bash", made.folder / "job.sh"], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("knob", "given", "said"),
    [
        ("tasks", 0, "from 1 to 100,000"),
        ("cpus", 1.5, "whole number"),
        ("partition", "a\nb", "the name of a partition"),
        ("time", True, "as in 2:00:00"),
        ("extra", ["--exclusive"], "'--qos=long --exclusive'"),
        ("extra", "--comment='a", "'--qos=long --exclusive'"),
        ("setup", [1], "[module load cuda]"),
        ("gres", "gpu:a100:4", "executor.tasks=4 times"),
        ("end_before", 5, "from 20 to"),
        ("wait", "no", "true or false"),
    ],
)
def test_a_knob_that_cannot_be_is_one_line(knob, given, said):
    with pytest.raises(InputError, match=f"executor.{knob}=") as caught:
        options(**{knob: given})
    assert said in str(caught.value)


def test_what_is_not_given_is_left_to_the_cluster():
    words = options(time="2:00:00", gres="gpu:1", extra="--qos=long --comment='a b'").words()
    own = ["--time=2:00:00", "--gres=gpu:1", "--cpus-per-task=1", "--signal=B:USR1@120"]
    assert words == [*own, "--qos=long", "--comment=a b"]


def test_who_runs_a_cell_is_in_no_id_and_its_machine_is_not_this_one():
    (here,) = enumerate_cells([*QUICK, "device=cpu", "threads=3"]).cells
    (there,) = enumerate_cells([*QUICK, "device=cpu", "executor=slurm", "executor.cpus=6", "workers=2"]).cells
    assert there == here
    (gpu,) = enumerate_cells([*QUICK, "device=cuda", "executor=slurm"]).cells.values()
    assert (gpu.device, gpu.threads) == ("cuda", None)
    for word in ("device=auto", "device=cuda:1", "device=mps"):
        with pytest.raises(InputError, match="other machines than this one; give device=cuda"):
            enumerate_cells([*QUICK, "executor=slurm", word])


def test_every_knob_can_be_given_on_a_command_line():
    words = ["executor.time=2:00:00", "executor.extra='--qos=long --exclusive'", "executor.wait=false"]
    words += ["executor.setup=[module load cuda]", 'executor.python="apptainer exec --nv harness.sif python"']
    asked = enumerate_cells([*QUICK, "device=cpu", "executor=slurm", "executor.gres=gpu:1", *words])
    given = Options.of(asked.settings.executor)
    assert given.words()[-2:] == ["--qos=long", "--exclusive"] and given.time == "2:00:00" and not given.wait
    assert given.setup == ("module load cuda",) and given.python == "apptainer exec --nv harness.sif python"


def test_a_machine_without_slurm_says_so_before_anything_runs(tmp_path):
    words = [*QUICK, "executor=slurm", "device=cpu", f"results_dir={tmp_path / 'results'}"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.sweep", *words], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PATH": ""},
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: executor=slurm needs sbatch, squeue, scancel")
    assert not (tmp_path / "results").exists() and not done.stdout


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    for program in queue.PROGRAMS:
        (tmp_path / program).write_text(
            "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n"
        )
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    queue.check_installed()
    with pytest.raises(InputError, match=r"the cluster does not answer .*Unable to contact slurm controller"):
        queue.check_reachable()


def test_the_queue_counts_our_pilots_alone(tmp_path, monkeypatch):
    lines = "7|0|RUNNING|None|n1|harness-a\n7|1|PENDING|Priority||harness-a\n8|N/A|RUNNING|None|n1|other|odd\n"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat <<'E'\n{lines}E\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tasks = queue.tasks()
    assert [(task.job, task.index, task.node) for task in tasks] == [("7", "0", "n1"), ("7", "1", "")]
    assert queue.said(tasks) == "1 pending (Priority), 1 running"


def test_a_job_remembers_its_cells_and_what_was_recorded_of_them(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    store.write({**cell(1).columns(), "status": "failed", "ended_at": 1.5e9})
    made = job(tmp_path, 3, before=store.versions())
    assert made.cells() == [cell(seed) for seed in range(3)]
    assert made.before == store.versions() and len(made.asked) == 3
    assert left(made.cells(), made.asked, store) == made.cells(), "what failed before is to be run"
    store.write({**cell(1).columns(), "status": "failed", "ended_at": 1.6e9})
    assert left(made.cells(), made.asked, store) == [cell(0), cell(2)], "what failed in this job is not"


def test_a_node_starts_what_is_asked_for(tmp_path):
    made = job(tmp_path, 1, setup=["export GREETING='good day'"], python="bash -c 'echo \"$GREETING $0 $@\"'")
    said = subprocess.run(["bash", made.folder / "job.sh"], capture_output=True, text=True, check=True).stdout
    assert said == f"good day -m {jobs.PILOT} {made.folder}\n"
    assert shlex.quote(sys.executable) in (job(tmp_path, 1).folder / "job.sh").read_text()


def test_pilots_share_the_work_and_record_what_one_sweep_does(tmp_path):
    made = job(tmp_path / "two", 12, tasks=2)
    pilots = [pilot(made, task) for task in range(2)]
    said = [one.communicate(timeout=300)[0] for one in pilots]
    assert [one.returncode for one in pilots] == [0, 0], said
    subprocess.run(
        [sys.executable, "-m", "harness.bench.fake_cells", str(tmp_path / "one"), "--cells", "12"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    assert same(table(tmp_path / "two"), table(tmp_path / "one"))
    ran = [[line.split()[1] for line in text.splitlines() if line.startswith("ok ")] for text in said]
    assert len(ran[0]) + len(ran[1]) == 12 and not list((tmp_path / "two").glob("leases/*/*"))


def large(seed: int) -> Cell:
    """In 8 parts of half a second."""
    return cell(seed, work_s=0.5, n_images=32, batch_size=4)


def makers(folder: Path) -> dict[str, list[str]]:
    """Image → the processes that made the part which begins there."""
    found: dict[str, list[str]] = {}
    for path in folder.glob("made/*"):
        _, start, process = path.name.split(".")
        found.setdefault(start, []).append(process)
    return found


def test_pilots_make_one_cell_in_parts_and_a_lost_part_alone_is_made_again(tmp_path):
    """One of two pilots is killed while it makes its second part: the other makes that, and nothing twice."""
    made = job(tmp_path / "two", 1, shard_images=4, of=large, tasks=2)
    assert made.orders()["tasks"] == 2, "a cell in parts is work for several"
    pilots = [pilot(made, task) for task in range(2)]
    parts = made.parts
    until = time.monotonic() + 300
    while len({process for processes in makers(tmp_path / "two").values() for process in processes}) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    pilots[0].kill()
    pilots[0].wait()
    said = pilots[1].communicate(timeout=300)[0]
    assert pilots[1].returncode == 0, said
    by = makers(tmp_path / "two")
    assert sorted(map(int, by)) == [*range(0, 32, 4)], said
    assert sum(len(processes) for processes in by.values()) <= 9, "but for the lost one each was made once"
    whole = Store(tmp_path / "one")
    whole.check_writable()
    record = FakeSession(str(tmp_path / "one")).run(large(0), lambda *_: None).checked()
    whole.write(record.cell, record.images, record.timings)
    assert same(table(tmp_path / "two"), table(tmp_path / "one"))
    assert not list((tmp_path / "two").glob("leases/*/*")) and not parts.names("")


def test_a_part_that_fails_fails_the_cell_and_the_parts_of_others_are_made(tmp_path):
    bad = lambda seed: replace(large(seed), model={**large(seed).model, "fault": "nan" if seed == 0 else "none"})  # noqa: E731
    made = job(tmp_path, 2, shard_images=16, of=bad, tasks=1)
    one = pilot(made, 0)
    said = one.communicate(timeout=300)[0]
    assert one.returncode == 0, said
    rows = Store(tmp_path).cells().set_index("seed")
    assert rows["status"].to_dict() == {0: "failed", 1: "ok"} and "image 3 is bad" in rows.loc[0, "error"]
    assert sorted(makers(tmp_path)) == ["0", "16"], "of the cell that failed none was made, or asked for again"


def test_status_counts_the_parts_of_cells_that_pilots_make(tmp_path, monkeypatch):
    made = job(tmp_path, 1, shard_images=4, of=large, tasks=2)
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho '7|0|RUNNING|None|n1|{made.name}'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    parts, one = SharedParts(made.parts, 4), large(0)
    with parts.open():
        first, second, *_ = parts.cuts(one)
        assert parts.take(one, first) and parts.take(one, second) and not parts.take(one, second)
        parts.put(Part(one.cell_id, first.start, "none", b""))
        assert not parts.take(one, first), "it is there"
        assert "  of cells in parts 1 parts are there, 1 are being made" in list(status.jobs(tmp_path))
