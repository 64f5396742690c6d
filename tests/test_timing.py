"""Timings read in pairs: the ratio of two cells of one block, its interval, and blocks in which the machine changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.store import timings


def rows(seconds, block="one", kind="timed", rounds=None) -> pd.DataFrame:
    n = len(seconds)
    rounds = range(n) if rounds is None else rounds
    return pd.DataFrame({"block": [block] * n, "round": list(rounds), "kind": kind, "total_s": seconds})


def noisy(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A machine whose load wanders over the rounds, and whose bursts hit one run in eight."""
    load = np.cumsum(rng.normal(0, 0.05, n))
    bursts = (rng.random((2, n)) < 0.125) * rng.exponential(0.5, (2, n))
    a, b = np.exp(load + rng.normal(0, 0.08, (2, n)) + bursts)
    return a, 2.5 * b


def test_the_ratio_is_of_the_second_over_the_first_and_exact_where_nothing_scatters():
    got = timings.paired_ratio(rows([1.0, 2.0, 4.0, 8.0, 16.0]), rows([2.5, 5.0, 10.0, 20.0, 40.0]))
    assert (got.ratio, got.low, got.high) == pytest.approx((2.5, 2.5, 2.5)) and got.rounds == 5 and got.significant


def test_rounds_are_paired_by_block_and_number_not_by_place():
    a = rows([1.0, 2.0, 3.0, 4.0, 5.0, 99.0], rounds=[0, 1, 2, 3, 4, 7])
    b = rows([10.0, 8.0, 6.0, 4.0, 2.0, 77.0], rounds=[4, 3, 2, 1, 0, 8])
    assert timings.paired_ratio(a, b).ratio == pytest.approx(2) and timings.paired_ratio(a, b).rounds == 5
    assert timings.paired_ratio(a, b.assign(block="other")) is None
    assert timings.paired_ratio(a, b.assign(kind="warmup")) is None
    assert timings.paired_ratio(a, b.assign(round=None)) is None  # of a version that knew no rounds
    assert timings.paired_ratio(a, b.drop(columns=["block", "round"])) is None


@pytest.mark.parametrize("n", (5, 8, 12, 20))
def test_the_interval_covers(n):
    rng, hits, trials = np.random.default_rng(n), 0, 1000
    for _ in range(trials):
        got = timings.ratio_of(*noisy(rng, n))
        hits += got.low <= 2.5 <= got.high
    assert 0.92 <= hits / trials <= 0.975


def test_a_burst_on_one_run_moves_the_ratio_little():
    a = np.full(10, 1.0) * np.linspace(0.99, 1.01, 10)
    b = 2 * a
    b[3] *= 30
    assert timings.ratio_of(a, b).ratio == pytest.approx(2, rel=0.01)


def test_a_block_that_drifted_says_so_and_a_noisy_one_does_not():
    rng = np.random.default_rng(0)
    steady = [timings.drifted(np.exp(rng.normal(0, 0.15, (12, 3)))) for _ in range(500)]
    assert np.mean(steady) < 0.02
    ramp, step = np.linspace(0, 0.5, 12)[:, None], np.where(np.arange(12) < 6, 0.0, 0.5)[:, None]
    for change in (ramp, -ramp, step):
        found = [timings.drifted(np.exp(change + rng.normal(0, 0.05, (12, 3)))) for _ in range(200)]
        assert np.mean(found) > 0.95
    assert not timings.drifted(np.exp(np.linspace(0, 0.05, 12)))  # 5 %: significant, and too small to matter
