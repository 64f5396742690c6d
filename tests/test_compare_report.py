"""`reports/compare.py`, `--where` and `--table`: pairs, verdicts and files as a reader asks for them."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import records

from harness.errors import InputError
from harness.store.records import Store
from reports import compare, matching, plot, table_files, where
from reports.records import load

EVIL = '=HYPERLINK("x")\x1b[31m|<script>$\\input{a}$_%&#[x](javascript:1)'


def sweep(folder, cells: dict[tuple, float], n: int = 48, noise: float = 0.1, **more) -> Store:
    """Records of (sampler, steps, cfg) whose images share what they are and differ by the given CLIP score."""
    store, rng = Store(folder), np.random.default_rng(0)
    own = rng.normal(0, 5, n)
    for (sampler, steps, cfg), score in cells.items():
        values = own + score + noise * rng.normal(size=n)
        row = records.cell_row(sampler, steps, cfg, **{"n_images": n, **more})
        row |= {"clip_score": float(values.mean()), "discretisation_error": None}
        images = [{"image_index": k, "prompt": f"prompt {k}", "clip_score": v} for k, v in enumerate(values)]
        store.write(row, images)
    return store


GRID = {("dpmpp", 10, 3.0): 90, ("dpmpp", 20, 3.0): 92, ("unipc", 10, 3.0): 91, ("unipc", 20, 3.0): 92.001}


def run(capsys, folder, *words: str, code: int = 0) -> str:
    assert compare.main([*words, "--results", str(folder), "--format", "png"]) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def test_two_values_of_an_axis_are_compared_cell_by_cell(tmp_path, capsys):
    store = sweep(tmp_path, GRID)
    matched = matching.match(load(tmp_path), "sampler=dpmpp", "sampler=unipc")
    assert matched.titles == ["10 steps", "20 steps"]
    found = compare.compare(matched, store)
    clip = found[found["measure"] == "clip_score"].set_index("pair")
    assert clip["verdict"].tolist() == [compare.BETTER, compare.TIED] and clip["difference"].round(1).tolist() == [1, 0]
    said = run(capsys, tmp_path, "sampler=dpmpp", "sampler=unipc")
    assert "CLIP: B is better in 1, cannot be told apart in 1 of 2 pairs" in said
    assert next((tmp_path / "plots").glob("compare-*.png")).stat().st_size > 5000


def test_two_cells_by_the_beginning_of_their_ids_and_the_sign_is_b_minus_a(tmp_path, capsys):
    sweep(tmp_path, GRID)
    cells = load(tmp_path).set_index(["sampler", "steps"])
    a, b = cells.loc[("unipc", 10), "cell_id"][:8], cells.loc[("dpmpp", 10), "cell_id"][:8]
    said = run(capsys, tmp_path, a, b, "--table", str(tmp_path / "t.csv"))
    assert "B is worse in: CLIP" in said and "A: unipc" in said and "B: dpmpp" in said
    with (tmp_path / "t.csv").open() as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    assert float(rows["clip_score"]["difference"]) == pytest.approx(-1, abs=0.1)
    assert rows["clip_score"]["cell_a"].startswith(a) and rows["latency_s"]["note"] == "ratio"


def test_a_default_schedule_that_follows_the_sampler_is_said_not_refused(tmp_path):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90, ("ddim", 10, 3.0): 90})  # karras and leading
    matched = matching.match(load(tmp_path), "sampler=dpmpp", "sampler=ddim")
    assert len(matched.pairs) == 1 and matched.notes == [
        "the sides also differ in the schedule: karras against leading"
    ]


def test_cells_that_share_no_noise_or_no_counterpart_are_refused(tmp_path, capsys):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90})
    sweep(tmp_path, {("dpmpp", 20, 3.0): 90}, seed=1)
    ids = load(tmp_path)["cell_id"].tolist()
    assert "differ in seed" in run(capsys, tmp_path, ids[0], ids[1], code=2)
    assert "never agree in seed" in run(capsys, tmp_path, "steps=10", "steps=20", code=2)


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ("xyz", "abc", "neither the beginning"),
        ("000", "fff", "no cell's id begins with"),
        ("sampler=unipc", "steps=20", "cells in common"),
        ("sampler=unipc", "abcd", "AXIS=VALUE twice"),
        ("sampler=unipcc", "sampler=dpmpp", "did you mean 'unipc'"),
        ("smpler=unipc", "sampler=dpmpp", "did you mean 'sampler'"),
        ("steps=10", "steps=11", "steps=11: no cell has it"),
    ],
)
def test_what_names_no_pair_is_one_line(tmp_path, capsys, one, two, said):
    sweep(tmp_path, GRID)
    error = run(capsys, tmp_path, one, two, code=2)
    assert said in error and error.count("\n") == 1 and len(error) < 500


def test_where_takes_choices_ranges_repeats_and_knobs(tmp_path):
    sweep(tmp_path, {**GRID, ("euler", 50, 7.5): 90})
    cells = load(tmp_path)

    def steps(*words: str) -> list[tuple[str, int]]:
        kept = where.parse(words)(cells)
        return sorted(zip(kept["sampler"], kept["steps"], strict=True))

    assert steps("sampler=unipc|euler,steps=15..") == [("euler", 50), ("unipc", 20)]
    assert steps("sampler=unipc", "sampler=euler", "steps=..10") == [("unipc", 10)]
    assert steps("cfg=7.50") == [("euler", 50)] and steps("sampler.order=1") == [("euler", 50)]
    assert steps("strength=null,steps=10..20,cfg=3") == sorted((s, n) for s, n, _ in GRID)
    assert len(steps()) == 5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stepps=3", "did you mean 'steps'"),
        ("sampler=unipx", "did you mean 'unipc'"),
        ("steps=20..10", "empty range"),
        ("steps=a..b", "a range is two numbers"),
        ("sampler=1..2", "no range"),
        ("unipc", "write COLUMN=VALUE"),
        ("steps=11..19", "no cell lies in 11..19"),
        ("sampler.ordr=2", "did you mean 'order'"),
        ("steps=10,cfg=3,sampler=unipc,clip_score=91.9..95", "no cell meets all of it"),
    ],
)
def test_a_filter_that_cannot_be_is_one_line(tmp_path, word, said):
    sweep(tmp_path, GRID)
    with pytest.raises(InputError, match=said) as error:
        where.parse([word])(load(tmp_path))
    assert len(str(error.value)) <= 500


def test_plot_takes_where_and_writes_its_table(tmp_path, capsys):
    sweep(tmp_path, GRID)
    words = ["--results", str(tmp_path), "--format", "png", "--where", "sampler=dpmpp", "--table"]
    assert plot.main([*words, str(tmp_path / "t.md")]) == 0
    said = capsys.readouterr().out
    assert "20 steps is best; 10 steps is worse" in said and "unipc" not in said
    assert "unipc" not in (tmp_path / "t.md").read_text()
    assert plot.main([*words, "t.pdf"]) == 2 and ".csv, .tex, .md" in capsys.readouterr().err
    assert plot.main([*words, str(tmp_path / "t.md" / "x.md")]) == 2 and "cannot write" in capsys.readouterr().err


def test_hostile_text_stays_text_in_every_kind_of_table(tmp_path, capsys):
    row = records.cell_row(model=EVIL, sampler_knobs={"a": EVIL})
    other = records.cell_row(steps=10, model="m", sampler_knobs={"a": -1})
    for each in (row, other):
        Store(tmp_path).write(each)
    for kind in ("csv", "tex", "md"):
        words = ["--results", str(tmp_path), "--format", "png", "--table", str(tmp_path / f"t.{kind}")]
        assert plot.main(words) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    text = {kind: (tmp_path / f"t.{kind}").read_text() for kind in ("csv", "tex", "md")}
    assert all("\x1b" not in one for one in text.values())
    assert not any(cell.startswith(("=", "@", "+")) for line in csv.reader(io.StringIO(text["csv"])) for cell in line)
    assert "\\input" not in text["tex"].replace("\\textbackslash{}input", "") and "$\\" not in text["tex"][:200]
    assert "<script>" not in text["md"] and "](javascript" not in text["md"]
    assert table_files.latex("a_b%$~^\\{}&#") == (
        r"a\_b\%\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\&\#"
    )


def test_a_negative_number_in_a_csv_is_a_number_and_a_text_is_none():
    import pandas as pd

    frame = pd.DataFrame({"a": [-1.5], "b": ["-1.5"], "c": ["-cmd"], "d": [json.dumps({"a": 1})]})
    assert table_files.as_csv(frame).splitlines()[1] == '-1.5,-1.5,\'-cmd,"{""a"": 1}"'


def test_the_check_takes_where_and_its_baseline_is_never_replaced_in_part(tmp_path, capsys):
    from reports import check

    sweep(tmp_path / "a", GRID)
    sweep(tmp_path / "b", {("dpmpp", 10, 3.0): 90, ("dpmpp", 20, 3.0): 92})
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert check.main(folders) == 1  # the cells of unipc are lost
    assert check.main([*folders, "--where", "sampler=dpmpp,steps=20"]) != 1
    assert check.main([*folders, "--where", "sampler=dpmp"]) == 2
    assert "did you mean 'dpmpp'" in capsys.readouterr().err
    assert check.main([*folders, "--where", "sampler=dpmpp", "--update"]) == 2
    assert "takes no --where" in capsys.readouterr().err


def test_what_is_found_out_of_an_axis_need_not_agree_where_the_axis_differs():
    """A fingerprint that follows from a scale would keep the scale's two values from ever being paired."""
    from harness import axes

    follows = {column for columns in matching.FOLLOWS.values() for column in columns}
    assert {part.name for axis in axes.KEPT if not axis.asked for part in axis.parts} <= follows
