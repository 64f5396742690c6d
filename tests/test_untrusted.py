"""Files and texts that others wrote: none of them runs code, leaves its folder, or passes for something else."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import struct
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import records
import yaml
from PIL import Image
from rich.console import Console

from harness.atomic import written_whole
from harness.bench import fake_cells
from harness.cell import Cell
from harness.compare import reproduce, two_checkouts
from harness.data import captions
from harness.data import load as data
from harness.data.folder import read_rgb
from harness.data.masks import check_masks
from harness.errors import InputError, one_line
from harness.executors.base import Progress
from harness.metrics import load as metrics
from harness.metrics.features import clip, files
from harness.models import load as models
from harness.models import locate, mixture, pickles
from harness.store import layout, upkeep
from harness.store.leases import Leases
from harness.store.parquet_files import as_parquet
from harness.store.places import Folder
from harness.store.records import Store
from harness.store.schema import to_arrow
from harness.store.tiles import load_grid, save_grid
from harness.sweep import run
from harness.sweep.choices import read as read_default
from harness.sweep.display import Display
from harness.sweep.enumerate import enumerate_cells
from harness.tasks import load as tasks
from harness.verdict import output
from harness.verdict.findings import COLUMNS, NUMBERS, REGRESSION, Report
from reports import plot, summary
from reports.gate import policy
from reports.records import groups, load
from reports.style import settings
from samplers import registry, schedules
from samplers.core.levels import DiscreteVP
from samplers.peers import load as peers
from samplers.solvers import plan_file

ROOT = Path(__file__).resolve().parents[1]
EVIL = "[red]x[/] =cmd() \x1b[31m\x9b31m $\\frac{a$ </failure> <script> | [a](javascript:b)\x00\u202e"
DEEP = "[" * 100_000


class Touch:
    """A pickle of this writes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "code-was-run"


def pickled(path: Path, marker: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Touch(marker)))
    return path


# ---------------------------------------------------------------------------------------------------- pickled weights


def model_folder(tmp_path: Path) -> Path:
    """The shipped model with links to its weights: everything that is checked before loading."""
    folder = tmp_path / "model"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir(parents=True)
        for file in (locate.EMBEDDED / part).glob("*.json"):
            (folder / part / file.name).write_bytes(file.read_bytes())
        if (folder / part / "config.json").exists():
            stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
            (folder / part / f"{stem}.safetensors").symlink_to(locate.EMBEDDED / part / f"{stem}.safetensors")
    return folder


def spec(folder: Path, **values) -> dict:
    return {"name": "diffusers", "path": str(folder), **values}


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("suffix", pickles.PICKLED)
def test_a_pickled_checkpoint_needs_the_flag(tmp_path, marker, suffix):
    folder = model_folder(tmp_path)
    assert models.check(spec(folder)) is not None
    file = pickled(tmp_path / f"one{suffix}", marker)
    with pytest.raises(InputError, match=r"can run code.*model\.allow_pickle=true"):
        models.check(spec(file, config=str(folder)))
    assert models.check(spec(file, config=str(folder), allow_pickle=True)) is not None
    assert not marker.exists()


def test_an_index_of_safetensors_cannot_name_pickles(tmp_path, marker):
    folder = model_folder(tmp_path)
    pickled(folder / "unet" / "part.bin", marker)
    for name in ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.fp16.index.json"):
        index = folder / "unet" / name
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": "part.bin"}}))
        with pytest.raises(InputError, match=r"part\.bin is a pickled checkpoint"):
            models.check(spec(folder))
        whole = "diffusion_pytorch_model.safetensors"
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": whole}}))
        assert models.check(spec(folder)) is not None


def test_weights_only_holds_for_libraries_that_ask_for_more(tmp_path, marker, monkeypatch):
    """torchvision reads backbones of LPIPS, and torch-fidelity Inception, with weights_only=False."""
    import torch

    file = pickled(tmp_path / "weights.pth", marker)
    monkeypatch.setenv(pickles.FORBIDDEN, "1")
    with pytest.raises(InputError, match="something else than weights"), pickles.weights_only():
        torch.load(file, weights_only=False)
    assert not marker.exists()
    assert os.environ[pickles.FORBIDDEN] == "1" and pickles.FORCED not in os.environ
    with suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert marker.exists()  # what was kept from happening


def test_networks_of_metrics_run_no_code(tmp_path, marker, monkeypatch):
    from harness.metrics.features.extractors import load_inception
    from harness.metrics.similarity import Lpips

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, make in (
        (files.LPIPS["squeeze"], lambda path: Lpips("squeeze", "cpu")),
        (files.INCEPTION, lambda path: load_inception(path, "cpu")),
    ):
        path = pickled(files.hub_file(name), marker)
        with pytest.raises(InputError, match="something else than weights"):
            make(path)
        assert not marker.exists()


def test_a_pickled_clip_model_needs_the_flag(tmp_path, marker, monkeypatch):
    (tmp_path / "open_clip_config.json").write_text("{}")
    pickled(tmp_path / "open_clip_pytorch_model.bin", marker)
    asked = {"name": "clip_score", "model": f"local-dir:{tmp_path}"}
    with pytest.raises(InputError, match="pickled checkpoint"):
        metrics.check([asked])
    metrics.check([{**asked, "allow_pickle": True}])
    with pytest.raises(InputError, match="true or false"):
        metrics.check([{**asked, "allow_pickle": "no"}])
    file = pickled(tmp_path / ".cache" / "clip" / "ViT-B-32.pt", marker)
    for pretrained in ("openai", str(file)):  # a tag's file, and a file
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given: None)
        with pytest.raises(InputError, match="pickled checkpoint"):
            clip.load("ViT-B-32", pretrained, "cpu", allow_pickle=False)
    assert not marker.exists()


def test_a_part_of_a_cell_runs_nothing(marker):
    """Parts lie in files of a results folder, which may come from anybody."""
    import torch

    from harness.measure import parcel

    left = ({"fid": 1.0, "at": np.float64(2)}, torch.arange(3), np.arange(2))
    back = parcel.unpacked(parcel.packed(left))
    assert back[0] == left[0] and torch.equal(back[1], left[1]) and (back[2] == left[2]).all()
    with pytest.raises(pickle.UnpicklingError):
        parcel.unpacked(parcel.packed(Touch(marker)))
    assert not marker.exists()


def test_no_file_of_ours_unpickles_or_trusts_remote_code():
    """torch.load says weights_only=True where it stands, numpy never says allow_pickle; nobody else reads pickles."""
    for path in (p for top in ("harness", "samplers", "reports") for p in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                allowed = {"pickle"} if path.name == "pickles.py" else set()
                assert not {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"} & set(names) - allowed, path
            if not isinstance(node, ast.Call):
                continue
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            where = f"{path.relative_to(ROOT)}:{node.lineno}: {called}"
            assert given.get("trust_remote_code", "False") == "False", where
            assert given.get("allow_pickle", "False") == "False" or path.parts[-2] in ("metrics", "models"), where
            assert given.get("shell", "False") == "False" and called not in ("os.system", "os.popen"), where
            assert called not in ("eval", "exec", "pd.read_pickle", "torch.jit.load", "torch.hub.load"), where
            assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "hydra.utils.instantiate"), where
            if called == "torch.load":
                assert given.get("weights_only") == "True", where
            if path.name != "table_files.py":  # there it is done, and tests/test_compare_report.py holds it
                assert not called.endswith(".to_csv") and called != "csv.writer", f"{where}: neutralise formulas first"
            assert not called.endswith(".to_html"), f"{where}: escape what it writes"


# --------------------------------------------------------------------------------------- names, configs, command lines


def test_the_index_of_a_pipeline_imports_nothing_of_others(tmp_path, marker):
    from safetensors.numpy import save_file

    folder, file = model_folder(tmp_path), tmp_path / "one.safetensors"
    unet = "model.diffusion_model.input_blocks.0.0.weight"
    names = (unet, "first_stage_model.x", "cond_stage_model.x")
    save_file({name: np.zeros((1, 4), np.float32) for name in names}, file)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["evil", "Model"]}')
    with pytest.raises(InputError, match="unet is of 'evil'; valid: diffusers, transformers"):
        models.check(spec(file, config=str(folder)))
    (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"], "x": [null, null]}')
    assert models.check(spec(file, config=str(folder))) is not None


def test_the_configuration_of_a_model_names_no_code_to_fetch(tmp_path):
    folder = model_folder(tmp_path)
    change(folder / "text_encoder" / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(InputError, match="names code"):
        models.check(spec(folder))
    change(folder / "text_encoder" / "config.json", attn_implementation="sdpa")
    assert models.check(spec(folder)) is not None
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(InputError, match="holds an adapter"):
        models.check(spec(folder))


@pytest.mark.parametrize("content", ("[]", "3", DEEP, '{"in_channels": "many"}', '{"sample_size": {"a": 1}}', "\udcff"))
def test_a_configuration_that_is_none_is_one_line(tmp_path, content):
    folder = model_folder(tmp_path)
    (folder / "unet" / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError):
        models.check(spec(folder))


@pytest.mark.parametrize("value", (10**12, "1e9", -5, True))
def test_a_training_schedule_of_absurd_length_is_refused(tmp_path, value):
    for kind in ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler"):
        folder = model_folder(tmp_path / kind)
        change(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=value, _class_name=kind)
        with pytest.raises(InputError, match="num_train_timesteps"):
            models.process(spec(folder))


@pytest.mark.parametrize("content", (b"\xff" * 16, (2**40).to_bytes(8, "little") + b"{}", b"\2" + bytes(7) + b"[]"))
def test_a_false_safetensors_header_is_one_line(tmp_path, content):
    (tmp_path / "one.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable \.safetensors"):
        locate.safetensors_shapes(tmp_path / "one.safetensors")


PYTHON_YAML = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{}']]\n"


def test_yaml_makes_plain_values_only(tmp_path, marker):
    file = tmp_path / "evil.yaml"
    file.write_text(PYTHON_YAML.format(marker))
    for read in (
        lambda: mixture._from_file(file),
        lambda: policy.load(str(file)),
        lambda: two_checkouts.Limits.load(file),
    ):
        with pytest.raises((InputError, yaml.YAMLError)):
            read()
    assert not marker.exists()


def test_a_mixture_that_grows_when_read_is_refused(tmp_path):
    laughs = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{one}: &{one} [*{other}, *{other}, *{other}, *{other}, *{other}, *{other}, *{other}, *{other}]\n"
        for other, one in zip("abcdefgh", "bcdefghi", strict=True)
    )
    huge = "1" + "0" * 400
    for text in (laughs + "means: *i", DEEP, f"{{means: [[{huge}]], stds: [1], weights: [1]}}"):
        (tmp_path / "mixture.yaml").write_text(text)
        with pytest.raises(InputError, match=r"mixture\.yaml"):
            mixture._from_file(tmp_path / "mixture.yaml")


OUTSIDE = ("../levels", "peers.diffusers", "os", "registry", "__init__", "/etc/passwd", "..", "dpmpp\n")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_become_modules_of_ours_alone(name):
    before = set(sys.modules)
    with pytest.raises(ValueError, match="unknown solver"):
        registry.capabilities({"name": "x", "solver": name}, 5)
    for read in (
        lambda: registry.load(name),
        lambda: metrics.check([name]),
        lambda: tasks.load({"name": name}),
        lambda: data.check({"name": name}),
        lambda: models.named(name),
        lambda: peers.load(name),
        lambda: schedules.build(name, DiscreteVP.scaled_linear(), 5),
        lambda: read_default("schedule", name),
    ):
        with pytest.raises(ValueError):
            read()
    assert not {module for module in set(sys.modules) - before if "evil" in module}


def test_a_default_cannot_lead_out_of_conf(tmp_path):
    (tmp_path / "evil.yaml").write_text("name: karras")
    up = os.path.relpath(tmp_path / "evil", ROOT / "conf" / "schedule")
    for kind in ("schedule", "data"):
        with pytest.raises(InputError, match=f"{kind}=.* is unknown; "):
            read_default(kind, up)


EVIL_MODULE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.mark.parametrize(
    "words",
    (
        ["++hydra.callbacks.x._target_=evil_module.run"],
        ["hydra.callbacks={x:{_target_:evil_module.run}}"],
        ["+hydra.job_logging.handlers.x.class=evil_module.run"],
        ["hydra.searchpath=[file:///tmp]"],
        ["hydra/launcher=basic", "hydra.launcher._target_=evil_module.run"],
        ["--config-path", "/tmp"],
        ["--config-dir=/tmp"],
        ["-cp", "/tmp"],
        ["-cn=evil"],
        ["--exp", "/tmp/config.pickle"],
    ),
)
def test_hydra_is_given_no_code_to_run(tmp_path, marker, monkeypatch, words):
    (tmp_path / "evil_module.py").write_text(EVIL_MODULE.format(str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep", *words, "steps=0"])
    with pytest.raises(InputError, match="is not taken"):
        enumerate_cells([*words, "steps=0"])
    assert not marker.exists()


def test_a_commit_is_no_option_and_no_shell_word(marker):
    for ref in (f"--output={marker}", f"$(touch {marker})", f"; touch {marker}", "-h", "--help"):
        with pytest.raises(InputError, match="is not a commit"), two_checkouts.checkout(ref, marker.parent / "base"):
            pass
    assert not marker.exists() and not (marker.parent / "base").exists()


# ------------------------------------------------------------------------------------------------ the results folder


def test_a_record_cannot_ask_for_pickles_when_it_is_run_again(tmp_path, capsys):
    base = fake_cells.cell(0, work_s=0)
    asking = Cell(**{**base.__dict__, "model": {**base.model, "path": f"/x/{EVIL}.ckpt", "allow_pickle": True}})
    changed = Cell(**{**base.__dict__, "model": {**base.model, "path": "/x/other"}})
    store = Store(tmp_path)
    store.write({**asking.columns(), "status": "ok"})
    store.write({**base.columns(), "status": "ok", "cell": changed.canonical()})
    for cell_id, said in ((asking.cell_id, "say --allow-pickle"), (base.cell_id, "was changed after")):
        assert reproduce.main([cell_id, "--results", str(tmp_path)], session="harness.bench.fake_cells:Nothing") == 2
        error = capsys.readouterr().err
        assert said in error and "\x1b" not in error and error.count("\n") == 1
    row = {"cell_id": asking.cell_id, "cell": asking.canonical()}
    assert reproduce.cell_of(row, allow_pickle=True) == asking
    for text in (DEEP, "3", '{"metrics": 1}'):
        with pytest.raises(InputError, match="cannot be read"):
            reproduce.cell_of({**row, "cell": text, "schema_version": 1, "git_commit": None})


IDS = ("../../etc/passwd", "/etc/passwd", "..", "A" * 16, "0" * 16 + "\n", "", "*")


def test_cell_ids_are_names_of_files_in_the_folder(tmp_path):
    store = Store(tmp_path / "results")
    for cell_id in IDS:
        with pytest.raises(ValueError, match="16 hexadecimal"):
            layout.grid(cell_id)
        with pytest.raises(ValueError, match="16 hexadecimal"):
            store.write({"cell_id": cell_id, "status": "ok"})
    assert not list(tmp_path.iterdir())


def test_a_file_of_many_cells_with_a_false_id_is_set_aside(tmp_path, caplog):
    store = Store(tmp_path)
    (tmp_path / "cells").mkdir()
    for k, cell_id in enumerate(IDS[:3]):
        table = to_arrow("cells", [{**records.cell_row(), "cell_id": cell_id, "schema_version": 2}])
        (tmp_path / "cells" / f"compacted-{k:06d}.parquet").write_bytes(as_parquet(table))
    assert store.recorded() == {} and len(list((tmp_path / "quarantine").iterdir())) == 3
    with pytest.raises(InputError, match="no records"):
        plot.report(tmp_path, tmp_path / "plots", ["png"], Console(file=io.StringIO()))


def test_the_rows_of_a_cell_s_own_file_are_its_own(tmp_path, caplog):
    """Else whoever may add a file to the folder could change the values of any other cell."""
    store = Store(tmp_path)
    mine, other = records.cell_row(steps=5), records.cell_row(steps=10)
    records.write(store, mine, pictures=False)
    for name in ("cells", "images"):
        rows = [{"cell_id": other["cell_id"], "schema_version": 2}]
        rows = [{**other, **rows[0]}] if name == "cells" else [{**rows[0], "image_index": 0, "prompt": "smuggled"}]
        path = tmp_path / name / f"{mine['cell_id']}.parquet"
        path.write_bytes(as_parquet(to_arrow(name, rows)))
    assert "smuggled" not in set(store.images()["prompt"]) and store.rows([other["cell_id"]]) == []
    assert store.recorded() == {}
    assert "its rows are of another cell" in caplog.text


@pytest.mark.parametrize("copy", (DEEP, "[]", '{"schema_version": 2}', '{"steps": "many", "schema_version": 2}'))
def test_a_false_copy_of_a_row_costs_nothing(tmp_path, copy):
    store = Store(tmp_path)
    rows = [records.cell_row(steps=steps) for steps in (5, 10)]
    for row in rows:
        records.write(store, row, pictures=False)
    path = tmp_path / "cells" / f"{rows[0]['cell_id']}.parquet"
    if copy.startswith("{"):
        copy = json.dumps({"cell_id": rows[0]["cell_id"], **json.loads(copy)})
    table = pq.read_table(path)
    path.write_bytes(as_parquet(table.replace_schema_metadata({"schema_version": "2"}), {"cell_row": copy}))
    assert store.rows([row["cell_id"] for row in rows])[1]["steps"] == 10
    assert len(store.cells()) == 2


def test_a_repair_writes_where_records_belong(tmp_path):
    store = Store(tmp_path / "results")
    folder = tmp_path / "results" / "quarantine"
    folder.mkdir(parents=True)
    (tmp_path / "results" / "cells").mkdir()
    for name in ("..-evil", "-evil", "grids-" + "0" * 16, f"\x1b[31mcells-{'0' * 16}"):
        (folder / f"{name}.parquet").write_bytes(as_parquet(to_arrow("cells", [records.cell_row()])))
    before = sorted(tmp_path.rglob("*"))
    assert upkeep.repair(store).restored == [] and sorted(tmp_path.rglob("*")) == before


def test_links_under_names_that_can_be_guessed_are_not_followed(tmp_path):
    """In a folder that others may write to: temporaries and the lock."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    results = tmp_path / "results"
    row = records.cell_row()
    for table in ("cells", "images", "grids"):
        (results / table).mkdir(parents=True)
    links = [results / table / f".{row['cell_id']}.{os.getpid()}.tmp" for table in ("cells", "images")]
    links += [results / "cells" / f".probe-{os.getpid()}.tmp", results / "grids" / f".x.png.{os.getpid()}.tmp"]
    for link in links:
        link.symlink_to(victim)
    store = Store(results)
    store.check_writable()
    store.write(row, [{"image_index": 0}])
    with written_whole(results / "grids" / "x.png") as file:
        file.write(b"grid")
    assert victim.read_text() == "precious" and store.recorded() == {row["cell_id"]: "ok"}
    (results / ".lock").unlink()
    (results / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(InputError, match="cannot write"):
        store.write(row)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "content", (DEEP, "[]", '{"pid": "x"}', '{"pid": -1}', '{"pid": 1e400}', '{"pid": 99999999999}', '{"host": []}')
)
def test_a_false_lease_stops_no_sweep(tmp_path, content):
    mine = vars(Leases(tmp_path).owner)
    (tmp_path / "leases" / "00").mkdir(parents=True)
    if content.startswith("{"):
        content = json.dumps({**mine, **json.loads(content)})
    (tmp_path / "leases" / "00" / f"{'0' * 16}.0.json").write_text(content)
    with Leases(tmp_path) as leases:
        assert not leases.take("0" * 16)  # its age decides
        assert leases.other("0" * 16) is None
        assert leases.take("1" * 16)


# ------------------------------------------------------------------------------------------- plans, schedules, images


def plan_text(**values) -> str:
    return json.dumps({**json.loads((ROOT / plan_file.EXAMPLE).read_text()), **values})


@pytest.mark.parametrize(
    "text",
    (
        DEEP,
        "[1, 2]",
        plan_text(process=[["kind", "x"]]),
        plan_text(process={"kind": "DiscreteVP", "train_steps": 1000, "ratios": ["a", "b", "c"]}),
        plan_text(start=[10**400, 1, 1]),
        plan_text(start=[1.0, 1.0]),
        plan_text(levels={name: [1e999, 0.5] for name in ("alpha", "sigma", "time")}).replace("Infinity", "1e999"),
        plan_text(stages=[]),
        plan_text(capabilities={"order": "x", "nfe": [], "stochastic": "no"}),
    ),
)
def test_a_false_plan_is_one_line(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    asked = {"name": "plan", "solver": "plan_file", "file": str(file)}
    with pytest.raises(ValueError) as caught:
        levels = schedules.build("file", DiscreteVP.scaled_linear(), 1, file=str(file))
        registry.build_plan(registry.settled(asked), levels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", (DEEP, "[]", '{"ratios": [2, NaN, 0], "cost": []}', json.dumps({"ratios": [*range(60_000)], "cost": []}))
)
def test_a_false_trajectory_is_one_line(tmp_path, text):
    (tmp_path / "gits.json").write_text(text)
    with pytest.raises(ValueError, match="gits"):
        schedules.build("gits", DiscreteVP.scaled_linear(), 5, file=str(tmp_path / "gits.json"))


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be so large: a few bytes that would be gigabytes of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def images_that_are_none(folder: Path) -> list[Path]:
    whole_png = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole_png, "PNG")
    contents = {
        "bomb": png_of(60_000, 60_000),
        "large": png_of(9_000, 9_000),  # below the size where Pillow does more than warn
        "short": whole_png.getvalue()[:500],
        "empty": b"",
        "text": b"no picture",
        "foreign": b"P6 8 8 255 " + bytes(192),  # a valid picture of a format that nobody asked for
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    }
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return [folder / f"{name}.png" for name in contents]


def test_images_that_are_none_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **how: pytest.fail("another program was run"))
    for path in images_that_are_none(tmp_path):
        with pytest.raises(InputError, match=f"{path.name}.* cannot be read"):
            read_rgb(path)
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / path.name).write_bytes(path.read_bytes())
        if path.stem not in ("short",):  # whose header is whole
            with pytest.raises(InputError, match=f"{path.name}.* cannot be read"):
                check_masks(str(tmp_path / "masks"), [path])


def folder_spec(folder: Path) -> dict:
    return data.complete({"name": "folder", "path": str(folder)})


@pytest.mark.parametrize(
    "name, content, says",
    (
        ("c.csv", 'file_name,caption\n"../secret.png",x\n', "outside of"),
        ("c.csv", 'file_name,caption\n"/etc/passwd",x\n', "outside of|not in"),
        ("c.jsonl", DEEP, "cannot be read"),
        ("c.jsonl", '{"file_name": "a.png", "caption": "\\ud800"}', "not valid text"),
        ("c.json", DEEP, "not in COCO"),
        ("c.json", '{"images": [{"id": 1, "file_name": "/etc/passwd"}]}', "outside of|not in"),
        ("c.json", '{"images": [{"id": 1, "file_name": "../../../../etc/passwd"}]}', "outside of|not in"),
        ("c.json", '{"images": [{"id": 1, "file_name": 7}]}', "not in"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
    ),
)
def test_captions_name_images_of_their_folder(tmp_path, name, content, says):
    folder = tmp_path / "set"
    folder.mkdir()
    for path in (tmp_path / "secret.png", folder / "a.png"):
        Image.new("RGB", (8, 8)).save(path)
    if name.endswith(".json") and content != DEEP:
        content = json.dumps({**json.loads(content), "annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}]})
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says):
        captions.entries(folder_spec(folder))


def test_what_is_no_file_is_no_image(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    (tmp_path / "pipe.txt").write_text("a pipe")
    (tmp_path / "a.txt").write_text("a square")
    assert [entry.caption for entry in captions.entries(folder_spec(tmp_path))] == ["a square"]


def test_a_prompt_is_text_whatever_it_holds(tmp_path):
    """No prompt of a data set is interpolated, nor does it name a file."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    prompt = EVIL.replace("\x00", "") + " ${oc.env:HOME} ../../x"
    (tmp_path / "a.jsonl").write_text(json.dumps({"file_name": "a.png", "caption": prompt}))
    (entry,) = captions.entries(folder_spec(tmp_path))
    assert entry.caption == prompt


@pytest.mark.parametrize(
    "cut",
    (
        "{}", DEEP, "[]", '{"image_indices": [[]], "tile_height": 8, "tile_width": 8}',
        '{"image_indices": [0], "tile_height": "8", "tile_width": 8}', '{"image_indices": 3}',
        '{"image_indices": [0, 1], "tile_height": 8, "tile_width": 8}',
    ),
)  # fmt: skip
def test_a_false_grid_is_no_grid(tmp_path, cut):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("image-grid", cut)
    place, cell_id = Folder(tmp_path), "a" * 16
    with place.writing(layout.grid(cell_id)) as file:
        Image.new("RGB", (8, 8)).save(file, format="PNG", pnginfo=info)
    with pytest.raises(ValueError):
        load_grid(place, cell_id)
    for path in images_that_are_none(tmp_path):
        place.put(layout.grid(cell_id), path.read_bytes())
        with pytest.raises((ValueError, OSError)):
            load_grid(place, cell_id)


# ----------------------------------------------------------------------------------------------------------- outputs


def printed(say) -> str:
    """What a terminal that shows colours is sent, without the colours of our own."""
    file = io.StringIO()
    say(Console(file=file, force_terminal=False, width=400))
    return file.getvalue()


def assert_harmless(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), ascii(text)
    assert "[red]x[/]" in text


def evil_report() -> Report:
    import pandas as pd

    row = dict.fromkeys(COLUMNS, EVIL) | dict.fromkeys(NUMBERS, 1.0)
    row |= {"verdict": REGRESSION, "tier": "quality", "check": "fid"}
    return Report(pd.DataFrame([row]), [EVIL], 1)


def test_the_gate_says_foreign_text_as_text():
    report = evil_report()
    assert_harmless(printed(lambda console: output.show(report, console)))
    assert json.loads(output.as_json(report))["notes"] == [EVIL]
    case = ElementTree.fromstring(output.as_junit(report)).find("testcase")
    assert "</failure>" in case.find("failure").attrib["message"] and len(list(case)) == 1
    assert "[red]x[/]" in case.attrib["name"]
    markdown = output.as_markdown(report)
    assert "<script>" not in markdown and "](javascript" not in markdown and "\x1b" not in markdown


def test_tables_and_lines_say_foreign_text_as_text(tmp_path, monkeypatch):
    row = records.cell_row(model=EVIL, sampler_knobs={"a": EVIL}, fid_extractor=EVIL)
    other = records.cell_row(steps=10, model=EVIL, fid_extractor="x" + EVIL, sampler_knobs={"a": 1})
    store = Store(tmp_path)
    for each in (row, other):
        store.write(each)
    cells = load(tmp_path)
    assert_harmless(printed(lambda console: summary.show(cells, console)))

    shown = {**row, "task": EVIL, "sampler": EVIL, "steps": 5, "cell_id": "0" * 16, "error": EVIL}
    found = reproduce.Comparison([("hardware", EVIL, "x")], True, numbers=[("order", EVIL[:20], "1", "differs")])
    assert_harmless(printed(lambda console: reproduce.show(shown, found, console)))

    one = two_checkouts.Finding(EVIL, "time", "regression", note=EVIL)
    assert_harmless(printed(lambda console: two_checkouts._tell(console, one)))

    cell = fake_cells.cell(0, steps=5)
    evil = Cell(**{**cell.__dict__, "sampler": {"name": EVIL}, "precision": EVIL})
    said = Display([evil], Console(file=io.StringIO(), width=400))
    said.show(Progress(evil.cell_id, EVIL, 1))
    said.say(EVIL)
    assert_harmless(said.console.file.getvalue())
    barred = Display([evil], Console(file=io.StringIO(), width=400, force_terminal=True))
    barred.show(Progress(evil.cell_id, EVIL, 1))
    assert_harmless(printed(lambda console: console.print(barred.bars.progress.get_renderable())))


def test_an_error_is_one_line_without_commands_to_the_terminal(capsys):
    def fails() -> int:
        raise InputError(f"it is {EVIL}\nerror: forged")

    assert run.guarded(fails, debug=False) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert_harmless(said.rstrip("\n"))
    assert one_line("a\x1b]0;title\x07b\r\nc") == "a ]0;title b c"


def test_figures_read_no_prompt_as_a_formula_and_name_no_file_by_it(tmp_path):
    prompts = (EVIL.replace("\x00", ""), "$\\frac{a$", "$$", "\\input{/etc/passwd}", "a" * 3000)
    rows = [records.cell_row(steps=steps, model="../../" + EVIL + "m" * 300) for steps in (5, 10)]
    store = Store(tmp_path)
    images = np.zeros((len(prompts), 3, 8, 8), np.uint8)
    for k, row in enumerate(rows):
        plan_id = ("../../../etc/passwd", None)[k]
        told = [{"image_index": i, "prompt": prompt} for i, prompt in enumerate(prompts)]
        store.write({**row, "plan_id": plan_id, "fid_extractor": "$\\frac{a$"}, told)
        save_grid(images, store.place, row["cell_id"])
    out = tmp_path / "plots"
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True}), settings():
        assert not matplotlib.rcParams["text.usetex"] and not matplotlib.rcParams["text.parse_math"]
    written = plot.report(tmp_path, out, ["svg"], Console(file=io.StringIO(), width=200))
    assert any("sheet" in path.name for path in written) and {path.parent for path in written} == {out}
    assert sorted(out.iterdir()) == sorted(written)
    for path in written:
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "<script>" not in text
    (group,) = groups(load(tmp_path))
    assert re.fullmatch(r"[\w-]{1,80}", group.slug)


def test_a_false_plan_draws_no_figure(tmp_path):
    from reports.figures import coefficients

    good = json.loads((ROOT / plan_file.EXAMPLE).read_text())
    zero = {**good, "stages": [{**stage, "result": [0, 0, 0]} for stage in good["stages"]]}
    for content in (DEEP, "[]", "{}", '{"stages": [1]}', '{"stages": []}', json.dumps(zero)):
        place = Folder(tmp_path)
        place.put(layout.plan("a" * 16), content.encode())
        assert coefficients._read(place, "a" * 16) is None


def test_grids_of_other_sizes_cost_their_column_only(tmp_path):
    from reports.figures import sheet

    store = Store(tmp_path)
    for k, steps in enumerate((5, 10, 20)):
        row = records.cell_row(steps=steps)
        store.write(row, [{"image_index": 0, "prompt": "a cat"}])
        save_grid(np.zeros((1, 3, 8 + 8 * (k == 2), 8), np.uint8), store.place, row["cell_id"])
    (group,) = groups(load(tmp_path))
    with pytest.warns(UserWarning, match="another size"):
        assert sheet.draw(group, store)[0].figure is not None
