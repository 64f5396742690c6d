"""Races: a cell stops when one that costs no more beats it, and what is promised of that holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.search import race
from harness.store.records import Store


def simulated(means, images, rng):
    """Heavy-tailed squared errors (cells, images) with these true means, of images that are easy or hard for all."""
    hard = np.exp(1.5 * rng.normal(size=images))
    own = np.exp(0.5 * rng.normal(size=(len(means), images)))
    return np.asarray(means)[:, None] * hard * own


def run_race(values, cost, alpha=0.05, first=8):
    """The rule on a table of values: {cell: images after which it was stopped}."""
    found = race.rehearsed(values, cost, alpha, first)
    return {k: int(found.images[k]) for k in range(len(values)) if k not in found.alive}


def test_no_cell_that_is_as_good_is_stopped_more_often_than_promised():
    """All cells equal in truth: any stop is an error, and one in twenty races may have one."""
    rng = np.random.default_rng(0)
    wrong = sum(bool(run_race(simulated(np.ones(12), 128, rng), np.ones(12))) for _ in range(400))
    assert wrong <= 0.05 * 400 + 2 * np.sqrt(0.05 * 0.95 * 400)


def test_what_is_clearly_worse_is_stopped_and_the_best_never():
    rng = np.random.default_rng(1)
    means = np.array([1.0, 1.05, 4.0, 10.0, 0.2])
    cost = np.array([5.0, 5.0, 5.0, 5.0, 9.0])
    stops = [run_race(simulated(means, 128, rng), cost) for _ in range(50)]
    assert all(0 not in stop and 4 not in stop for stop in stops)
    assert np.mean([3 in stop for stop in stops]) > 0.95
    assert np.mean([stop.get(3, 999) <= 32 for stop in stops]) > 0.4, "a quarter of the images"


def test_a_cell_is_never_stopped_by_a_dearer_one():
    rng = np.random.default_rng(2)
    values = simulated([1.0, 0.01], 64, rng)
    assert not run_race(values, np.array([5.0, 10.0])) and set(run_race(values, np.array([5.0, 5.0]))) == {0}
    assert race.front(values, np.array([5.0, 10.0]), [0, 1]) == [0, 1]
    assert race.front(values, np.array([10.0, 5.0]), [0, 1]) == [1]


def test_a_cell_without_values_is_neither_stopped_nor_compared_with():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [0.1, np.nan, 0.1, 0.1], [10.0, 20.0, 30.0, 40.0]])
    assert race.beaten(values, np.ones(3), [0, 1, 2], 0.05) == {2: (0, pytest.approx(0.0152, abs=1e-3))}


def test_what_a_rehearsal_needs_and_loses():
    """Of five cells one is best, one is dearer and better, two are clearly worse; the front is the first two."""
    rng = np.random.default_rng(3)
    cost = np.array([5.0, 9.0, 5.0, 9.0, 5.0])
    values = simulated([1.0, 0.2, 30.0, 30.0, 1.02], 128, rng)
    asked = race.Asked(orders=10)
    told = race.rehearsals(values, cost, asked)
    assert told["winner"] == 1 and set(told["front"]) in ({0, 1}, {1, 4}) and len(told["orders"]) == 10
    assert all(one["winner"] and one["loss"] <= 1.1 for one in told["orders"])
    assert np.median([one["images"] for one in told["orders"]]) < 0.9 and told["orders"][0]["stopped"] == 2
    # Four cells that stop after 8 images of 128, one that stops never: 160 of 640, and of cost 2 x 7 + 1.
    values = np.array([np.ones(128), *[np.full(128, 2.0)] * 4]) + 1e-3 * rng.normal(size=(5, 128))
    found = race.rehearsed(values, np.ones(5), 0.05, 8)
    assert found.alive == [0] and found.images.tolist() == [8] * 5 and found.made == 40
    assert race.loss(np.array([[1.0], [4.0], [9.0]]), np.array([1, 1, 2]), [1, 2], root=True) == 2.0
    assert race.loss(np.array([[1.0], [4.0], [0.5]]), np.array([1, 1, 2]), [0, 1], root=False) == 2.0
    assert race.loss(np.array([[1.0], [4.0]]), np.array([1, 2]), [1], root=False) == np.inf, "none as cheap is left"


def test_rehearsals_from_the_command_line(tmp_path, capsys):
    words = ["model=gmm", "sampler=euler,dpmpp", "nfe=5", "n_images=16", "metrics=[exact]", "timing=off"]
    words += ["plots=false", "threads=1", f"results_dir={tmp_path}", "race=exact_distance", "race.orders=5"]
    assert race.main(words) == 0
    said = capsys.readouterr().out
    assert "2 cells of 16 images in 5 random orders" in said and "loss at its worst point" in said
    (path,) = (tmp_path / "races").iterdir()
    told = json.loads(path.read_text())
    assert len(told["orders"]) == 5 and told["winner"] in told["front"]
    rows = Store(tmp_path).images(["cell_id"], None)
    assert rows["cell_id"].value_counts().tolist() == [16] * 2, "every cell ran to the end, once"


def test_a_race_from_the_command_line(tmp_path, capsys):
    words = ["model=gmm", "sampler=euler,dpmpp,ipndm", "nfe=5,10", "n_images=32", "metrics=[exact]", "timing=off"]
    words += ["plots=false", "threads=1", f"results_dir={tmp_path}", "race=exact_distance", "race.first=16"]
    assert race.main(words) == 0
    said = capsys.readouterr().out
    assert "round 1 of 2: 16 images" in said and "front: nfe 5:" in said and "front: nfe 10:" in said
    (path,) = (tmp_path / "races").iterdir()
    told = json.loads(path.read_text())
    states = {one["cell"]: one["state"] for one in told["cells"]}
    assert len(states) == 6 and sorted(states.values()).count("front") == 2
    stopped = [one for one in told["cells"] if one["state"] == "stopped"]
    assert any("euler" in one["cell"] for one in stopped) and all(one["p"] < 0.05 / 12 for one in stopped)
    assert told["images_run"] == 16 * 6 + 32 * (6 - sum(one["images"] == 16 for one in stopped))
    # Every cell has a record, a stopped one of the images that it got.
    rows = {row["cell_id"]: row for row in Store(tmp_path).rows([one["cell_id"] for one in told["cells"]])}
    assert {rows[one["cell_id"]]["n_images"] for one in stopped} <= {16, 32} and len(rows) == 6
    assert race.main(words) == 0, "the same race again"
    assert "0 to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["race=fid"], "race='fid' is not valid; .*valid: attributes_all"),
        (["race.cots=nfe"], "unknown setting 'race.cots'; did you mean 'race.cost'"),
        (["race.alpha=2"], "race.alpha=2 is not valid"),
        (["race.first=x"], "race.first=x is not valid: give a number"),
        (["race.orders=-1"], "race.orders=-1 is not valid"),
        (["race.first=2"], "a test needs at least 4 images"),
        (["sampler=eulr"], "unknown sampler 'eulr'"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(words, message, capsys):
    import re

    assert race.main(words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
