"""Reports draw what the records hold, compare only what is comparable, and say what they leave out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import records
from figure_records import looks, recorded, texts
from PIL import Image

from harness.store import layout
from harness.store.places import Folder
from harness.store.records import Store
from harness.store.schema import to_arrow
from harness.store.tiles import LONGEST_SIDE, load_grid, save_grid
from reports import plot
from reports.apart import Evidence
from reports.figures import coefficients, guidance, samplers, sheet, steps
from reports.style import Drawing, save, settings
from reports.wording import axis_label
from samplers.solvers import learned

ROOT = Path(__file__).resolve().parents[1]
CELL = "0123456789abcdef"
KINDS = ("samplers", "pareto", "steps", "discretisation", "cfg", "precision", "latency", "sheet", "coefficients")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The command as a user types it, from another folder, on records of every kind."""
    folder = tmp_path_factory.mktemp("report")
    records.full_sweep(folder / "results")
    code = f"""
import runpy, sys
sys.argv = ["plot.py", "--results", "results", "--format", "png"]
try:
    runpy.run_path({str(ROOT / "reports" / "plot.py")!r}, run_name="__main__")
finally:
    print("heavy:", [name for name in ("torch", "hydra", "diffusers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder / "results", done.stdout


def test_every_kind_of_figure_is_drawn(report):
    results, said = report
    for kind in KINDS:
        assert list((results / "plots").glob(f"{kind}-txt2img-embedded*.png")), kind
    for task in ("img2img", "inpaint"):
        assert (results / "plots" / f"strength-{task}-embedded.png").exists()
    assert "not drawn" not in said and "heavy: []" in said
    assert "1 failed cells are in no figure" in said
    assert re.search(r"\d+ files written to results/plots", said)


def test_figures_are_not_blank_and_reach_no_edge(report):
    for path in (report[0] / "plots").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert (pixels < 128).mean() > 0.003, path.name
        # What is clipped at the edge of the paper leaves ink there.
        for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
            assert edge.min() > 250, path.name


def test_no_text_is_smaller_than_8_points(tmp_path):
    from matplotlib.text import Text

    (group,) = recorded(tmp_path, [records.cell_row(steps=steps) for steps in (5, 10)], pictures=True)
    with settings():
        for drawing in (
            steps.draw(group, looks(group), Evidence(Store(tmp_path))),
            *sheet.draw(group, Store(tmp_path)),
        ):
            assert all(text.get_fontsize() >= 8 for text in drawing.figure.findobj(Text))


def test_the_first_command_of_the_readme_is_enough_for_a_plot(tmp_path, capsys):
    recorded(tmp_path, [records.cell_row(steps=steps) for steps in (20, 30, 50)])
    assert plot.main(["--results", str(tmp_path), "--format", "svg"]) == 0
    said = capsys.readouterr().out
    for kind in ("pareto", "steps", "discretisation", "latency"):
        assert (tmp_path / "plots" / f"{kind}-txt2img-embedded.svg").stat().st_size > 5000
    assert "not drawn: CFG curve (needs cells with two or more values of cfg" in said
    assert "not drawn: strength curves (no img2img or inpaint cells)" in said
    assert "not drawn: image sheet (no image grids in" in said
    assert "not drawn: table of samplers (needs cells of two or more samplers" in said
    assert "not drawn: coefficients of the plans (no cell has a plan in results/plans)" in said
    left_out = [line for line in said.splitlines() if line.startswith("not drawn")]
    assert len(left_out) == 6, left_out  # and precision; figures of analytic models have nothing to say here


def test_the_table_of_samplers_ranks_frames_and_says_what_fewer_calls_give(tmp_path):
    rows = []
    for calls in (5, 8, 10, 20):
        rows += [records.cell_row(name, calls, n_images=64) for name in ("euler", "dpmpp", "unipc")]
        # Two calls a step: of 8 calls it uses 7. It draws noise, so there is no limit to measure it against.
        random = {"discretisation_error": None, "stochastic": True, "nfe": 2 * (-(-calls // 2)) - 1}
        rows.append(records.cell_row("ddim", -(-calls // 2), n_images=64, **random))
    (group,) = recorded(tmp_path, rows)
    fid = next(measure for measure in samplers.MEASURES if measure.column == "fid")
    error = samplers.MEASURES[0]
    assert samplers.budgets(group.cells) == [5, 8, 10, 20]
    found = samplers.table(group.cells, fid, [5, 8, 10, 20])
    assert found[found["label"] == "ddim leading"]["nfe"].tolist() == [5, 7, 9, 19]
    tables = {measure: samplers.table(group.cells, measure, [5, 8, 10, 20]) for measure in (error, fid)}
    at_10 = tables[error][tables[error]["budget"] == 10].sort_values("value")["label"].tolist()
    assert samplers.ranking(tables, [5, 8, 10, 20]) == ([*at_10, "ddim leading"], "10")
    with settings():
        drawing = samplers.draw(group, looks(group), Evidence(Store(tmp_path)))
        said = texts(drawing)
    assert "Rows by their value at 10 calls" in said and "they draw noise" in said and "denoiser calls at most" in said
    names = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert names == [*at_10, "ddim leading"]
    slanted = [t for panel in drawing.figure.axes for t in panel.texts if t.get_style() == "italic"]
    assert len(slanted) == 3  # FID of ddim, which uses 5, 7, 9 and 19 calls


def test_short_numbers():
    given = {0.0086: ".0086", 0.8: ".80", 4.13: "4.1", 23.4: "23", 140.2: "140", 0.999: "1.00", 0: "0", 1.0: "1.0"}
    assert {value: samplers._short(value) for value in given} == given


def test_no_records_is_one_line_and_exit_code_2(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        assert plot.main(["--results", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: no records in") and error.count("\n") == 1 and "harness.sweep" in error
    recorded(tmp_path, [records.cell_row(status="failed", error="out of memory")])
    assert plot.main(["--results", str(tmp_path)]) == 2
    assert "no cell in" in capsys.readouterr().err


def test_an_unwritable_folder_and_an_unknown_format_are_one_line(tmp_path, capsys):
    recorded(tmp_path, [records.cell_row()])
    (tmp_path / "file").write_text("")
    assert plot.main(["--results", str(tmp_path), "--out", str(tmp_path / "file" / "plots")]) == 2
    assert "cannot write to" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        plot.main(["--format", "gif"])
    assert end.value.code == 2 and "valid: png, svg, pdf" in capsys.readouterr().err


def test_one_line_never_mixes_extractors(tmp_path):
    rows = [records.cell_row(steps=steps) for steps in (5, 10, 20)]
    rows += [records.cell_row(steps=steps, fid_extractor="inception-v3") for steps in (30, 40)]
    (group,) = recorded(tmp_path, rows)
    drawing = steps.draw(group, looks(group), Evidence(Store(tmp_path)))
    assert "FID (embedded-v1-96d, N=256)" in texts(drawing) and "inception" not in texts(drawing)
    assert drawing.note == "2 of 5 cells not shown: other fid extractor or alone on their line"


@pytest.mark.parametrize(
    ("axis", "value"),
    [("n_images", 64), ("model_fingerprint", "other"), ("seed", 1), ("negative_prompt", "ugly"), ("height", 128)],
)
def test_cells_that_differ_in_another_axis_are_left_out_and_named(tmp_path, axis, value):
    rows = [records.cell_row(steps=steps) for steps in (5, 10, 20)]
    rows += [records.cell_row(steps=steps, **{axis: value}) for steps in (5, 10)]
    (group,) = recorded(tmp_path, rows)
    chosen = group.select("steps", needs=["fid"])
    assert len(chosen.cells) == 3 and axis.replace("_", " ") in chosen.left_out and "2 of 5" in chosen.left_out


def test_of_equally_large_sets_the_middle_one_is_shown(tmp_path):
    rows = [records.cell_row(steps=steps, cfg=cfg) for cfg in (1.0, 12.0, 3.0) for steps in (5, 10)]
    (group,) = recorded(tmp_path, rows)
    assert set(group.select("steps", needs=["fid"]).cells["cfg"]) == {3.0}


def test_models_and_tasks_have_figures_of_their_own(tmp_path):
    rows = [records.cell_row(steps=steps, model=model) for steps in (5, 10) for model in ("embedded", "../sd 15")]
    found = recorded(tmp_path, rows)
    assert {group.slug for group in found} == {"txt2img-embedded", "txt2img----sd-15"}
    assert all(group.cells["model"].nunique() == 1 for group in found)


def test_guidance_off_belongs_to_the_curve_though_rescale_has_no_effect_there(tmp_path):
    rows = [records.cell_row(cfg=cfg, guidance_rescale=0.0 if cfg == 1 else 0.7) for cfg in (1.0, 3.0, 5.0)]
    (group,) = recorded(tmp_path, rows)
    chosen = group.select("cfg", needs=["fid"])
    assert sorted(chosen.cells["cfg"]) == [1.0, 3.0, 5.0] and chosen.left_out == ""
    assert "12" not in texts(guidance.draw(group, looks(group), Evidence(Store(tmp_path)))).split()


def test_labels_say_only_what_tells_variants_apart(tmp_path):
    knobs = [{"order": 1, "variant": "bh2"}, {"order": 2, "variant": "bh2"}]
    rows = [records.cell_row("unipc", sampler_knobs=one) for one in knobs]
    rows += [records.cell_row("dpmpp", schedule=schedule) for schedule in ("karras", "normal")]
    rows += [records.cell_row("euler")]
    (group,) = recorded(tmp_path, rows)
    told = {"unipc order=1 karras", "unipc order=2 karras", "dpmpp karras", "dpmpp normal", "euler karras"}
    assert set(group.cells["label"]) == told  # the schedule of all, where any two differ in it


def test_shipped_plans_of_several_numbers_of_calls_are_one_line(tmp_path):
    def row(calls, folder):
        file = {"file": f"{folder}/{calls}.json", "sha256": f"{calls:064d}"}
        return records.cell_row(
            "learned", sampler_knobs=file, schedule="file", schedule_knobs=file, steps=calls, nfe=float(calls)
        )

    (group,) = recorded(tmp_path / "shipped", [row(calls, learned.SHIPPED) for calls in (5, 8)])
    assert set(group.cells["label"]) == {"learned"}
    (group,) = recorded(tmp_path / "own", [row(calls, "/home/me") for calls in (5, 8)])
    assert len(set(group.cells["label"])) == 2 and all("/home/me" in label for label in group.cells["label"])


def test_a_cell_run_again_elsewhere_counts_once(tmp_path):
    rows = [records.cell_row(steps=steps) for steps in (5, 10)]
    again = {**rows[0], "cell_id": "f" * 16, "fid": 99.0, "ended_at": rows[0]["ended_at"] + 1}
    (group,) = recorded(tmp_path, [*rows, again])
    assert sorted(group.select("steps", needs=["fid"]).cells["fid"]) == sorted([99.0, rows[1]["fid"]])


def test_names_and_prompts_are_never_read_as_formulas(tmp_path):
    strange = "a $\\frac{1}{2}$ _b^c <script> $x"
    rows = [records.cell_row(steps=steps, fid_extractor=strange, model="$m$") for steps in (5, 10)]
    (group,) = recorded(tmp_path, rows, pictures=True)
    with settings():
        (by_steps,) = sheet.draw(group, Store(tmp_path))
        for drawing in (steps.draw(group, looks(group), Evidence(Store(tmp_path))), by_steps):
            paths = save(drawing, tmp_path, ["png", "svg"])
            assert all(path.stat().st_size > 2000 for path in paths)
    assert "<script>" not in paths[-1].read_text()
    assert "$blue$" in texts(by_steps) and "<b>bold</b>" in texts(by_steps)


def test_a_damaged_grid_costs_its_column_only(tmp_path):
    rows = [records.cell_row(steps=steps) for steps in (5, 10, 20)]
    (group,) = recorded(tmp_path, rows, pictures=True)
    store = Store(tmp_path)
    (tmp_path / layout.grid(rows[1]["cell_id"])).write_bytes(b"\x89PNG no more")
    with pytest.warns(UserWarning, match=f"grid of {rows[1]['cell_id']} is damaged"):
        (drawing,) = sheet.draw(group, store)
    words = texts(drawing).split()
    assert "5" in words and "20" in words and "10" not in words


def test_axis_labels_carry_definition_and_unit():
    cells = to_arrow("cells", [records.cell_row()]).to_pandas()
    assert axis_label(cells, "fid") == "FID (embedded-v1-96d, N=256)"
    assert axis_label(cells, "latency_s") == "latency (s, median for 1 image)"
    assert axis_label(cells, "peak_memory_mib") == "peak memory (MiB, rss)"


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (2, 3, 40, 64), (1, 3, 512, 768)])
def test_a_grid_comes_back_tile_by_tile(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    save_grid(images, Folder(tmp_path), CELL, indices=range(5, 5 + shape[0]))
    tiles = load_grid(Folder(tmp_path), CELL)
    assert tiles.indices == list(range(5, 5 + shape[0]))
    if max(shape[2:]) <= LONGEST_SIDE:
        assert np.array_equal(tiles.images.transpose(0, 3, 1, 2), images)
    else:
        assert tiles.images.shape == (1, 171, 256, 3)
    assert [path.name for path in (tmp_path / "grids").iterdir()] == [f"{CELL}.png"]


def test_a_grid_of_something_else_is_refused(tmp_path):
    for wrong in (np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 3, 8, 8)), np.zeros((0, 3, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match="uint8 N×3×H×W"):
            save_grid(wrong, Folder(tmp_path), CELL)


def test_coefficients_of_plans_add_up_and_steps_are_told_from_calls(tmp_path):
    from samplers import registry, schedules
    from samplers.core import plan_json
    from samplers.core.levels import DiscreteVP

    levels = schedules.build("karras", DiscreteVP.scaled_linear(), 6)
    found = {}
    for name in ("dpmpp", "heun", "lms", "dpmpp_2m_sde"):
        text = plan_json.dumps(registry.build_plan(registry.load(name), levels), levels)
        found[name] = coefficients.parsed(json.loads(text))
        assert np.allclose(found[name].states.sum(1) + found[name].x0.sum(1), 1)
    assert found["dpmpp"].ends.all() and found["dpmpp"].noise.sum() == 0
    assert found["heun"].ends.tolist() == [False, True] * 5 + [True]
    assert 0 < found["dpmpp_2m_sde"].noise.max() <= 1
    with settings():
        drawn = Drawing("c", coefficients._figure(found, "txt2img, embedded, 6 steps", ""))
    for said in ("2 calls ago", "hollow: a call inside a step", "share of noise", "heun"):
        assert said in texts(drawn)


def test_plans_that_are_gone_or_damaged_leave_a_note(tmp_path):
    (group,) = recorded(tmp_path, [records.cell_row(name, steps=10) for name in ("dpmpp", "unipc")], pictures=True)
    store = Store(tmp_path)
    assert coefficients.draw(group, store).figure is not None
    kept = sorted((tmp_path / "plans").iterdir())
    kept[0].write_text("{")
    assert coefficients.draw(group, store).figure is not None
    kept[1].unlink()
    assert coefficients.draw(group, store).note == "the plans of 2 cells are missing or damaged"
    (bare,) = recorded(tmp_path / "bare", [records.cell_row()])
    assert coefficients.draw(bare, Store(tmp_path / "bare")).note == "no cell has a plan in results/plans"
