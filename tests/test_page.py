"""The page says what the other reports say, holds whatever a record holds as text, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import records
from PIL import Image

from harness.store import layout
from harness.store.records import Store
from harness.store.tiles import load_grid
from harness.verdict import measures
from reports import compare, matching, page
from reports.paired import differences, front, read_images
from reports.records import load
from reports.web import build, columns, diagnoses, payload, pictures, plans, provenance, verdicts
from samplers import registry, schedules
from samplers.conditions import residuals
from samplers.core import plan_json
from samplers.core.levels import DiscreteVP, NoiseLevels

HOSTILE = "</script><script>document.title='run'</script>\u202egnp.exe \"'><img src=x onerror=alert(1)>"
LONG = "word" * 2500
NUMBERS = [name for name in diagnoses.STEP if name != "euler"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder)
    for sampler in ("euler", "dpmpp"):
        for steps in (5, 10, 20):
            records.write(store, records.cell_row(sampler, steps))
    records.write(store, records.cell_row("unipc", 20, model=HOSTILE))
    failed = {"status": "failed", "error": f"{HOSTILE} {LONG}", "fid": None, "latency_s": None}
    records.write(store, records.cell_row("plms", 7, **failed))
    return folder


@pytest.fixture(scope="module")
def cells(results) -> pd.DataFrame:
    return load(results).reset_index(drop=True)


@pytest.fixture(scope="module")
def html(results) -> str:
    assert page.main(["--results", str(results)]) == 0
    return (results / "page.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def block_of(html: str) -> tuple[dict, bytes]:
    text = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', html)[1]
    return columns.unpacked(base64.b64decode(text))


def test_nothing_of_a_record_is_markup_and_nothing_is_asked_of_a_network(html):
    elements = Elements(html)
    assert "document.title='run'" not in html and "onerror=alert" not in html, "it stands in the block alone"
    outside = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(value.startswith(("#", "data:")) for value in outside), outside
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy and "unsafe" not in policy


def test_a_hostile_title_and_folder_are_text():
    text = build.render(HOSTILE, b"", {}, Path(HOSTILE.replace("/", "")))
    assert "<script>document" not in text and "<img" not in text


def test_every_column_of_the_records_is_there_with_its_values(html, cells):
    header, content = block_of(html)
    told = {column["name"]: column for column in header["columns"]}
    for name in ("fid", "latency_s", "steps", "cfg"):
        np.testing.assert_array_equal(columns.array(told[name]["numbers"], content), cells[name].to_numpy(np.float32))
    for name in ("cell_id", "model", "error", "status"):
        codes = columns.array(told[name]["codes"], content)
        texts = [None if code < 0 else told[name]["levels"][code] for code in codes]
        assert texts == [None if pd.isna(value) else value for value in cells[name]]


@pytest.mark.parametrize("name", ["fid", "clip_score", "discretisation_error"])
def test_differences_and_fronts_are_those_of_the_reports(html, cells, results, name):
    header, content = block_of(html)
    images = read_images(Store(results), cells, [name])
    expected = differences(cells, images, name).reindex(cells.index)
    for part in ("difference", "low", "high", "p", "effect"):
        np.testing.assert_allclose(
            columns.array(header["best"][name][part], content), expected[part].astype(float), rtol=1e-6
        )
    led = front(cells, images, name, "latency_s")
    state = columns.array(header["fronts"][f"{name}|latency_s"]["state"], content)
    assert set(np.flatnonzero(state == 1)) == set(led.index[led["front"]])
    assert set(np.flatnonzero(state == 2)) == set(led.index[led["tied"]])


def test_every_cost_that_is_measured_has_an_axis_and_a_front(tmp_path):
    store = Store(tmp_path)
    costs = {"energy_j_per_image": 3.0, "cost_per_1000": 0.5, "flops": 2e9, "images_per_s": 4.0}
    for steps in (5, 10, 20):
        own = {name: value * steps for name, value in costs.items() if name != "cost_per_1000"}
        records.write(store, records.cell_row("dpmpp", steps, **own), pictures=False)
    assert page.main(["--results", str(tmp_path), "--images", "none"]) == 0
    header, content = block_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    cells = load(tmp_path).reset_index(drop=True)
    images = read_images(store, cells, ["fid"])
    measured = {what.column for what in (*measures.COST, measures.FLOPS)} - {"cost_per_1000"}
    assert {what["column"] for what in header["costs"]} == measured >= {"energy_j_per_image", "latency_s"}
    for cost in measured:
        state = columns.array(header["fronts"][f"fid|{cost}"]["state"], content)
        led = front(cells, images, "fid", cost)
        assert (state > 0).all() and {int(k) for k in np.flatnonzero(state == 1)} == set(led.index[led["front"]])


def test_a_pair_is_what_compare_says_of_it(html, cells, results):
    header, content = block_of(html)
    pairs = header["pairs"]
    numbers = {
        part: columns.array(pairs[part], content)
        for part in ("a", "b", "measure", "difference", "low", "high", "p", "effect", "verdict")
    }
    checked = 0
    good = cells.index[(cells["status"] == "ok") & (cells["model"] == "embedded")]
    for one, two in ((good[0], good[1]), (good[2], good[4]), (good[1], good[5])):
        matched = matching.match(cells, cells["cell_id"][one], cells["cell_id"][two])
        said = compare.compare(matched, Store(results)).set_index("measure")
        here = np.flatnonzero((numbers["a"] == one) & (numbers["b"] == two))
        for k in here:
            row = said.loc[pairs["measures"][numbers["measure"][k]]]
            for part in ("difference", "low", "high", "p", "effect"):
                assert numbers[part][k] == pytest.approx(float(row[part]), rel=1e-5, nan_ok=True)
            assert payload.VERDICTS[numbers["verdict"][k]] == row["verdict"]
            checked += 1
    assert checked >= 6


def test_levels_of_an_axis_are_what_compare_says_of_them(cells, results):
    known = verdicts.evidence(cells, Store(results))
    found = {(level.axis, level.a, level.b): level for level in verdicts.levels(known, ["sampler", "steps"])}
    level = found["steps", "5", "20"]
    matched = matching.match(cells, "steps=5", "steps=20")
    said = compare.compare(matched, Store(results))
    said = said[said["verdict"] != ""].sort_values(["measure", "pair"])
    ours = level.rows.sort_values(["measure", "pair"])
    for part in ("difference", "low", "high", "p"):
        np.testing.assert_allclose(ours[part].astype(float), said[part].astype(float), rtol=1e-9)
    assert list(ours["verdict"]) == list(said["verdict"])


def test_order_conditions_of_a_plan_are_those_of_its_coefficients(html, results):
    header, _ = block_of(html)
    checked = 0
    for plan in header["plans"]:
        saved = plan_json.loads(Store(results).place.read(layout.plan(plan["id"])))
        levels = NoiseLevels(saved.alpha, saved.sigma, saved.time, DiscreteVP.scaled_linear())
        expected = residuals(levels, saved.plan)[:, :4].T
        np.testing.assert_allclose(np.array(plan["missed"], float), expected, rtol=1e-5)
        checked += np.isfinite(expected).any()
    assert checked >= 4


def test_a_plan_that_draws_noise_has_no_order_conditions():
    levels = schedules.build("karras", DiscreteVP.scaled_linear(), 6)
    plan = registry.build_plan(registry.load("euler_a"), levels)
    assert plan.draws and plans._missed(plan_json.dumps(plan, levels).encode()) is None


def test_a_diagnosis_stands_beside_the_plan_that_it_is_of(tmp_path):
    store = Store(tmp_path)
    row = records.cell_row("dpmpp", 5)
    records.write(store, row)
    row = load(tmp_path).iloc[0].to_dict()
    told = records.diagnose(store, row, "0" * 16)
    for k, more in enumerate(({"cfg": row["cfg"] + 1}, {"model": "another"}, {"plan_id": "f" * 16}, {"version": 2})):
        records.diagnose(store, row, f"{k + 1:016x}", **more)
    records.diagnose(store, row, "a" * 16, steps=[{"calls": "none"}])
    for name, content in (("b", b"[]"), ("c", b"{"), ("d", b'{"version": 1, "steps": null}')):
        store.place.put(f"diagnoses/{name * 16}.json", content)
    (found,) = diagnoses.read(load(tmp_path), store)
    assert found["plan"] == row["plan_id"] and found["error"] == told["error"] and "16 images" in found["said"]
    for one, whole in zip(found["steps"], told["steps"], strict=True):
        assert one.keys() == {"calls", *diagnoses.STEP} and one["calls"] == whole["calls"] and one["euler"] is None
        assert [one[name] for name in NUMBERS] == pytest.approx([whole[name] for name in NUMBERS], rel=1e-3)
    assert found["coefficients"] == told["coefficients"] and found["levels"] == told["levels"]
    assert found["curvature"] == {**told["curvature"], "d2D": [0.2, None, 0.1]}, "what is not finite is null"


def test_the_images_are_the_recorded_ones(results, cells):
    shown = pictures.read(cells, Store(results))
    assert shown.lossless and len(shown.files) == (cells["status"] == "ok").sum()
    for place in shown.tiles:
        grid = load_grid(Store(results).place, cells["cell_id"][place])
        with Image.open(BytesIO(shown.files[cells["cell_id"][place]])) as row:
            np.testing.assert_array_equal(np.asarray(row.convert("RGB")), np.concatenate(list(grid.images), axis=1))


def test_images_lie_beside_the_file_or_nowhere(results, tmp_path, capsys):
    assert page.main(["--results", str(results), "--out", str(tmp_path / "a.html"), "--images", "beside"]) == 0
    assert len(list((tmp_path / "a-images").glob("*.webp"))) == 7 and "a-images" in capsys.readouterr().out
    assert page.main(["--results", str(results), "--out", str(tmp_path / "b.html"), "--images", "none"]) == 0
    assert (tmp_path / "b.html").stat().st_size < (tmp_path / "a.html").stat().st_size + 1000
    assert 'id="picture-' not in (tmp_path / "b.html").read_text()


def test_bad_input_is_one_line(tmp_path, results, capsys):
    assert page.main(["--results", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith("error: no records in")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert page.main(["--results", str(results), "--out", str(blocked / "page.html"), "--images", "none"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_cells_own_words_make_it_again():
    from harness.sweep.enumerate import enumerate_cells

    for words in (
        ["sampler=dpmpp", "sampler.order=3", "steps=7", "cfg=2.5"],
        ["task=img2img", "strength=0.3", "seed=4"],
    ):
        (cell,) = enumerate_cells([*words, "device=cpu"]).cells.values()
        again = shlex.split(provenance.command(cell.canonical()))[3:]
        assert list(enumerate_cells(again).cells) == [cell.cell_id]


def test_the_library_is_the_one_that_was_published():
    expected = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"  # uplot 1.6.32 in npm's registry
    assert hashlib.sha256((build.HERE / "vendor" / "uPlot.iife.min.js").read_bytes()).hexdigest() == expected
