"""Statistics below their minimum: null where nothing can be said, and never a warning of numpy on the terminal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_world import batch

from harness import statistics
from harness.measure import cost
from harness.metrics import bootstrap, load
from harness.models import mixture

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
NAMES = ["fid", "kid", "precision_recall", "clip_score", "discretisation", "similarity", "attributes"]


def measured(name, context, world, n, same=False):
    """The columns of one metric of n images: held-out drawings, or one of them n times."""
    (metric,) = load.build([name], context)
    rows = range(n)
    images = world.images([0] * n if same else list(rows))
    latents = (
        torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(0)) if not same else torch.ones(n, 4, 4, 4)
    )
    more = {"sources": world.sources(rows, "inpaint"), "masks": world.masks(rows), "latents": latents}
    metric.update(batch(world, rows, images, **more))
    return metric.compute()


def columns(row):
    """Those with an interval: (value, low, high)."""
    return {name: (row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in row if f"{name}_low" in row}


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_few_images_have_no_nan_and_no_interval_that_pretends(name, same, make_context, world_data):
    context = make_context(task="inpaint", reference_latents=lambda i: torch.full((len(i), 4, 4, 4), 0.5))
    for n in (1, 2, 3, 4, 5, 8):
        row = measured(name, context, world_data, n, same)
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(map(math.isfinite, numbers)), (n, row)
        for column, (value, low, high) in columns(row).items():
            assert (low is None) == (high is None) and (value is not None or low is None), (n, column)
            if n == 1:
                assert low is None, column
            if low is not None:
                assert low <= value <= high, (n, column)


@pytest.mark.parametrize("name", ["clip_score", "attributes", "similarity", "discretisation"])
def test_one_image_has_a_value_without_an_interval(name, make_context, world_data):
    context = make_context(task="inpaint", reference_latents=lambda i: torch.full((len(i), 4, 4, 4), 0.5))
    found = columns(measured(name, context, world_data, 1))
    assert any(value is not None for value, _, _ in found.values())
    assert all(low is None and high is None for _, low, high in found.values())
    assert any(low is not None for _, low, _ in columns(measured(name, context, world_data, 8)).values())


def test_the_least_numbers_of_images_of_the_distances(make_context, world_data):
    """FID, KID from two images on, KID's interval from five, precision and recall from more than k."""
    context = make_context()
    assert measured("fid", context, world_data, 1)["fid"] is None
    assert measured("fid", context, world_data, 2)["fid"] is not None
    assert measured("fid", context, world_data, 8)["fid_infinity"] is None, "fewer images than features have no limit"
    kid = [measured("kid", context, world_data, n) for n in (1, 2, 3, 4, 5, 6)]
    assert [row["kid"] is None for row in kid] == [True, *[False] * 5]
    assert [row["kid_low"] is None for row in kid] == [*[True] * 4, False, False]
    hits = [measured("precision_recall", context, world_data, n)["pr_precision"] for n in (1, 3, 4)]
    assert [value is None for value in hits] == [True, True, False], "k is 3"


def test_images_that_are_all_alike_have_a_distance_without_an_interval(make_context, world_data):
    """Nothing varies, so nothing says how far the distance would move with other images."""
    row = measured("fid", make_context(), world_data, 8, same=True)
    assert row["fid"] > 0 and row["fid_low"] is None and row["fid_high"] is None


def test_a_reference_of_nothing_but_zeros_has_no_relative_distance(make_context, world_data):
    context = make_context(reference_latents=lambda i: torch.zeros(len(i), 4, 4, 4))
    row = measured("discretisation", context, world_data, 4)
    assert row["discretisation_error"] is None and row["discretisation_error_low"] is None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_law_and_the_exact_solution_of_few_points(n, make_context, world_data):
    law = mixture.plane()
    x = torch.from_numpy(law.sample(np.random.default_rng(0), np.full(n, mixture.ANY)))
    context = make_context(law=law, exact_latents=lambda i: x[i] + 0.1, makes_images=False, reference_count=64)
    for metric in load.build(["law", "exact"], context):
        given = batch(world_data, range(n), latents=x, prompts=[""] * n)
        metric.update(given)
        row = metric.compute()
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
        for _, low, high in columns(row).values():
            assert (low is None and high is None) if n == 1 else (low is None or low < high)


def test_one_pair_is_a_difference_without_an_interval():
    found = statistics.paired(np.array([1.0]), np.array([1.5]))
    assert found.difference == 0.5 and np.isnan([found.low, found.high, found.effect]).all() and found.p == 1
    columns = statistics.paired(np.array([[1.0, 2.0]]), np.array([[1.0, 3.0]]))
    assert np.isnan([columns.low, columns.high]).all() and list(columns.p) == [1, 1]
    two = statistics.paired(np.array([1.0, 2.0]), np.array([1.5, 2.7]))
    assert two.low < two.difference < two.high and np.isfinite(two.effect)


def test_one_timed_run_is_a_latency_without_an_interval():
    row = {"kind": "timed", "total_s": 2.0, "text_s": 0.1, "denoise_s": 1.0, "decode_s": 0.5, "steps": [0.5, 0.5]}
    once, thrice = cost.summarise([row]), cost.summarise([row, {**row, "total_s": 2.2}, {**row, "total_s": 2.1}])
    assert once["latency_s"] == 2.0 and once["latency_low"] is None and once["latency_high"] is None
    assert thrice["latency_low"] == 2.0 and thrice["latency_high"] == 2.2


def test_the_lower_bound_of_what_cannot_be_negative():
    assert bootstrap.at_least_0(-1.0) == 0 and bootstrap.at_least_0(2.0) == 2 and bootstrap.at_least_0(None) is None
    assert bootstrap.around(3.0, np.array([0.5]), 10, 0) == (None, None)
    assert bootstrap.around(3.0, np.zeros(4), 10, 0) == (None, None), "no image moves it, and it is not 0"
    assert bootstrap.around(0.0, np.zeros(4), 10, 0) == (0.0, 0.0), "all images agree that there is no distance"
