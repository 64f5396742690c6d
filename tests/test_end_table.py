"""The table that a sweep and `plot.py` end with: every measure, differences to the best, ties, the same in words."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import records
from rich.console import Console
from test_compare_report import sweep

from harness.store.records import Store
from harness.store.schema import to_arrow
from harness.verdict import words
from harness.verdict.measures import QUALITY
from harness.verdict.names import names
from harness.verdict.paired import read_cells
from harness.verdict.table import NARROW, end_table, show
from reports import summary
from reports.records import load

WIDEST = 120


def shown(store: Store, cells=None, most: int | None = None) -> str:
    out = io.StringIO()
    cells = store.cells().sort_values(["sampler", "steps"]) if cells is None else cells
    show(end_table(cells, store), Console(file=out, width=400), most)
    return out.getvalue()


def tables(text: str) -> list[str]:
    """The lines of the tables alone."""
    return [line for line in text.splitlines() if line.startswith(" ")]


def test_three_cells_two_of_them_tied(tmp_path):
    store = sweep(tmp_path, {("dpmpp", 20, 3.0): 90.0, ("dpmpp", 30, 3.0): 93.0, ("dpmpp", 50, 3.0): 93.001})
    said = shown(store)
    assert "CLIP: 30 steps is best, not to be told from 50 steps; 20 steps is worse, by 2.983 ± 0.037." in said
    assert "(best)" in said and ", tied)" in said and said.count("all cells: txt2img, embedded, karras, cfg 3") == 1
    assert all(len(line) <= WIDEST for line in tables(said)) and NARROW == WIDEST
    assert "90.36 (-2.983 ± 0.037) " in said and "93.33 (-0.017 ± 0.038, tied)" in said


def test_one_cell_has_its_own_intervals_and_nothing_to_compare_with(tmp_path):
    said = shown(sweep(tmp_path, {("dpmpp", 20, 3.0): 90.0}))
    assert " ± " in said and "best" not in said and "tied" not in said and "In brackets" not in said


def test_24_samplers_fit_the_width_and_the_sentences_stay_short(tmp_path):
    store = Store(tmp_path)
    for k in range(24):
        row = records.cell_row(
            "dpmpp", 20, sampler_knobs={"order": k}, kid=0.01 * k, kid_low=0.0, kid_high=0.3, kid_n=64
        )
        store.write(row)
    said = shown(store)
    assert all(len(line) <= WIDEST for line in tables(said)) and "order=23" in said
    assert all(len(line) < 600 for line in said.splitlines())
    assert "all 24 cells cannot be told apart" in said


@pytest.mark.parametrize("metric", [what.column for what in QUALITY])
def test_whatever_was_measured_appears(tmp_path, metric):
    nothing = dict.fromkeys(("fid", "clip_score", "discretisation_error"))
    (what,) = (one for one in QUALITY if one.column == metric)
    store = Store(tmp_path)
    for steps, value in ((10, 0.25), (20, 0.75)):
        store.write(records.cell_row(steps=steps, **{**nothing, metric: value}))
    said = shown(store)
    assert what.heading in said and what.form.format(0.25 * what.scale) in said


def test_what_is_equal_everywhere_takes_no_column(tmp_path):
    store = Store(tmp_path)
    for steps in (10, 20):
        store.write(records.cell_row(steps=steps, attributes_all=1.0, attributes_shape=1.0))
    said = shown(store)
    assert "all right % and shape %: 100.0 in all 2 cells." in said and "shape" not in "".join(tables(said))


def test_groups_are_told_by_what_makes_them(tmp_path):
    store = Store(tmp_path)
    for strength in (0.3, 0.6):
        for steps in (10, 20):
            store.write(records.cell_row(steps=steps, task="img2img", strength=strength))
    said = shown(store)
    assert "FID (strength 0.3)" in said or "FID (strength 0.3) and FID (strength 0.6)" in said
    assert "strength 0.6" in said


def test_failed_cells_and_an_empty_sweep_are_no_table(tmp_path):
    store = Store(tmp_path)
    store.write(records.cell_row(status="failed", error="x"))
    assert shown(store) == ""


def test_the_sweep_shows_its_own_cells_in_the_order_asked(tmp_path):
    store = Store(tmp_path)
    ids = [records.write(store, records.cell_row(steps=steps), pictures=False) for steps in (50, 5, 20)]
    records.write(store, records.cell_row("euler"), pictures=False)
    cells = read_cells(store, [*ids, "f" * 16])
    assert cells["cell_id"].tolist() == ids
    rows = [line for line in tables(shown(store, cells)) if "dpmpp" in line]
    assert [int(line.split()[2]) for line in rows[:3]] == [50, 5, 20] and "euler" not in shown(store, cells)


def test_plot_shows_thirty_rows_and_says_how_many_are_left(tmp_path):
    store = Store(tmp_path)
    for steps in range(1, 41):
        store.write(records.cell_row(steps=steps))
    out = io.StringIO()
    summary.show(load(tmp_path), Console(file=out, width=400), store)
    assert "… and 10 more cells" in out.getvalue()
    assert len([line for line in tables(out.getvalue()) if "dpmpp" in line]) % 30 == 0


def test_names_say_what_differs_and_nothing_else():
    rows = [records.cell_row(name, steps) for name, steps in (("dpmpp", 10), ("dpmpp", 20), ("ddim", 10))]
    cells = to_arrow("cells", rows).to_pandas()
    called = names(cells)
    assert called.list(cells.index) == "dpmpp karras at 10 and 20 steps and ddim leading at 10 steps"
    assert names(cells[:2]).list(cells.index[:2]) == "10 and 20 steps" and "karras" in names(cells[:2]).common
    twice = to_arrow("cells", [rows[0], {**rows[0], "cell_id": "a" * 16, "device": "cuda"}]).to_pandas()
    assert names(twice).list(twice.index) == "cpu and cuda"


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.01312, 0.0123, "+0.013 ± 0.012"), (-1.5, 0.55, "-1.50 ± 0.55"), (300.0, 40.0, "+300 ± 40"),
        (2e-5, 1e-5, "+2.0e-5 ± 1e-5"), (0.5, 0.0, "+0.5"), (0.5, np.nan, "+0.5"),
    ],
)  # fmt: skip
def test_digits_follow_the_interval(value, half, text):
    assert words.difference({"difference": value, "low": value - half, "high": value + half}) == text


def test_a_lopsided_interval_shows_both_ends():
    """`worse, by 2.8 ± 3.9` would hold 0, which the interval 0.3 to 8.0 does not."""
    assert words.difference({"difference": 2.8, "low": 0.25, "high": 8.05}) == "+2.8 (+0.2 to +8.1)"
    assert words.difference({"difference": -2.8, "low": -3.8, "high": -1.7}) == "-2.8 ± 1.0"


@pytest.mark.parametrize(("images", "said"), [(16, "16 images are too few to tell 60"), (64, "all 60 cells")])
def test_too_few_images_for_so_many_cells_are_said_not_called_a_tie(images, said):
    """Sixteen pairs have p ≥ 2^−15, which Holm multiplies by the 1,770 pairs of 60 cells: more than 0.05."""
    error = next(what for what in QUALITY if what.column == "discretisation_error")
    rows = pd.DataFrame({"cell_id": [f"{k:02}" for k in range(60)], "value": np.arange(60.0)})
    rows = rows.assign(group=0, to="00", difference=rows["value"], low=-1.0, high=1.0, n=images, tied=True, paired=True)
    (sentence,) = words.sentences({error: rows}, rows, names(rows))
    assert said in sentence
