"""Rows that were measured by different definitions may stand in one table, but not unsaid."""

from __future__ import annotations

import pandas as pd
import pytest
from records import cell_row, write

from harness.store.records import Store
from reports.records import groups, load
from reports.summary import incomparable


def cells(tmp_path, *rows: dict) -> pd.DataFrame:
    store = Store(tmp_path)
    for row in rows:
        write(store, row, pictures=False)
    return load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fid_extractor": "inception"}, "do not compare fid across 2 values of fid_extractor"),
        ({"n_images": 64}, "fid across 2 values of n_images (256, 64)"),
        ({"clip_definition": "another"}, "values of clip_definition"),
        ({"model_fingerprint": "b"}, "any value across 2 values of model_fingerprint of embedded (a, b)"),
        ({"data_fingerprint": "b"}, "data_fingerprint of shapes"),
        ({"workers": 2}, "latency_s across 2 values of workers (1, 2)"),
    ],
)
def test_each_definition_that_differs_is_said(tmp_path, change, said):
    common = {"model_fingerprint": "a", "data_fingerprint": "a", "workers": 1}
    same = cells(tmp_path / "same", cell_row("dpmpp", 10, **common), cell_row("dpmpp", 20, **common))
    assert incomparable(same) == []
    other = cells(tmp_path / "other", cell_row("dpmpp", 10, **common), cell_row("dpmpp", 20, **{**common, **change}))
    (line,) = incomparable(other)
    assert said in line


def test_two_models_of_different_name_are_two_models(tmp_path):
    rows = (cell_row(model=name, model_fingerprint=name) for name in ("embedded", "sd15"))
    assert incomparable(cells(tmp_path, *rows)) == []


def test_two_kinds_of_noise_are_two_lines_and_old_records_have_the_first(tmp_path):
    rows = [
        cell_row("dpmpp", steps, noise=noise) for steps, noise in ((5, None), (10, "independent"), (10, "brownian"))
    ]
    (group,) = groups(cells(tmp_path, *rows))
    assert group.cells["label"].value_counts().to_dict() == {"dpmpp independent": 2, "dpmpp brownian": 1}


def test_a_figure_takes_rows_of_one_definition(tmp_path):
    rows = [cell_row("dpmpp", steps, model_fingerprint=mark) for steps in (5, 10, 20) for mark in ("a", "b")]
    rows.append(cell_row("dpmpp", 50, model_fingerprint="b"))
    (group,) = groups(cells(tmp_path, *rows))
    chosen = group.select("steps", ["fid"])
    assert set(chosen.cells["model_fingerprint"]) == {"b"} and len(chosen.cells) == 4
    assert "model fingerprint" in chosen.left_out and "model fingerprint b" in chosen.held
