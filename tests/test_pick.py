"""`reports/pick.py`: the best within a budget, those that cannot be told from it, a clear line where there is none."""

from __future__ import annotations

import csv

import pytest
from test_compare_report import sweep

from reports import pick

GRID = {
    ("euler", 10, 3.0): 90.0, ("euler", 40, 3.0): 92.0, ("dpmpp", 10, 3.0): 92.001, ("dpmpp", 20, 3.0): 92.002,
    ("unipc", 20, 3.0): 91.0, ("unipc", 50, 3.0): 95.0,
}  # fmt: skip


def run(capsys, folder, *words: str, code: int = 0) -> str:
    assert pick.main([*words, "--results", str(folder)]) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def test_the_best_within_the_budget_its_rivals_and_the_cheapest_of_them(tmp_path, capsys):
    sweep(tmp_path, GRID, noise=0.3)
    said = run(capsys, tmp_path, "--by", "clip", "--nfe", "40")
    assert "5 of 6 cells fit" in said and "unipc" not in said.split("cannot be told from it")[1].splitlines()[0]
    assert "cannot be told from it (2 of 4 others)" in said
    assert "the cheapest of them: sampler=dpmpp schedule=karras steps=10" in said
    rows = [line.split()[1:3] for line in said.splitlines() if line[1:5].strip().isalnum() and "(" in line]
    assert ["euler", "40"] in rows and ["unipc", "20"] not in rows and ["euler", "10"] not in rows
    wider = run(capsys, tmp_path, "--by", "clip")
    assert "sampler=unipc schedule=karras steps=50" in wider and "all 5 others within the budget are worse" in wider


def test_the_direction_is_the_measures(tmp_path, capsys):
    store = sweep(tmp_path, {("euler", 10, 3.0): 90, ("dpmpp", 10, 3.0): 90})
    fids = {row["sampler"]: row["fid"] for row in store.rows(list(store.recorded()))}
    assert f"sampler={min(fids, key=fids.get)}" in run(capsys, tmp_path, "--by", "fid")


def test_groups_that_cannot_be_compared_each_have_a_choice(tmp_path, capsys):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90, ("unipc", 10, 3.0): 91})
    sweep(tmp_path, {("dpmpp", 10, 3.0): 95, ("unipc", 10, 3.0): 91}, seed=1)
    said = run(capsys, tmp_path, "--by", "clip_score")
    assert "CLIP (seed 0): sampler=unipc" in said and "CLIP (seed 1): sampler=dpmpp" in said
    assert "2 groups of cells that cannot be compared" in said
    assert "groups" not in run(capsys, tmp_path, "--by", "clip_score", "--where", "seed=1")


def test_costs_measured_elsewhere_are_no_one_budget(tmp_path, capsys):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90})
    sweep(tmp_path, {("dpmpp", 20, 3.0): 90}, hardware="another processor")
    assert "2 values of hardware" in run(capsys, tmp_path, "--by", "clip", "--latency", "100")
    assert "hardware" not in run(capsys, tmp_path, "--by", "clip", "--nfe", "100").replace("same hardware", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nfe", "3"], "nothing fits nfe ≤ 3 calls: the least is 10 calls"),
        (["--latency", "1e-6", "--memory", "1"], "memory ≤ 1 MiB: the least is 6"),
        (["--by", "clipscore"], "did you mean 'clip_score'"),
        (["--by", "psnr"], "no cell has psnr measured; measured here: fid, clip_score"),
        (["--latency", "0"], "a budget is a number above 0"),
        (["--latency", "nan"], "a budget is a number above 0"),
        (["--where", "sampler=heun"], "no cell has it"),
        (["--table", "x.doc"], ".csv, .tex, .md"),
    ],
)
def test_what_cannot_be_picked_is_one_line(tmp_path, capsys, words, said):
    sweep(tmp_path, GRID)
    error = run(capsys, tmp_path, *words, code=2)
    assert said in error and error.count("\n") == 1 and len(error) <= 500 + len("error: \n")


def test_untimed_cells_have_no_latency_to_stay_within(tmp_path, capsys):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90}, latency_s=None, latency_low=None, latency_high=None)
    assert "timing=quick" in run(capsys, tmp_path, "--by", "clip", "--latency", "1", code=2)
    assert "it is the only cell within the budget" in run(capsys, tmp_path, "--by", "clip")


def test_each_alone_is_met_but_not_together(tmp_path, capsys):
    sweep(tmp_path, {("dpmpp", 10, 3.0): 90}, peak_memory_mib=900.0)
    sweep(tmp_path, {("dpmpp", 20, 3.0): 90}, peak_memory_mib=500.0)
    assert "though each alone is met" in run(capsys, tmp_path, "--nfe", "10", "--memory", "600", code=2)


def test_the_table_is_a_file_too(tmp_path, capsys):
    sweep(tmp_path, GRID, noise=0.3)
    run(capsys, tmp_path, "--by", "clip", "--nfe", "40", "--table", str(tmp_path / "t.csv"))
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["clip_score_tied"] == "True" for row in rows)
