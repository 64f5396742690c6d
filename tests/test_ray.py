"""Sweeps through a real Ray cluster of two nodes, disturbed in every way that a cluster knows. `-m ray` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from harness.bench.kills import VOLATILE, same, table
from harness.errors import InputError
from harness.executors.load import named
from harness.executors.ray.options import Options
from harness.paths import ROOT
from harness.store.records import Store
from harness.sweep.enumerate import enumerate_cells

CELLS = 30
ray_is_here = pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: uv sync --extra ray")
QUICK = ("model=gmm", "metrics=[]", "steps=3")


# ------------------------------------------------------------------------------------------------ without a cluster


@pytest.mark.parametrize(
    ("knob", "given", "said"),
    [
        ("actors", 0, "from 1 to 100,000"),
        ("num_gpus", 2, "from 0 to 1"),
        ("num_cpus", 0.5, "whole number"),
        ("resources", {"a100": 0}, "from 0.0001"),
        ("resources", ["a100"], "{a100: 1}"),
        ("uv", "yes", "true or false"),
    ],
)
def test_a_knob_that_cannot_be_is_one_line(knob, given, said):
    with pytest.raises(InputError, match=f"executor.{knob}") as caught:
        Options.of(named("ray", **{knob: given}))
    assert said in str(caught.value)


def test_who_runs_a_cell_is_in_no_id_and_its_machine_is_not_this_one():
    (here,) = enumerate_cells([*QUICK, "device=cpu", "threads=3"]).cells
    asked = enumerate_cells(
        [*QUICK, "device=cpu", "executor=ray", "executor.num_cpus=3", "executor.resources={a100: 1}"]
    )
    assert list(asked.cells) == [here] and Options.of(asked.settings.executor).resources == {"a100": 1}
    with pytest.raises(InputError, match="other machines than this one; give device=cuda"):
        enumerate_cells([*QUICK, "executor=ray", "device=auto"])


def sweep(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "harness.sweep", *QUICK, "executor=ray", "device=cpu", "plots=false", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


def test_without_the_package_it_says_so_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.executors.ray.options.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package ray: uv sync --extra ray"):
        Options.of(named("ray")).check_here()


@ray_is_here
@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("ray://head:10001", "ray:// cannot stream")],
)
def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, address, said):
    done = sweep(f"results_dir={tmp_path / 'results'}", RAY_ADDRESS=address)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and said in line
    assert not (tmp_path / "results").exists()


# --------------------------------------------------------------------------------------------------- two real nodes


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


ONE = {"num_cpus": 1, "include_dashboard": False}
PATIENT = {"worker_register_timeout_seconds": 300, "health_check_timeout_ms": 60_000}


class Nodes:
    """The cluster: a head and one node more, each with room for one actor."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={**ONE, "_system_config": PATIENT})
        self.second = self.cluster.add_node(**ONE)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}

    def actors(self, node=None) -> list[psutil.Process]:
        """Processes of our actors, those of one node alone where it is given."""
        roots = [node] if node else [self.cluster.head_node, *self.cluster.worker_nodes]
        found = []
        for one in roots:
            for info in one.all_processes.get("raylet", []):
                children = psutil.Process(info.process.pid).children(recursive=True)
                found += [child for child in children if alive(child) and "SweepWorker" in " ".join(child.cmdline())]
        return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from ray._private import services

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    asked = services.get_node

    def patiently(*args):
        """Ray gives a node 30 s to start, which a busy machine exceeds."""
        until = time.monotonic() + 300
        while True:
            try:
                return asked(*args)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    services.get_node = patiently
    try:
        found = Nodes()
    finally:
        services.get_node = asked
    yield found
    found.cluster.shutdown()


class Sweep:
    """A command whose cells Ray runs, one actor a node."""

    def __init__(self, folder: Path, nodes: Nodes, *words: str) -> None:
        self.folder, self.nodes = folder, nodes
        command = [sys.executable, "-m", "harness.bench.fake_cells", str(folder), "--executor", "ray", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=nodes.environment, start_new_session=True, **pipes)

    def recorded(self) -> int:
        return len(list(self.folder.glob("cells/[0-9a-f]*.parquet")))

    def comes_to(self, count: int) -> None:
        until(lambda: self.recorded() >= count or self.process.poll() is not None)
        assert self.process.poll() is None, self.end()

    def end(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=300)
        assert "Traceback" not in out + err, out + err
        return self.process.returncode, out + err


def local(folder: Path, *words: str) -> dict:
    """What the local executor records of the same cells."""
    command = [sys.executable, "-m", "harness.bench.fake_cells", str(folder), *words]
    subprocess.run(command, cwd=ROOT, capture_output=True)
    return table(folder)


@ray_is_here
@pytest.mark.ray
def test_a_sweep_loses_an_actor_a_node_and_a_cell_that_hangs_and_records_all_as_one_machine_does(tmp_path, nodes):
    words = ("--cells", str(CELLS), "--work", "0.3", "--fault", "hang", "--timeout", "4")
    sweep = Sweep(tmp_path / "ray", nodes, *words)
    sweep.comes_to(3)
    until(lambda: len(nodes.actors()) == 2)
    nodes.actors(nodes.cluster.head_node)[0].kill()
    sweep.comes_to(9)
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    code, said = sweep.end()
    assert code == 1 and said.count("trying again") in (1, 2), said  # of the hung cell's actor, killed, nothing
    assert same(table(tmp_path / "ray"), local(tmp_path / "local", *words))
    rows = Store(tmp_path / "ray").cells()
    assert sorted(rows["status"].value_counts().to_dict().items()) == [("failed", 1), ("ok", CELLS - 1)]
    assert not nodes.actors() and not list((tmp_path / "ray").glob("leases/*/*"))
    nodes.second = nodes.cluster.add_node(**ONE)


@ray_is_here
@pytest.mark.ray
def test_a_sweep_that_is_interrupted_and_killed_goes_on_and_leaves_no_actor(tmp_path, nodes):
    words = ("--cells", str(CELLS), "--work", "0.2")
    first = Sweep(tmp_path / "ray", nodes, *words)
    first.comes_to(3)
    os.killpg(first.process.pid, signal.SIGINT)
    code, said = first.end()
    assert code == 130 and "goes on from here" in said
    until(lambda: not nodes.actors())
    assert not list((tmp_path / "ray").glob("leases/*/*"))
    second = Sweep(tmp_path / "ray", nodes, *words)
    second.comes_to(first.recorded() + 3)
    second.process.kill()
    second.process.wait()
    until(lambda: not nodes.actors())
    code, said = Sweep(tmp_path / "ray", nodes, *words).end()
    assert code == 0, said
    assert same(table(tmp_path / "ray"), local(tmp_path / "local", *words))


@ray_is_here
@pytest.mark.ray
def test_the_embedded_models_cells_are_the_local_executors_bit_for_bit(tmp_path, nodes):
    words = ["sampler=dpmpp,euler", "steps=2", "n_images=8", "batch_size=4", "reference_count=16", "timing=off"]
    words += ["metrics=[fid,clip_score]", "device=cpu", "threads=1", "plots=false"]
    tables = {}
    for executor in ("ray", "local"):
        command = [sys.executable, "-m", "harness.sweep", *words, f"executor={executor}"]
        done = subprocess.run(
            [*command, f"results_dir={tmp_path / executor}"], cwd=ROOT, env=nodes.environment, text=True,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        tables[executor] = table(tmp_path / executor)
    differ = {
        name: [column for column in one if not one[column].equals(tables["local"][name][column])]
        for name, one in tables["ray"].items()
    }
    assert not differ["images"] and set(differ["cells"]) <= {*VOLATILE, *MEASURED}, differ
    for kind in ("grids", "plans"):
        one, other = ({p.name: p.read_bytes() for p in (tmp_path / e).glob(f"{kind}/*")} for e in tables)
        assert one == other and one


# What is measured of the machine, and differs from run to run on one executor as well.
MEASURED = ("load_s", "cell_s", "quality_s", "images_per_s", "load_average", "peak_memory_mib", "process_peak_mib")
