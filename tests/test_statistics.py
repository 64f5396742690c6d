"""Intervals hold what they promise, p-values are those of the permutation test, corrections those of their papers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from harness import statistics
from harness.metrics import bootstrap, fid
from harness.metrics.features.moments import Gaussian, frechet_distance, gaussian_of

REPEATS = 1000


def covers(low, high, truth) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


VALUES = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "skewed like CLIP scores": (lambda rng, shape: -rng.gamma(0.8, 1, shape), -0.8),
    "skewed like errors": (lambda rng, shape: rng.lognormal(0, 0.5, shape), np.exp(0.125)),
}


@pytest.mark.parametrize("n", (16, 64, 256))
@pytest.mark.parametrize("name", VALUES)
def test_the_interval_of_a_mean_covers(name, n):
    draw, truth = VALUES[name]
    values = draw(np.random.default_rng(n), (n, REPEATS))
    assert 0.93 <= covers(*statistics.mean_interval(values), truth) <= 0.97
    if n == 16 and name != "normal":  # what it is used instead of
        weights = statistics.resample_counts(n) / n
        low, high = np.quantile(weights @ values, [0.025, 0.975], axis=0)
        assert covers(low, high, truth) < 0.92


@pytest.mark.parametrize("n", (16, 64, 256))
def test_the_interval_of_a_share_covers(n):
    rng = np.random.default_rng(n)
    truth = rng.uniform(0.5, 1, REPEATS)  # one share has steps in its coverage: what holds is the mean over shares
    values = (rng.random((n, REPEATS)) < truth).astype(float)
    low, high = statistics.mean_interval(values)
    assert 0.93 <= covers(low, high, truth) <= 0.97
    all_right = statistics.mean_interval(np.ones(n))
    assert all_right == (pytest.approx(1 - 3.84 / (n + 3.84), abs=1e-3), 1)


@pytest.mark.parametrize("n", (16, 64, 256))
def test_the_interval_of_a_difference_of_shares_covers(n):
    rng = np.random.default_rng(n)
    up, down = rng.uniform(0.05, 0.3, REPEATS), rng.uniform(0.05, 0.3, REPEATS)
    u = rng.random((n, REPEATS))
    values = (u < up).astype(float) - (u > 1 - down)
    low, high = statistics.mean_interval(values, differences=True)
    assert 0.93 <= covers(low, high, up - down) <= 0.975


@pytest.mark.parametrize("n", (16, 64, 256))
def test_a_paired_comparison_covers_and_is_narrower_than_the_values(n):
    rng = np.random.default_rng(n)
    shared, shift = rng.gamma(2, 2, (n, REPEATS)), 0.2
    before = shared + 0.3 * rng.normal(size=shared.shape)
    after = shared + shift + 0.3 * rng.exponential(size=shared.shape) - 0.3
    found = statistics.paired(before, after)
    assert 0.93 <= covers(found.low, found.high, shift) <= 0.97
    own_low, own_high = statistics.mean_interval(after)
    assert np.mean(found.high - found.low) < 0.3 * np.mean(own_high - own_low)
    assert np.mean(found.effect) == pytest.approx(shift / (0.3 * np.sqrt(2)), rel=0.1)


def test_a_comparison_says_how_large_how_often_and_how_surely():
    before = np.array([1.0, 2.0, 3.0, 4.0])
    found = statistics.paired(before, before + np.array([1.0, 1.0, 0.0, -2.0]))
    assert (found.n, found.difference, found.superiority) == (4, 0, (2 + 0.5) / 4)
    assert found.p == 1 and found.effect == 0
    same = statistics.paired(before, before)
    assert (same.low, same.high, same.p) == (0, 0, 1)
    with pytest.raises(ValueError, match="one shape"):
        statistics.paired(before, before[:3])


def test_columns_do_not_depend_on_each_other():
    values = np.random.default_rng(0).normal(size=(40, 5))
    values[:, 2] = values[:, 2] > 0
    together = statistics.mean_interval(values)
    for k in range(5):
        alone = statistics.mean_interval(values[:, k])
        assert alone == pytest.approx((together[0][k], together[1][k]), rel=1e-12)


def test_values_that_hardly_vary_give_a_finite_interval():
    one_outlier = np.zeros(64)
    one_outlier[3] = 5.0
    low, high = statistics.mean_interval(one_outlier, differences=True)
    assert -0.1 < low < 0 < 0.2 < high < 0.4
    assert statistics.mean_interval(np.full(10, 3.7)) == (3.7, 3.7)
    assert np.isnan(statistics.mean_interval(np.array([3.7]))).all(), "one value has no interval"


SIGNS = {
    "normal": lambda rng, shape: rng.normal(size=shape) + 3 * rng.normal(size=shape[1]) / np.sqrt(shape[0]),
    "heavy": lambda rng, shape: rng.standard_cauchy(shape) + 5 * rng.normal(size=shape[1]),
    "one image against all": lambda rng, shape: np.vstack(
        [rng.uniform(-90, 1, shape[1]), 1 + 0.01 * rng.normal(size=shape)]
    )[: shape[0]],
    "few differ": lambda rng, shape: (rng.random(shape) < 0.1) * (1 + rng.normal(size=shape)),
    "shares": lambda rng, shape: rng.integers(-1, 2, shape).astype(float),
    "the same in all": lambda rng, shape: np.ones(shape) * rng.integers(-1, 2, shape[1]),
    "huge": lambda rng, shape: 1e150 * (rng.normal(size=shape) + 0.4),
    "tiny": lambda rng, shape: 1e-140 * (rng.normal(size=shape) + 0.4),
}


@pytest.mark.parametrize("n", (1, 2, 5, 16, 200))
@pytest.mark.parametrize("kind", SIGNS)
def test_whether_an_interval_holds_0_is_what_its_ends_say(kind, n):
    d = SIGNS[kind](np.random.default_rng(n), (n, 200))
    low, high = statistics.mean_interval(d, differences=True)
    np.testing.assert_array_equal(statistics.holds_0(d), (low <= 0) & (high >= 0))


def test_few_intervals_are_made_to_ask_whether_they_hold_0(monkeypatch):
    real, asked = statistics.mean_interval, []
    monkeypatch.setattr(statistics, "mean_interval", lambda d, *a, **k: asked.append(d.shape[1]) or real(d, *a, **k))
    statistics.holds_0(SIGNS["normal"](np.random.default_rng(0), (64, 1000)))
    assert sum(asked) < 50


@pytest.mark.parametrize("n, least", ((5, 0.92), (6, 0.94), (10, 0.93), (40, 0.93)))
def test_the_interval_of_a_median_covers(n, least):
    values = np.random.default_rng(n).lognormal(0, 1, (REPEATS, n))
    low, high = np.array([statistics.median_interval(row) for row in values]).T
    assert least <= covers(low, high, 1.0) <= 0.98


def enumerated(d: np.ndarray) -> float:
    signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    return float((np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-9)).mean())


@pytest.mark.parametrize("shift", (0.1, 0.4, 0.7, 1.0))
def test_sign_flip_p_is_the_share_of_signings(shift):
    rng = np.random.default_rng(7)
    for n in (5, 9, 12):  # counted
        d = rng.normal(shift, 1, n)
        assert statistics.sign_flip_p(d) == pytest.approx(enumerated(d), rel=1e-9)
    for n in (14, 16):  # approximated
        d = rng.normal(shift, 1, n)
        exact = enumerated(d)
        rel = 0.08 if exact > 2.0 ** (6 - n) else 1.0
        assert statistics.sign_flip_p(d) == pytest.approx(exact, rel=rel)


def test_sign_flip_p_far_out():
    assert statistics.sign_flip_p(np.arange(1.0, 41)) == pytest.approx(2.0**-39)
    d = np.r_[np.ones(30), -np.ones(5), np.zeros(100)]
    assert statistics.sign_flip_p(d) == pytest.approx(stats.binomtest(5, 35).pvalue, rel=1e-9)
    # A normal tail, where drawing signs could never reach: 200 values that differ little in size.
    d = np.where(np.arange(200) < 160, 1.0, -1.0) * np.linspace(0.99, 1.01, 200)
    assert statistics.sign_flip_p(d) == pytest.approx(stats.binomtest(40, 200).pvalue, rel=0.5)


def test_sign_flip_p_is_uniform_where_nothing_changed():
    p = statistics.sign_flip_p(np.random.default_rng(0).laplace(size=(48, 20_000)))
    for alpha in (0.5, 0.05, 0.01, 0.001):
        assert (p <= alpha).mean() == pytest.approx(alpha, rel=0.05, abs=3 * np.sqrt(alpha / 20_000))


def test_corrections_are_those_of_the_papers():
    p = np.array([0.01, 0.04, 0.03, 0.005, 1.0])
    assert statistics.holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 1.0])
    assert statistics.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    rng = np.random.default_rng(0)
    nothing = rng.random((REPEATS, 40))
    alarms = np.mean([(statistics.holm(row) < 0.05).any() for row in nothing])
    assert 0.03 < alarms < 0.07


def test_the_frechet_distance_of_two_samples_has_the_expectation_of_the_closed_form():
    """N(0, 1): 2/N + 2 (1 − c4²), exactly. N(0, I_d): 2d/N + d(d+1)/(2(N−1)) but for O(1/N²)."""
    rng, n = np.random.default_rng(0), 20
    found = [frechet_distance(*(gaussian_of(rng.normal(size=(n, 1))) for _ in "ab")) for _ in range(2000)]
    c4 = np.sqrt(2 / (n - 1)) * np.exp(special.gammaln(n / 2) - special.gammaln((n - 1) / 2))
    expected = 2 / n + 2 * (1 - c4**2)
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(2000))
    n, d = 400, 8
    found = [frechet_distance(*(gaussian_of(rng.normal(size=(n, d))) for _ in "ab")) for _ in range(400)]
    expected = 2 * d / n + d * (d + 1) / (2 * (n - 1))
    assert np.mean(found) == pytest.approx(expected, rel=0.02)


def test_fid_infinity_has_no_bias_left_and_its_interval_covers():
    """Where the images' law is not the reference's, FID has a known value; it is biased by much more than its error."""
    d, n = 8, 128
    rng = np.random.default_rng(0)
    spread = 1 / np.arange(1, d + 1)
    target = Gaussian(10**9, np.zeros(d), np.diag(spread))
    truth = frechet_distance(Gaussian(10**9, 0.4 * np.sqrt(spread), np.diag(1.3 * spread)), target)
    biased, limits, bounds = [], [], []
    for seed in range(400):
        x = (0.4 + np.sqrt(1.3) * rng.normal(size=(n, d))) * np.sqrt(spread)
        biased.append(frechet_distance(gaussian_of(x), target))
        limits.append(fid.infinity(x, target, biased[-1], 2, seed))
        low, high = fid.interval(fid.influence(x, target), biased[-1], 500, seed)
        bounds.append((low, high))
    error = np.std(limits) / np.sqrt(400)
    assert np.mean(biased) - truth > 6 * error
    assert abs(np.mean(limits) - truth) < 3 * error
    low, high = np.array(bounds).T
    assert 0.92 <= covers(low, high, np.mean(biased)) <= 0.98
    moved = np.array(limits) - biased
    assert 0.92 <= covers(low + moved, high + moved, truth) <= 0.98


@pytest.mark.parametrize("n", (64, 256))
def test_the_difference_of_two_fids_of_paired_images_covers(n):
    """The influences of paired images: an interval far narrower than that of either FID."""
    d, rng = 8, np.random.default_rng(n)
    spread = np.sqrt(1 / np.arange(1, d + 1))
    target = Gaussian(10**9, np.zeros(d), np.diag(spread**2))
    differences, intervals, widths = [], [], []
    before, after = np.empty((n, REPEATS)), np.empty((n, REPEATS))
    for k in range(REPEATS):
        x = (0.5 + rng.normal(size=(n, d))) * spread
        y = 1.05 * x + 0.1 * spread * rng.normal(size=(n, d))
        for out, images in ((before, x), (after, y)):
            out[:, k] = fid.influence(images, target) + frechet_distance(gaussian_of(images), target)
    found = statistics.paired(before, after)
    differences, intervals = found.difference, (found.low, found.high)
    assert 0.93 <= covers(*intervals, differences.mean()) <= 0.97
    widths = [np.mean(high - low) for low, high in (intervals, statistics.mean_interval(before))]
    assert widths[0] < 0.5 * widths[1]


def test_a_metric_records_the_interval():
    values = np.array([1.0, 2.0, 4.0, np.nan])
    columns = bootstrap.measured("clip_score", values, 200, 0)
    assert columns["clip_score_n"] == 3
    assert columns["clip_score"] == pytest.approx(7 / 3)
    assert columns["clip_score_low"] < 7 / 3 < columns["clip_score_high"]


def test_holm_over_a_family_of_which_some_were_asked_counts_the_others_as_certain():
    p = np.array([0.001, 0.02, 0.004, 0.3])
    assert statistics.holm(p, 10) == pytest.approx(statistics.holm(np.r_[p, np.ones(6)])[:4])
    assert statistics.holm(p, 4) == pytest.approx(statistics.holm(p))
