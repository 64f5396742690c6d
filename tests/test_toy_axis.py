"""The table of axes is whole, and one line in it is a new axis everywhere: no recorded id changes, nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from harness import axes
from harness.cell import Cell
from harness.store.schema import BEFORE, SCHEMA_VERSION, TABLES
from harness.sweep.commandline import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
TOY = 'Axis("{name}", {changes}, (_column("{name}", "int", "", "a toy"),), Whole(0, 9), {more})'
MORE = "default=0, since=FIRST + 1"


@pytest.fixture
def copied(tmp_path):
    """A copy of the checkout with more lines in harness/axes.py and nothing else changed, and programs run in it."""

    def made(*lines: str):
        for name in ("harness", "samplers", "reports", "conf"):
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        place = tmp_path / "harness" / "axes.py"
        text, end = place.read_text(), "\n)  # fmt: skip"
        assert text.count(end) == 1
        place.write_text(text.replace(end, "".join(f"\n    {line}," for line in lines) + end))

        def run(code: str) -> dict:
            done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout.splitlines()[-1])

        return run

    return made


def test_every_field_of_a_cell_is_an_axis_and_every_axis_says_what_it_changes():
    assert {field.name for field in fields(Cell)} == {axis.name for axis in axes.KEPT}
    assert all(axis.changes in axes.CHANGES for axis in axes.AXES)
    with pytest.raises(ValueError, match=r"axis colour: changes='paint' is not valid; valid: limit, path"):
        axes.Axis("colour", "paint", ())
    with pytest.raises(ValueError, match=r"axis colour has no check"):
        axes.Axis("colour", axes.IMAGES, (), since=axes.FIRST + 1)


def test_every_axis_that_is_asked_for_is_a_line_of_the_sweeps_file_and_the_reverse():
    conf = yaml.safe_load((ROOT / "conf" / "sweep.yaml").read_text())
    asked = {axis.name for axis in axes.AXES if axis.asked and not axis.group}
    assert asked == set(conf) - {"defaults", "hydra", *SETTINGS}


def test_an_axis_of_the_first_day_always_stands_in_the_canonical_form():
    # Those that were added since, which stand there where they are set.
    assert {axis.name for axis in axes.AXES if not axis.always_written} == {
        "adapters", "adapter_scale", "attention", "vae_slicing", "vae_tiling", "channels_last", "offload", "compile",
        "fuse_qkv", "layerwise_casting", "freeu", "step_cache", "quantization", "tf32", "pag_scale", "cfg_interval",
        "protocol",
        "classifier_scale", "classifier_fingerprint",
    }  # fmt: skip
    assert axes.written({"noise": "independent"}) == {"noise": "independent"}


def test_every_column_of_an_axis_is_one_of_the_cells_table_and_old_records_know_what_it_was():
    assert set(axes.PARTS) <= {column.name for column in TABLES["cells"]}
    later = {part.name for axis in axes.AXES if axis.since > axes.FIRST for part in axis.parts}
    assert {name: value for name, value in BEFORE.items() if name not in later} == {
        "noise": "independent", "implementation": "native",
    }  # fmt: skip
    assert later <= set(BEFORE)


def test_an_axis_is_one_line_for_cell_id_record_and_reports(copied):
    """A toy that changes the images: an id of its own where it is set, the recorded one where it is not."""
    ids = json.loads((ROOT / "tests" / "fixtures" / "cell_ids.json").read_text())
    words = ["sampler=dpmpp", "steps=20,30,50", "n_images=256", "model.default_cfg=3.0", "device=cpu", "threads=1"]
    recorded = ids["sampler=dpmpp steps=20,30,50"].split()
    run = copied(TOY.format(name="toy", changes="IMAGES", more=MORE))
    code = f"""
import json
from pathlib import Path
from dataclasses import replace
from harness.cell import Cell
from harness.store.records import Store
from harness.store.schema import SCHEMA_VERSION
from harness.sweep import commandline
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.settle import ask
from reports.gate.pairs import keys
from reports.records import groups, load

words = {words!r}
plain = list(enumerate_cells(words).cells.values())
cell = plain[0]
values = commandline.read(words).values[0]
set_ = ask({{**values, "toy": 3}})
try:
    ask({{**values, "toy": 10}})
    said = ""
except ValueError as error:
    said = str(error)
file = Path("conf/sweep.yaml")
file.write_text(file.read_text().replace("seed: 0", "seed: 0\\ntoy: 0"))
commandline._top.cache_clear()
swept = [one.toy for one in enumerate_cells(["toy=0,3", *words]).cells.values()]

store = Store("records")
for k, one in enumerate([cell, set_]):
    row = {{**one.columns(), "status": "ok", "fid": 5.0, "ended_at": 1_900_000_000_000 + k}}
    store.write(row)
old = {{name: value for name, value in row.items() if name != "toy"}}
store.write({{**old, "cell_id": "0" * 16, "steps": 50, "sampler": "euler"}})
cells = load(Path("records"))
(group,) = groups(cells)
print(json.dumps({{
    "ids": [one.cell_id for one in plain], "set": set_.cell_id, "swept": swept, "said": said,
    "stands": ["toy" in json.loads(one.canonical()) for one in (cell, set_)],
    "read": [Cell.from_canonical(one.canonical()) == one for one in (cell, set_)],
    "old": Cell.from_canonical(cell.canonical()).toy, "labels": [cell.label, set_.label],
    "version": SCHEMA_VERSION, "column": sorted(int(v) for v in cells["toy"]),
    "shown": len(group.select("steps", ["fid"], lines=False).cells),
    "keys": int(keys(cells[cells["steps"] == 20]).nunique()),
}}))
"""
    found = run(code)
    assert found["ids"] == recorded, "at its default it changes no recorded id"
    assert found["set"] not in recorded and found["stands"] == [False, True] and all(found["read"])
    assert found["old"] == 0, "text that was written before the axis existed is read at its default"
    assert found["said"] == "toy=10 is not valid: give a whole number from 0 to 9"
    assert sorted(found["swept"]) == [0, 0, 0, 3, 3, 3]
    assert found["labels"][1] == f"{found['labels'][0]} · toy 3"
    assert found["version"] == SCHEMA_VERSION >= axes.FIRST + 1
    assert found["column"] == [0, 0, 3], "a record without the column is read at the default"
    assert found["shown"] == 2, "a figure never mixes values of an axis that changes the images"
    assert found["keys"] == 2, "the gate tells such cells apart"


def test_what_an_axis_changes_says_what_depends_on_it(copied):
    """Reference runs, figures, the gate and loaded models, each asked of a toy that changes one thing."""
    run = copied(
        *(TOY.format(name=f"toy_{changes}", changes=changes.upper(), more=MORE) for changes in axes.CHANGES),
        TOY.format(name="toy_loads", changes="IMAGES", more=f"{MORE}, loads=True"),
    )
    code = """
import json
from harness import axes
from harness.bench.fake_cells import cell
from harness.measure.limits import Kept
from reports.gate.pairs import KEY
from reports.records import COST_AXES, QUALITY_AXES

class Toy(Kept):
    definition, compute = "toy", None
    def depends_on(self):
        return []

key = lambda one: Toy(one, None, None)._key(range(2))
toys = [axis.name for axis in axes.AXES if axis.name.startswith("toy_")]
print(json.dumps({
    "default": key(cell(0)),
    "limits": [toy for toy in toys if key(cell(0)) != key(cell(0, **{toy: 3}))],
    "models": [toy for toy in toys if cell(0).model_key != cell(0, **{toy: 3}).model_key],
    "quality": [toy for toy in toys if toy in QUALITY_AXES],
    "cost": [toy for toy in toys if toy in COST_AXES],
    "gate": [toy for toy in toys if toy in KEY],
}))
"""
    found = run(code)
    assert found["default"] == "6cfa552e8f6ec1bdb4ff4cb6", "kept reference runs are found again"
    assert found["limits"] == ["toy_limit", "toy_rounding"]
    assert found["models"] == ["toy_loads"]
    assert found["quality"] == ["toy_limit", "toy_path", "toy_images", "toy_estimate", "toy_loads"]
    assert found["cost"] == ["toy_rounding", "toy_cost"]
    assert found["gate"] == ["toy_limit", "toy_path", "toy_images", "toy_loads"]
