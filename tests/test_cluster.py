"""What a sweep on a cluster is without one: its knobs, its cells, its job's folder, its pilots as plain processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.bench.fake_cells import SESSION, cell
from harness.bench.kills import same, table
from harness.errors import InputError
from harness.executors.base import Work
from harness.executors.load import named
from harness.executors.slurm import job as jobs
from harness.executors.slurm import queue
from harness.executors.slurm.options import Options
from harness.paths import ROOT
from harness.store.records import Store
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.pilot import left

QUICK = ("model=gmm", "metrics=[]", "steps=3")


def options(**changes) -> Options:
    return Options.of(named("slurm", **changes))


def job(folder: Path, count: int, before=None, **changes) -> jobs.Job:
    store = Store(folder)
    store.check_writable()
    cells = [cell(seed) for seed in range(count)]
    work = Work(store, cells, before or {}, session=SESSION)
    return jobs.written(work, cells, options(**changes))


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
    pilots = [
        subprocess.Popen(
            ["bash", made.folder / "job.sh"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task)},
        )
        for task in range(2)
    ]  # fmt: skip
    said = [pilot.communicate(timeout=300)[0] for pilot in pilots]
    assert [pilot.returncode for pilot in pilots] == [0, 0], said
    subprocess.run(
        [sys.executable, "-m", "harness.bench.fake_cells", str(tmp_path / "one"), "--cells", "12"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    assert same(table(tmp_path / "two"), table(tmp_path / "one"))
    ran = [[line.split()[1] for line in text.splitlines() if line.startswith("ok ")] for text in said]
    assert len(ran[0]) + len(ran[1]) == 12 and not list((tmp_path / "two").glob("leases/*"))
