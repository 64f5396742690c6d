"""Trackers are told of every cell as it ends, through their own libraries; whatever they do, no cell is lost by it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import math
import sys
import time
from pathlib import Path

import pytest
import records

from harness.axes import AXIS
from harness.bench.fake_cells import SESSION, cell
from harness.errors import InputError
from harness.paths import ROOT
from harness.specs import Settings
from harness.store.records import Store
from harness.store.tiles import load_grid
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.run import run
from harness.trackers import kinds, load
from harness.trackers.base import Tracker, ended
from harness.trackers.load import Tracking

# Writes a line of JSON a cell, or does what its file `behave` says.
TOY = """
import json
import time

from harness.trackers.base import Tracker


class Toy(Tracker):
    def __init__(self, folder, sweep):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.sweep = folder, sweep
        exec((folder / "behave").read_text() if (folder / "behave").exists() else "")

    def write(self, cell):
        exec((self.folder / "each").read_text() if (self.folder / "each").exists() else "")
        shown = None if cell.tiles is None else list(cell.tiles.images.shape)
        told = [cell.cell_id, cell.name, cell.status, cell.error, cell.config, cell.metrics, shown, self.sweep]
        with open(self.folder / "cells.jsonl", "a") as file:
            file.write(json.dumps(told) + "\\n")

    def close(self):
        return f"toy: {self.folder}"


TRACKER = Toy
"""


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """The folder in which the toy writes; it is a file among the kinds."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
    written = tmp_path / "results" / "trackers"
    written.mkdir(parents=True)
    yield written
    sys.modules.pop(f"{kinds.__name__}.toy", None)


def sweep(results: Path, tracker: str, cells: list) -> int:
    how = {"executor": {"name": "local"}, "workers": 1, "cell_timeout": None, "retries": 0, "shard_images": None}
    settings = Settings({"results_dir": str(results), "force": False, "debug": False, "tracker": tracker, **how})
    return run(cells, settings, session=SESSION).code


def lines(folder: Path) -> list[list]:
    path = folder / "cells.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_file_is_a_tracker_and_is_told_of_every_cell_good_or_failed(toy, capsys):
    cells = [cell(0), cell(1, "nan"), cell(2)]
    assert load.check("toy") == "toy" and "toy" in load.names()
    assert sweep(toy.parent, "toy", cells) == 1
    found = {line[0]: line for line in lines(toy)}
    assert {c.cell_id: found[c.cell_id][2] for c in cells} == Store(toy.parent).recorded()
    good, bad = found[cells[0].cell_id], found[cells[1].cell_id]
    assert good[1] == cells[0].label and good[4]["sampler"] == cells[0].sampler["name"] and good[4]["seed"] == 0
    assert bad[3] and good[7] == toy.parent.name
    assert f"toy: {toy}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "behave, each",
    [("raise RuntimeError('no disk\\nleft')", ""), ("raise SystemExit(3)", ""), ("", "1 / 0"), ("import nothing", "")],
)
def test_a_tracker_that_fails_costs_one_warning_and_no_cell(toy, capsys, behave, each):
    (toy / "behave").write_text(behave)
    (toy / "each").write_text(each)
    cells = [cell(seed) for seed in range(3)]
    assert sweep(toy.parent, "toy", cells) == 0
    assert set(Store(toy.parent).recorded().values()) == {"ok"} and len(Store(toy.parent).recorded()) == 3
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(told) == 1 and "toy failed" in told[0] and "the records are whole" in told[0]
    assert lines(toy) == []


def test_a_tracker_that_hangs_is_left(toy):
    (toy / "each").write_text("time.sleep(60)")
    began = time.monotonic()
    with Tracking("toy", Store(toy.parent).place, toy, "s", last_s=0.2) as tracking:
        tracking.write(records.cell_row(), "a cell")
    assert time.monotonic() - began < 30
    (told,) = tracking.told()
    assert told.startswith("warning: toy was not done in time") and tracking.told() == []


def test_without_a_tracker_nothing_is_written_or_said(tmp_path):
    with Tracking("none", Store(tmp_path).place, tmp_path / "trackers", "s") as tracking:
        tracking.write(records.cell_row(), "a cell")
    assert tracking.told() == [] and not (tmp_path / "trackers").exists()


def test_an_unknown_one_and_one_without_its_library_are_one_line_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown tracker 'wanbd'; did you mean 'wandb'"):
        enumerate_cells(["tracker=wanbd"])
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tracker=mlflow needs mlflow and sqlalchemy and alembic.*pip install"):
        enumerate_cells(["tracker=mlflow"])


def test_a_folder_called_like_a_library_is_none(tmp_path, monkeypatch):
    (tmp_path / "a_folder_of_runs").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("a_folder_of_runs") is not None and not load._installed("a_folder_of_runs")


def test_it_says_how_a_sweep_runs_and_not_what():
    ids = [list(enumerate_cells(["device=cpu", word]).cells) for word in ("tracker=none", "plots=true")]
    assert ids[0] == ids[1] and "tracker" not in AXIS


def test_what_a_record_holds_becomes_plain_and_finite(tmp_path):
    row = records.cell_row(model="a\nmodel\u202e" + "x" * 999, fid=math.nan, nfe=20.0)
    told = ended(row, "a\nname", None)
    assert told.name == "a name" and "\n" not in told.config["model"] and len(told.config["model"]) <= 250
    assert "fid" not in told.metrics and told.metrics["nfe"] == 20.0 and "plan" not in told.config
    assert all(isinstance(value, (bool, int, float, str)) for value in (*told.config.values(), *told.where.values()))


@pytest.mark.parametrize("path", sorted((ROOT / "harness" / "trackers").rglob("*.py")), ids=lambda path: path.stem)
def test_the_libraries_are_imported_where_they_are_used_and_torch_nowhere(path):
    tree = ast.parse(path.read_text())
    above = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    above |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in above} & {"torch", "tensorboard", "wandb", "mlflow", "sqlalchemy"}
    assert "torch" not in {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


# ------------------------------------------------------------------------------------------- with the libraries


@pytest.fixture
def recorded(tmp_path) -> tuple[Store, dict, dict]:
    """A store with a good cell and a failed one."""
    store = Store(tmp_path / "results")
    good, bad = records.cell_row("dpmpp", 20), records.cell_row("plms", 7, status="failed", error="it broke", fid=None)
    for row in (good, bad):
        records.write(store, row)
    return store, good, bad


def told_by(name: str, store: Store, rows: list[dict], folder: Path) -> list[str]:
    kind = importlib.import_module(f"{kinds.__name__}.{name}").TRACKER
    for module in kind.requires:
        pytest.importorskip(module, reason=f"no {module} here: uv sync --extra {kind.extra}")
    with Tracking(name, store.place, folder, "a sweep", last_s=300) as tracking:
        for row in rows:
            tracking.write(row, f"{row['sampler']} {row['steps']}")
    return tracking.told()


@pytest.fixture
def no_network(monkeypatch):
    """No connection but to this machine itself, where wandb's own process listens."""
    import socket

    real = socket.socket.connect

    def connect(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a connection to {address}")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.tracker
def test_tensorboard_reads_back_what_was_measured(recorded, tmp_path, no_network):
    store, good, bad = recorded
    told = told_by("tensorboard", store, [good, bad, good], tmp_path / "out")  # the same cell again replaces it
    assert told == [f"tensorboard: tensorboard --logdir {tmp_path / 'out' / 'tensorboard'}"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    run = EventAccumulator(str(tmp_path / "out" / "tensorboard" / good["cell_id"]))
    run.Reload()
    (fid,) = run.Scalars("fid")
    assert fid.value == pytest.approx(good["fid"], rel=1e-6) and run.Images("images")[0].height == 64
    content = run.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    assert hparams["sampler"].string_value == "dpmpp" and hparams["steps"].number_value == 20
    assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 2


@pytest.mark.tracker
def test_mlflow_reads_back_what_was_measured(recorded, tmp_path, no_network):
    store, good, bad = recorded
    (told,) = told_by("mlflow", store, [good, bad], tmp_path / "out")
    assert told.startswith("mlflow: mlflow ui --backend-store-uri sqlite:///")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=told.rpartition(" ")[2])
    runs = {run.data.tags["cell_id"]: run for run in client.search_runs([client.search_experiments()[0].experiment_id])}
    run = runs[good["cell_id"]]
    assert run.data.metrics["fid"] == pytest.approx(good["fid"]) and run.data.params["sampler"] == "dpmpp"
    assert run.info.status == "FINISHED" and runs[bad["cell_id"]].info.status == "FAILED"
    assert runs[bad["cell_id"]].data.tags["error"] == "it broke"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    from PIL import Image

    tiles = load_grid(store.place, good["cell_id"]).images
    with Image.open(artifacts / "images.png") as picture:
        assert picture.size == (64 * len(tiles), 64) and tmp_path in artifacts.parents


@pytest.mark.tracker
def test_wandb_writes_offline_runs(recorded, tmp_path, no_network):
    store, good, bad = recorded
    (told,) = told_by("wandb", store, [good, bad], tmp_path / "out")
    assert told.startswith("wandb: offline runs in")
    (run,) = (tmp_path / "out" / "wandb").glob(f"offline-run-*-{good['cell_id']}")
    (log,) = run.glob("*.wandb")
    assert b"clip_score" in log.read_bytes() and len(list(run.rglob("*.png"))) == len(
        load_grid(store.place, good["cell_id"]).images
    )
    assert list((tmp_path / "out" / "wandb").glob(f"offline-run-*-{bad['cell_id']}"))


def test_every_kind_is_tested_here():
    tested = {name.split("_")[1] for name in globals() if name.startswith("test_")}
    assert set(load.names()) - {"none"} <= tested
    assert all(issubclass(load._kind(name), Tracker) for name in load.names()[1:])
