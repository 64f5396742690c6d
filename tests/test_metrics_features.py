"""FID, KID, precision/recall: equal to torchmetrics, exactly mergeable, with intervals that cover, sane on drawings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from metric_world import batch, feed, needs_shipped

from harness.errors import InputError
from harness.metrics import fid, kid, load, precision_recall
from harness.metrics.features import files, moments, reference_images
from harness.metrics.features.moments import Gaussian, Moments, frechet_distance, gaussian_of


class Pass(torch.nn.Module):
    """An "extractor" for torchmetrics: the features come as they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x):
        return x.flatten(1)


def draw(seed: int, n: int, dim: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(dim) / (dim / 4))  # a decaying spectrum, as features have
    return rng.normal(size=(n, dim)) * np.sqrt(spread) * scale + shift


@pytest.mark.parametrize("dim, n", [(16, 300), (96, 400), (96, 128)])
def test_fid_equals_torchmetrics(dim, n):
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, fake = draw(0, 600, dim), draw(1, n, dim, 1.2, 0.1)
    theirs = FrechetInceptionDistance(feature=Pass(dim), normalize=True).set_dtype(torch.float64)
    for part, is_real in ((real, True), (fake, False)):
        theirs.update(torch.from_numpy(part)[:, :, None, None], real=is_real)
    ours = frechet_distance(gaussian_of(fake), gaussian_of(real))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_fid_equals_the_formula_with_scipys_square_root():
    from scipy.linalg import sqrtm

    a, b = gaussian_of(draw(0, 500, 24)), gaussian_of(draw(1, 500, 24, 1.3, 0.2))
    product = sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * product)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("degree", [3, 2])
def test_kid_equals_torchmetrics(degree):
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = draw(0, 200, 32), draw(1, 200, 32, 1.2, 0.1)
    theirs = KernelInceptionDistance(feature=Pass(32), subsets=1, subset_size=200, degree=degree, normalize=True)
    for part, is_real in ((real, True), (fake, False)):
        theirs.update(torch.from_numpy(part), real=is_real)
    expected = float(theirs.compute()[0])
    value = mmd(fake, real, degree, np.ones((1, len(fake))))[0]
    assert value == pytest.approx(expected, rel=1e-6)


def mmd(x: np.ndarray, y: np.ndarray, degree: int, weights: np.ndarray) -> np.ndarray:
    return kid.mmd(kid.kernel_sums(x, y, degree, weights), weights, kid.within(y, degree))


def test_kid_is_unbiased_and_its_blocks_add_up(monkeypatch):
    values = [mmd(draw(s, 60, 8), draw(s + 999, 80, 8), 3, np.ones((1, 60)))[0] for s in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)  # the same distribution: 0 on average
    x, y = draw(0, 60, 8), draw(1, 80, 8)
    weights = kid.resample_counts(60, 50, 0)
    whole, moved = mmd(x, y, 3, weights), kid.influence(kid.kernel_sums(x, y, 3, weights))
    monkeypatch.setattr(kid, "BLOCK", 7)
    monkeypatch.setattr(kid, "ACROSS", 11)
    assert mmd(x, y, 3, weights) == pytest.approx(whole, rel=1e-12)
    assert kid.influence(kid.kernel_sums(x, y, 3, weights)) == pytest.approx(moved, rel=1e-12, abs=1e-14)


def test_moments_of_the_same_batches_are_exactly_equal_in_any_order():
    rng = np.random.default_rng(0)
    parts = [
        (rng.normal(size=(int(n), 12)) * 10 ** rng.uniform(-3, 3, 12)).astype(np.float32)
        for n in rng.integers(1, 40, 24)
    ]
    whole = Moments(12)
    for part in parts:
        whole.add(part)
    for seed in range(10):
        merged = Moments(12)
        for k in np.random.default_rng(seed).permutation(len(parts)):
            merged.add(parts[k])
        assert merged.n == whole.n
        assert np.array_equal(merged.gaussian().mean, whole.gaussian().mean)
        assert np.array_equal(merged.gaussian().covariance, whole.gaussian().covariance)
    everything = np.concatenate(parts).astype(np.float64)
    assert whole.gaussian().covariance == pytest.approx(np.cov(everything.T), rel=1e-9)


def test_merged_shards_of_every_metric_give_exactly_the_whole(make_context, world_data):
    context = make_context(task="inpaint", reference_latents=lambda i: torch.ones(len(i), 4, 4, 4))
    latents = torch.randn(96, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def piece(rows):
        sources = world_data.images([i + 1 for i in rows])
        return batch(world_data, rows, sources=sources, masks=world_data.masks(rows), latents=latents[list(rows)])

    pieces = [piece(range(first, first + 16)) for first in range(0, 96, 16)]
    whole, left, right = (load.build(load.DEFAULT, context) for _ in range(3))
    assert len(whole) == len(load.DEFAULT)
    for k, one in enumerate(pieces):
        for a, b in zip(whole, (left, right)[k % 2], strict=True):
            a.update(one), b.update(one)
    for a, b, c in zip(whole, right, left, strict=True):
        b.merge(c.samples)
        assert a.compute() == b.compute(), a.name


def test_shards_that_overlap_are_refused(make_context, world_data):
    (metric,) = load.build(["fid"], make_context())
    feed(metric, world_data, 32, 16)
    metric.update(batch(world_data, range(31, 40)))
    with pytest.raises(ValueError, match="image 31 was measured twice"):
        metric.compute()


@pytest.mark.parametrize("dim, n, scale, shift", [(8, 200, 1.1, 0.05), (48, 128, 1.1, 0.1), (48, 40, 1.0, 0.1)])
def test_fid_interval_covers_and_is_not_idle(dim, n, scale, shift):
    """How often the interval of one sample holds the mean FID of such samples: near 95 %, and not by being huge."""
    spread = np.exp(-np.arange(dim) / (dim / 4))
    target = Gaussian(10**6, np.zeros(dim), np.diag(spread))
    samples = [draw(s, n, dim, scale, shift) for s in range(120)]
    values = np.array([frechet_distance(gaussian_of(x), target) for x in samples])
    bounds = [fid.interval(fid.influence(x, target), v, 200, 0) for x, v in zip(samples, values, strict=True)]
    low, high = np.array(bounds).T
    assert (low <= values).all() and (values <= high).all()
    assert ((low <= values.mean()) & (values.mean() <= high)).mean() >= 0.90
    assert np.mean(high - low) < 1.75 * 2 * 1.96 * values.std()


def test_fid_influence_is_the_derivative():
    """Against FID computed anew with one image's weight changed, for more and for fewer images than features."""
    dim = 12
    target = gaussian_of(draw(9, 500, dim))
    for n in (40, 8):
        x = draw(3, n, dim, 1.2, 0.2)
        moved = fid.influence(x, target)
        assert moved.mean() == pytest.approx(0, abs=1e-9)
        for image in (0, 5):
            step, values = 1e-4, []
            for sign in (1, -1):
                w = np.full(n, 1.0)
                w *= 1 - sign * step
                w[image] += sign * step * n
                mean = w @ x / n
                covariance = ((x - mean) * w[:, None]).T @ (x - mean) / (n - 1)
                values.append(frechet_distance(Gaussian(n, mean, covariance), target))
            # The mean of the influences under the weights is the linear part of the change.
            expected = (values[0] - values[1]) / (2 * step)
            assert moved[image] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_fid_infinity_takes_most_of_the_bias_away():
    dim, n = 32, 256
    target = Gaussian(10**6, np.zeros(dim), np.diag(np.exp(-np.arange(dim) / (dim / 4))))
    pairs = []
    for seed in range(10):
        x = draw(seed, n, dim)
        value = frechet_distance(gaussian_of(x), target)
        pairs.append((value, fid.infinity(x, target, value, 10, 0)))
    biased, limit = np.mean(pairs, axis=0)  # the true distance is 0
    assert biased > 0.1 and abs(limit) < 0.15 * biased
    assert fid.infinity(x[:60], target, value, 10, 0) is None  # too few for a line over 1/N


def test_precision_and_recall_tell_a_narrow_sample_from_a_wrong_one():
    real = draw(0, 400, 4)
    same = precision_recall.manifold_hits(draw(1, 400, 4), real, 3)
    narrow = precision_recall.manifold_hits(draw(2, 400, 4, 0.2), real, 3)
    wrong = precision_recall.manifold_hits(draw(3, 400, 4, 1.0, 30.0), real, 3)
    mean = {name: [case[name].mean() for case in (same, narrow, wrong)] for name in same}
    assert mean["pr_precision"][0] > 0.75 and mean["pr_precision"][1] > 0.9 and mean["pr_precision"][2] == 0
    assert mean["pr_recall"][0] > 0.75 and mean["pr_recall"][1] < 0.5 and mean["pr_recall"][2] == 0
    assert mean["density"][0] == pytest.approx(1, abs=0.15) and mean["density"][2] == 0
    assert mean["coverage"][0] > 0.85 and mean["coverage"][2] == 0


def test_precision_and_recall_equal_the_definition():
    fake, real, k = draw(1, 40, 3), draw(0, 50, 3), 2

    def inside(points, centres):
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        radius = np.sort(gaps, axis=1)[:, k]  # column 0 is the point itself
        return np.linalg.norm(points[:, None] - centres[None], axis=2) <= radius[None]

    hits = precision_recall.manifold_hits(fake, real, k)
    assert np.array_equal(hits["pr_precision"], inside(fake, real).any(1))
    assert np.array_equal(hits["pr_recall"], inside(real, fake).any(1))
    assert hits["density"] == pytest.approx(inside(fake, real).sum(1) / k)
    assert np.array_equal(hits["coverage"], inside(fake, real).any(0))


@pytest.mark.parametrize("n", [60, 12])  # more and fewer than features: eigenvalues of another matrix
def test_blocks_of_images_give_what_all_at_once_give(monkeypatch, n):
    fake, real = draw(1, n, 16, 1.2, 0.1), draw(0, 80, 16)
    target = gaussian_of(real)

    def everything() -> list[np.ndarray]:
        hits = precision_recall.manifold_hits(fake, real, 3)
        limit = fid.infinity(fake, target, 1.0, 2, 0)
        return [*hits.values(), fid.influence(fake, target), np.array(limit or 0.0)]

    whole = everything()
    monkeypatch.setattr(precision_recall, "BLOCK", 7)
    monkeypatch.setattr(precision_recall, "ACROSS", 11)
    monkeypatch.setattr(fid, "BLOCK", 7)
    monkeypatch.setattr(moments, "BLOCK", 7)
    *hits, moved, limit = everything()
    assert all(np.array_equal(one, other) for one, other in zip(hits, whole, strict=False))
    assert moved == pytest.approx(whole[-2], rel=1e-9, abs=1e-11) and limit == pytest.approx(whole[-1], rel=1e-9)


def test_features_of_float32_are_measured_as_float64_ones_are():
    """They are held as they come, half as large; the arithmetic is double all the same."""
    fake, real = draw(1, 60, 16, 1.2, 0.1).astype(np.float32), draw(0, 80, 16).astype(np.float32)
    target, weights = gaussian_of(real), np.ones((1, 60))

    def everything(fake: np.ndarray, real: np.ndarray) -> list[np.ndarray]:
        hits = precision_recall.manifold_hits(fake, real, 3).values()
        return [fid.influence(fake, target), mmd(fake, real, 3, weights), *hits]

    for one, other in zip(everything(fake, real), everything(fake.astype(float), real.astype(float)), strict=True):
        assert np.array_equal(one, other)


def blurred(images: torch.Tensor, width: int) -> torch.Tensor:
    """Mean over a window of width x width pixels."""
    around = torch.nn.functional.pad(images.float(), (width // 2,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(around, width, 1).round().to(torch.uint8)


def noisy(images: torch.Tensor, amount: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + amount * noise).clamp(0, 255).round().to(torch.uint8)


@needs_shipped
@pytest.mark.parametrize("spoil, amounts", [(blurred, (1, 3, 5, 9)), (noisy, (0, 15, 30, 60))])
def test_fid_and_kid_grow_with_blur_and_noise(make_context, world_data, spoil, amounts):
    images = world_data.images(range(256))
    rows = []
    for amount in amounts:
        metrics = load.build(["fid", "kid"], make_context())
        spoilt = spoil(images, amount)
        rows.append(
            {k: v for metric in metrics for k, v in feed(metric, world_data, 256, 64, spoilt).compute().items()}
        )
    for name in ("fid", "fid_infinity", "kid"):
        values = [row[name] for row in rows]
        assert all(a < b for a, b in pairwise(values)), (name, values)
    assert rows[0]["fid_high"] < rows[3]["fid_low"]
    assert rows[0]["fid_low"] <= rows[0]["fid"] <= rows[0]["fid_high"] and rows[0]["fid_n"] == 256
    assert rows[0]["fid_extractor"].startswith("embedded-v2-96d-")
    assert rows[0]["fid_reference"] == "512 images of the data"


def test_features_that_are_not_finite_name_the_image(make_context, world_data):
    class Broken:
        id, dim = "broken", 4

        def __call__(self, images):
            out = np.zeros((len(images), 4), np.float32)
            out[2, 1] = np.nan
            return out

    with pytest.raises(ValueError, match=r"image 12 .*features \(broken"):
        batch(world_data, range(10, 14)).features(Broken())
    latents = torch.zeros(4, 4, 8, 8)
    latents[1] = torch.inf
    with pytest.raises(ValueError, match=r"image 11 .*latent"):
        batch(world_data, range(10, 14), latents=latents)


def test_reference_statistics_are_computed_once_and_a_damaged_cache_is_mended(make_context, world_data, tmp_path):
    from harness.metrics.context import memory
    from harness.metrics.features import extractors

    def fresh(**more):
        return make_context(cache_dir=tmp_path, once=memory(), reference_count=64, **more)

    context = fresh()
    extractor = extractors.get("auto", context)
    made = reference_images.get(context, extractor)
    (file,) = tmp_path.iterdir()
    assert reference_images.get(context, extractor) is made
    drawn = world_data.reference
    try:
        world_data.reference = None  # any use of it would fail
        again = reference_images.get(fresh(), extractor)
    finally:
        world_data.reference = drawn
    assert np.array_equal(again.features, made.features)
    assert np.array_equal(again.gaussian.covariance, made.gaussian.covariance)
    file.write_bytes(file.read_bytes()[:500])
    mended = reference_images.get(fresh(), extractor)
    assert np.array_equal(mended.gaussian.mean, made.gaussian.mean)
    key = reference_images.cache_key(context, extractor)
    assert key != reference_images.cache_key(make_context(reference_count=65), extractor)


def test_inception_is_used_where_it_lies_and_never_fetched(monkeypatch, tmp_path, make_context, world_data):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        load.check([{"name": "fid", "extractor": "inception"}])
    assert files.choose_extractor("auto", model_is_embedded=False) == "embedded"
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
        lambda *a, **k: pytest.fail("tried to download"),
    )
    with torch.device("meta"), monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
        shapes = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    state = {k: torch.full(v.shape, 0.01 if v.ndim > 1 else 1.0).to(v.dtype) for k, v in shapes.items()}
    path = files.hub_file(files.INCEPTION)
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    assert files.choose_extractor("auto", model_is_embedded=True) == "embedded"
    (metric,) = load.build(["fid"], make_context(model_is_embedded=False))
    assert metric.extractor.id == "inception-v3-compat-2048d"
    assert metric.extractor(world_data.images(range(2))).shape == (2, 2048)
    assert metric.extractor.resizer((64, 64)) == "bilinear-tf1 to 299x299"


def test_the_influence_of_kid_is_its_derivative_and_hits_are_recorded_an_image():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(0.3, 1, (60, 6))
    moved = kid.influence(kid.kernel_sums(x, y, 3, np.ones((1, 40))))
    step = 1e-4
    for image in (0, 7):
        files = np.ones((1, 40))
        files[0, image] += step
        # `mmd` takes counts whose sum is n: the other images give up what this one gains.
        files *= 40 / files.sum()
        # Σw² in its denominator is that of whole counts; to first order both are n(n − 1).
        change = mmd(x, y, 3, files)[0] - mmd(x, y, 3, np.ones((1, 40)))[0]
        assert change / step * 40 == pytest.approx(moved[image], rel=2e-3, abs=1e-3)
    assert moved.mean() == pytest.approx(0, abs=1e-12)
