"""Analytic models: the denoiser, the exact solution and the true law are what mathematics says they are."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import records
import torch
from scipy.integrate import solve_ivp
from scipy.stats import norm

from harness.errors import InputError
from harness.measure.session import Session
from harness.metrics import law as law_metric
from harness.models import analytic, mixture
from harness.models import load as models
from harness.models.analytic import AnalyticModel
from harness.models.base import Conditioning
from harness.models.guidance import Guidance
from harness.statistics import mean_interval
from harness.store.records import Store
from harness.sweep.enumerate import enumerate_cells
from reports import plot
from reports.figures import convergence
from reports.figures import law as law_figure
from reports.records import groups
from reports.records import load as load_records
from reports.style import Looks
from samplers.core import noise
from samplers.core.levels import DiscreteVP, Level

VP = DiscreteVP.scaled_linear()
OFF = Guidance()
LEVELS = [Level(0.0, 1.0, 0), Level(0.3, 0.7, 0), Level(1.0, 14.6, 0), Level(1.0, 0.03, 0), VP.level(1.0)]
WORDS = [
    "model=gmm",
    "n_images=64",
    "batch_size=64",
    "timing=off",
    "device=cpu",
    "threads=1",
    "metrics=[exact,law,fid]",
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(name: str = "gmm", precision: str = "fp64", **changes) -> AnalyticModel:
    return models.load(models.named(name, **changes), precision, "cpu")


def drawn(**changes) -> AnalyticModel:
    return model(**{"seed": 1, "dimension": 7, "modes": 6, "classes": 2, **changes})


def points(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def density(made: AnalyticModel, x: torch.Tensor, level: Level, prompt: str = "") -> torch.Tensor:
    """log p(x) of the state, by torch's own distributions."""
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    mix = made.mixture
    chosen = [k for k in range(len(mix.weights)) if not prompt or mix.classes[mix.labels[k]] == prompt]
    means, variances = (torch.tensor(array[chosen]) for array in (mix.means, mix.variances))
    modes = Normal(level.alpha * means, (level.alpha**2 * variances + level.sigma**2).sqrt())
    return MixtureSameFamily(Categorical(torch.tensor(mix.weights[chosen])), Independent(modes, 1)).log_prob(x)


# ------------------------------------------------------------------------------------------------------ the denoiser


@pytest.mark.parametrize("made", [model(), drawn(), model("gaussian", dimension=3)], ids=["plane", "drawn", "gaussian"])
@pytest.mark.parametrize("level", LEVELS[1:], ids=str)
def test_the_denoiser_is_tweedies(made, level):
    """α·E[x0 | x] = x + σ²·∇log p(x), with the gradient by autograd."""
    for prompt in ("", *made.mixture.classes):
        x = (points(40, made.mixture.dimension) * math.hypot(level.alpha, level.sigma)).requires_grad_()
        (score,) = torch.autograd.grad(density(made, x, level, prompt).sum(), x)
        wanted = (x + level.sigma**2 * score).detach() / level.alpha
        got = made.denoiser(made.encode_text([prompt] * 40), None, OFF)(x.detach(), level)
        assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-10 * max(1, level.ratio**2 / 100))


def test_the_denoiser_is_the_mean_of_what_could_have_been():
    """Against brute force: true points weighted by how likely they are to have become x."""
    made, level, rng = model(), VP.level(1.2), np.random.default_rng(0)
    x = points(6) * 0.9
    for prompt in ("", "left"):
        clean = made.mixture.sample(rng, np.repeat(made.mixture.class_ids([prompt]), 200_000))
        log_weight = -((x.numpy()[:, None] - level.alpha * clean) ** 2).sum(-1) / (2 * level.sigma**2)
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        wanted = weight @ clean
        error = np.sqrt(np.einsum("ns,nsd->nd", weight**2, (clean - wanted[:, None]) ** 2))
        got = made.denoiser(made.encode_text([prompt] * 6), None, OFF)(x, level).numpy()
        assert (np.abs(got - wanted) < 4.5 * error).all() and error.max() < 0.01


def test_classes_mix_to_the_whole():
    """E[x0 | x] = Σ_c P(c | x)·E[x0 | x, c]."""
    for made in (model(), drawn()):
        level, x = VP.level(0.7), points(30, made.mixture.dimension)
        classes, share = made.mixture.classes, made.mixture.class_weights()
        prior = [made.mixture.weights[share[c] > 0].sum() for c in range(len(classes))]
        joint = torch.stack([density(made, x, level, c).exp() * p for c, p in zip(classes, prior, strict=True)])
        denoised = [made.denoiser(made.encode_text([c] * 30), None, OFF)(x, level) for c in classes]
        mixed = sum(p[:, None] * d for p, d in zip(joint / joint.sum(0), denoised, strict=True))
        whole = made.denoiser(made.encode_text([""] * 30), None, OFF)(x, level)
        assert torch.allclose(mixed, whole, atol=1e-12) and not torch.allclose(denoised[0], whole, atol=1e-3)


def test_the_denoiser_is_safe_at_any_noise():
    made = drawn(spread=1e-3)
    mean = torch.tensor(made.mixture.mean())
    x = points(20, 7) * 50
    for level in (Level(1.0, 1e-200, 0), Level(1.0, 0.0, 0)):
        assert torch.allclose(made.denoiser(made.encode_text([""] * 20), None, OFF)(x, level), x, rtol=1e-12)
    for level, scale in ((Level(0.0, 1.0, 0), 1.0), (Level(1.0, 1e200, 0), 1e200), (Level(1e-200, 1.0, 0), 1.0)):
        got = made.denoiser(made.encode_text([""] * 20), None, OFF)(points(20, 7) * scale, level)
        assert torch.allclose(got, mean.expand(20, 7), atol=1e-12)
    far = made.denoiser(made.encode_text(["1"] * 20), None, OFF)(x * 1e6, Level(1.0, 1e-3, 0))
    assert far.isfinite().all()


def test_guidance_combines_class_and_negative_prompt():
    made, level, x = model(), VP.level(0.8), points(12)
    left, right, whole = (made.encode_text([name] * 12) for name in ("left", "right", ""))
    plain = {
        k: made.posterior_mean(x, *level[:2], one.parts["class"])
        for k, one in (("l", left), ("r", right), ("w", whole))
    }
    for scale in (0.0, 3.0):
        got = made.denoiser(left, whole[:1], Guidance(scale))(x, level)
        assert torch.allclose(got, plain["w"] + scale * (plain["l"] - plain["w"]), atol=1e-13)
    got = made.denoiser(left, right[:1], Guidance(2.0))(x, level)
    assert torch.allclose(got, 2 * plain["l"] - plain["r"], atol=1e-13)
    assert torch.equal(made.denoiser(left, None, OFF)(x, level), plain["l"]) and made.calls == 4
    with pytest.raises(InputError, match="latents"):
        made.denoiser(left, whole[:1], Guidance(3.0, threshold="static"))


# --------------------------------------------------------------------------------------------- the exact solution


def by_scipy(made, start, context, uncond, guidance, first: Level, last: Level) -> torch.Tensor:
    """dy/d log σ = y − D on y = x/α, by scipy's own adaptive DOP853."""
    denoise = made.denoiser(context, uncond, guidance)

    def slope(u, flat):
        y = torch.from_numpy(flat.reshape(start.shape))
        return (y - denoise(y, Level(1.0, math.exp(u), 0))).numpy().ravel()

    span = [math.log(first.ratio), math.log(last.ratio)]
    done = solve_ivp(slope, span, (start / first.alpha).numpy().ravel(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(done.y[:, -1].reshape(start.shape)) * last.alpha


@pytest.mark.parametrize("guidance", [OFF, Guidance(4.0), Guidance(3.0, rescale=0.3)], ids=["cfg1", "cfg4", "rescaled"])
def test_the_exact_solution_is_scipys(guidance):
    for made in (model(), drawn()) if not guidance.rescale else (drawn(),):
        context = made.encode_text([made.mixture.classes[k % 2] for k in range(10)])
        uncond = made.encode_text([""]) if guidance.on else None
        start = points(10, made.mixture.dimension)
        asked = (start, context, uncond, guidance, VP.level(VP.ratio_max), VP.level(VP.ratio_min))
        got = made.exact(*asked)
        assert (got - by_scipy(made, *asked)).norm() < 2e-12 * got.norm()
        assert torch.allclose(made.exact(start[3:5], context[3:5], *asked[2:])[1], got[4], rtol=1e-12)


def test_what_has_no_smooth_solution_is_an_error(monkeypatch):
    """Rescaling divides by the deviation of two coordinates, which passes through 0."""
    monkeypatch.setattr(analytic, "MOST_STEPS", 500)
    made = model()
    context = made.encode_text(["left", "right"] * 20)
    with pytest.raises(ArithmeticError, match="not smooth"):
        first, last = VP.level(VP.ratio_max), VP.level(VP.ratio_min)
        made.exact(points(40), context, made.encode_text([""]), Guidance(4.0, rescale=0.5), first, last)


PURE, NEARLY_PURE, NOISY = Level(0.0, 1.0, 0), Level(1e-9, 1.0, 0), VP.level(VP.ratio_max)
CLEAN, NEARLY_CLEAN, LOWEST = Level(1.0, 0.0, 0), Level(1.0, 1e-7, 0), VP.level(VP.ratio_min)


# Each beginning and each end; what `exact` does at the one does not depend on the other.
@pytest.mark.parametrize(
    ("first", "last"),
    [(PURE, CLEAN), (NEARLY_PURE, NEARLY_CLEAN), (NOISY, LOWEST), (PURE, LOWEST), (NOISY, CLEAN)],
    ids=str,
)
def test_numbers_and_closed_form_agree_on_a_gaussian(first, last):
    """A Gaussian split into two equal modes is solved by numbers, and must go where the closed form says."""
    one = model("gaussian", dimension=4, mean=[0.3, -1.0, 0.0, 2.0], std_first=0.05)
    doubled = {name: np.repeat(getattr(one.mixture, name), 2, 0) for name in ("means", "variances", "labels")}
    two = AnalyticModel("two", mixture.Mixture(**doubled, weights=np.full(2, 0.5)), VP, torch.float64, "cpu")
    start, any_ = points(8, 4), one.encode_text([""] * 8)
    closed = one.exact(start, any_, None, OFF, first, last)
    assert (two.exact(start, any_, None, OFF, first, last) - closed).norm() < 1e-11 * closed.norm()
    assert one.definition == "closed form" != two.definition


def test_the_flow_carries_the_true_law_to_the_true_law():
    """True noisy points end as true points: mean and covariance of a Gaussian exactly, a mixture's law to its floor."""
    made, first, last = model(), VP.level(VP.ratio_max), VP.level(VP.ratio_min)
    ids = np.full(4000, mixture.ANY)
    start = torch.from_numpy(made.mixture.at(first).sample(np.random.default_rng(3), ids))
    end = made.exact(start, Conditioning({"class": torch.from_numpy(ids)[:, None]}), None, OFF, first, last).numpy()
    distances = law_metric.Distances(made.mixture.at(last), 4000, 32)
    perfect = distances(made.mixture.at(last).sample(np.random.default_rng(4), ids))
    for name, (value, _) in distances(end).items():
        assert value < 2.5 * perfect[name][0] < 0.15, name


# -------------------------------------------------------------------------------------------------- through a cell


@pytest.fixture
def cells(monkeypatch):
    """Cells of a command line; those of one choice of groups and values differ in their steps alone."""

    def of(*words: str, steps: tuple[int, ...] = (6,)):
        monkeypatch.setattr(sys, "argv", ["harness.sweep", *WORDS, *words])
        asked = enumerate_cells(sys.argv[1:]).cells.values()
        return [dataclasses.replace(cell, steps=n) for cell in asked for n in steps]

    return of


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(tmp_path_factory.mktemp("results"))


def run(session: Session, cell):
    return session.run(cell, lambda what, images: None)


class TableNoise(noise.NoiseStreams):
    """The starts that the order table was measured from."""

    def draw(self, above=None, below=None):
        return points(64)[self.indices]


@pytest.mark.parametrize("process", ["vp", "ve"])
def test_a_cell_has_the_errors_of_the_order_table(session, cells, monkeypatch, process):
    """model=gmm as it comes, from the table's starts: within 2 %, or what the table rounds away."""
    monkeypatch.setitem(noise.KINDS, "independent", TableNoise)
    known = {
        ("sampler=euler",): (0.125, 6.4e-2, 3.2e-2),
        ("sampler=dpmpp", "sampler.lower_order_final=false"): (2.3e-2, 5.6e-3, 1.4e-3),
        ("sampler=unipc", "sampler.lower_order_final=true"): (1.2e-2, 1.6e-3, 2.2e-4),
    }
    session.cache = session.cache.parent / "table"  # other starts than the seed's
    for words, errors in known.items():
        asked = cells(*words, "task.start_scale=sigma", f"model.process={process}", steps=(10, 20, 40))
        for cell, wanted in zip(asked, errors, strict=True):
            row = run(session, cell).cell
            rounding = 0.5 * 10 ** (math.floor(math.log10(wanted)) - 1)
            assert row["error_to_exact"] == pytest.approx(wanted, rel=0.02, abs=rounding), (words, row["steps"])
            assert row["error_to_exact_low"] < row["error_to_exact"] < row["error_to_exact_high"]
            assert row["precision"] == "fp64" and row["schedule"] == "exponential" and row["error_to_exact_n"] == 64
    session.cache = session.cache.parent / "cache"


def test_a_record_without_images(session, cells):
    made = run(session, cells(steps=(8,))[0])
    row = made.cell
    assert row["status"] == "ok" and row["nfe"] == 8 and row["flops"] is None and "fid" not in row
    assert row["error_to_exact"] > 0 and row["exact_definition"] and row["sliced_wasserstein_n"] == 64
    assert len(made.images) == 64 and made.images[5]["seed"] == 0 and made.images[5]["exact_distance"] > 0
    total = sum(image["exact_distance"] ** 2 for image in made.images) / 64
    assert math.sqrt(total) / row["error_to_exact"] == pytest.approx(1.3, abs=0.2)  # the RMS size of the points
    assert not session.keeps.names("grids/")
    store = Store(session.keeps)
    store.write(row, made.images, made.timings)  # every column is in the schema
    assert len(store.cells()) == 1


def test_neither_batch_nor_cache_changes_the_error(session, cells, monkeypatch):
    error = [run(session, cell).cell["error_to_exact"] for cell in cells("batch_size=5,64", "seed=7")]
    assert error[0] == pytest.approx(error[1], rel=1e-12)
    monkeypatch.setattr(AnalyticModel, "exact", None)  # whoever integrates again fails
    for cell in cells("sampler=euler,dpmpp", "seed=7", steps=(6, 9)):
        assert run(session, cell).cell["error_to_exact"] > 0
    for other in (
        ["seed=8"],
        ["seed=7", "data=classes", "data.classes=[left]"],
        ["seed=7", "schedule=exponential"],
        ["seed=7", "cfg=2"],
    ):
        with pytest.raises(TypeError, match="not callable"):
            run(session, cells(*other)[0])
    session.after_failure()


def test_processes_are_scalings_of_one_problem(session, cells):
    """From the same y = x/α to the same σ/α: vp and ve agree to rounding, a flow has other levels and the same law."""
    word = "task.start_scale=sigma"
    vp, ve = (run(session, cell).cell for cell in cells("model.process=vp,ve", word, "seed=2", steps=(12,)))
    assert vp["error_to_exact"] == pytest.approx(ve["error_to_exact"], rel=1e-9)
    assert vp["sliced_wasserstein"] == pytest.approx(ve["sliced_wasserstein"], rel=0.02)  # α = 0.9996 at the end
    made = [model(process=p) for p in ("vp", "ve", "flow")]
    y, any_, first, last = points(6) * 20, made[0].encode_text([""] * 6), 20.0, 0.05
    ends = []
    for one in made:
        start, end = one.process.level(first), one.process.level(last)
        ends.append(one.exact(y * start.alpha, any_, None, OFF, start, end) / end.alpha)
    assert torch.allclose(ends[0], ends[1], rtol=1e-12) and torch.allclose(ends[0], ends[2], rtol=1e-12)
    flow = [run(session, cell).cell for cell in cells("model.process=flow", "sampler=euler", steps=(20, 40))]
    assert 0.4 < flow[1]["error_to_exact"] / flow[0]["error_to_exact"] < 0.6


def test_guidance_keeps_the_exact_solution_and_has_no_law(session, cells):
    asked = ["sampler=dpmpp", "data=classes", "data.classes=[left,right]"]
    rows = [run(session, cell).cell for cell in cells(*asked, "cfg=1,3", steps=(40, 80))]
    for row in rows:
        assert 0 < row["error_to_exact"] < 0.02 and (row.get("sliced_wasserstein") is None) == (row["cfg"] == 3)
    for coarse, fine in (rows[:2], rows[2:]):
        assert fine["error_to_exact"] < 0.4 * coarse["error_to_exact"]


def test_single_precision_costs_what_it_should(session, cells):
    errors = [run(session, cell).cell["error_to_exact"] for cell in cells("precision=fp64,fp32", "sampler=euler")]
    assert errors[0] != errors[1] == pytest.approx(errors[0], rel=1e-4)
    fine = run(session, cells("precision=fp32", "sampler=unipc", "sampler.order=3", steps=(160,))[0]).cell
    assert 1e-8 < fine["error_to_exact"] < 1e-5


def test_a_stochastic_sampler_comes_nearer_to_the_law(session, cells):
    rows = [
        run(session, cell).cell
        for cell in cells("sampler=ddim", "sampler.eta=1.0", "n_images=1000", "batch_size=1000", steps=(5, 15, 60))
    ]
    for row in rows:
        assert row["stochastic"] and row.get("error_to_exact") is None
    for name in ("law_covariance_error", "sliced_wasserstein"):
        value = [row[name] for row in rows]
        assert value[0] > 1.5 * value[1] > 2 * value[2], (name, value)
    assert rows[0]["sliced_wasserstein_low"] > 3 * rows[0]["sliced_wasserstein_floor"]
    assert rows[2]["sliced_wasserstein"] < 2.5 * rows[2]["sliced_wasserstein_floor"]


# ------------------------------------------------------------------------------------------------ distances of laws


def test_distances_between_gaussians_are_known():
    """Quantiles of N(0.5, 2²) against N(0, 1): W₂² = 0.5² + (2 − 1)²."""
    law = model("gaussian", dimension=1, mean=0.0, std_first=1.0).mixture
    n = 20_000
    x = norm.ppf((np.arange(n) + 0.5) / n, 0.5, 2.0)[::-1, None].copy()
    found = law_metric.Distances(law, n, 3)(x)
    assert found["sliced_wasserstein"][0] == pytest.approx(math.sqrt(1.25), rel=1e-3)
    assert found["law_mean_error"][0] == pytest.approx(0.5, rel=1e-3)
    assert found["law_covariance_error"][0] == pytest.approx(3.0, rel=1e-3)
    exact = law_metric.Distances(law, n, 3)(norm.ppf((np.arange(n) + 0.5) / n)[:, None])
    assert exact["sliced_wasserstein"][0] < 1e-4


def test_moments_and_quantiles_are_those_of_true_points():
    made = model("gaussian", dimension=3).mixture, drawn().mixture.at(Level(0.8, 0.3, 0)), mixture.plane()
    for law in made:
        ids = np.full(200_000, mixture.ANY)
        x = law.sample(np.random.default_rng(0), ids)
        assert np.allclose(x.mean(0), law.mean(), atol=0.01) and np.allclose(np.cov(x.T), law.covariance(), atol=0.02)
        axis = np.ones(law.dimension) / math.sqrt(law.dimension)
        shares = np.array([0.01, 0.3, 0.5, 0.9])
        assert np.allclose(law_metric._quantiles(law, axis, shares), np.quantile(x @ axis, shares), atol=0.02)


def test_a_law_of_classes_is_that_of_its_images():
    plane = mixture.plane()
    ids = plane.class_ids(["left", "right", "left", "left"])
    law = plane.of_classes(ids)
    assert np.allclose(law.weights, [0.25 * 0.25 / 0.45, 0.375, 0.375, 0.25 * 0.2 / 0.45, 0])
    x = plane.sample(np.random.default_rng(0), np.tile(ids, 20_000))
    assert np.allclose(x.mean(0), law.mean(), atol=0.01)
    assert (x.reshape(-1, 4, 2)[:, 1, 0].mean() > 0.9) and (x.reshape(-1, 4, 2)[:, 0, 0].mean() < -0.5)


@pytest.mark.parametrize("shrink", [1.0, 0.7])
def test_intervals_hold_the_value_that_such_samples_have(shrink):
    """Of the distance at this number of points, floor included: coverage near 95 %, on the safe side at the floor."""
    law, n, rng = mixture.plane(), 128, np.random.default_rng(5)
    ids = np.full(n, mixture.ANY)
    distances = law_metric.Distances(law, n, 16)
    seen: dict[str, list] = {}
    for _ in range(80):
        for name, (value, influence) in distances(shrink * law.sample(rng, ids)).items():
            low, high = mean_interval(influence, 200, 0)
            seen.setdefault(name, []).append((value, value + low, value + high))
    for name, rows in seen.items():
        value, low, high = np.array(rows).T
        truth = value.mean()
        assert ((low <= truth) & (truth <= high)).mean() >= 0.87, name
        assert 0.75 < (high - low).mean() / 3.92 / value.std() < 1.9, name


# --------------------------------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=img2img"], "model gmm makes points, not images: use it with task=txt2img"),
        (["guidance.threshold=static"], "threshold"),
        (["data=classes", "data.classes=left"], "give a list of names"),
    ],
)
def test_wrong_words_are_one_line_before_anything_runs(cells, words, said):
    with pytest.raises(InputError) as error:
        cells(*words)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gmm", {"process": "edm"}, "model.process='edm' is not valid; valid: flow, ve, vp"),
        ("gmm", {"training_schedule": "cosine"}, "training schedule 'cosine' is unknown"),
        ("gmm", {"dimension": 8}, "give model.seed=0"),
        ("gmm", {"seed": 0, "classes": 9}, "every class needs a mode"),
        ("gmm", {"seed": 0, "spread": -1}, "give a number above 0"),
        ("gmm", {"file": "/nowhere.yaml"}, "cannot be read"),
        ("gmm", {"process": "flow", "zero_terminal_snr": True}, "zero_terminal_snr is of vp and ve"),
        ("gmm", {"height": 64}, "model.height is unknown for density=mixture"),
        ("gmm", {"kind": "formula"}, "valid: analytic, latent"),
        ("gaussian", {"mean": [1, 2]}, "a list of 16"),
        ("gaussian", {"density": "uniform"}, "valid: gaussian, mixture"),
    ],
)
def test_wrong_models_are_one_line(name, changes, said):
    with pytest.raises(InputError) as error:
        models.check(models.named(name, **changes))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_wrong_only_together():
    spec = models.named("gmm")
    models.check_use(spec, {"name": "classes", "classes": ["left", ""]}, "fp32", "right")
    for data, precision, negative, said in (
        ({"name": "classes", "classes": ["lift"]}, "fp64", "", "did you mean 'left'"),
        ({"name": "classes", "classes": [""]}, "fp64", "up", "class 'up' is unknown"),
        ({"name": "embedded"}, "fp64", "", "use data=classes"),
        ({"name": "classes", "classes": [""]}, "bf16", "", "use precision=fp64 or fp32"),
    ):
        with pytest.raises(InputError, match=said):
            models.check_use(spec, data, precision, negative)
    with pytest.raises(InputError, match="it is for model=gmm"):
        models.check_use(models.named("embedded"), {"name": "classes", "classes": [""]}, "fp32")
    with pytest.raises(InputError, match="use precision="):
        model(precision="fp16")


def test_a_mixture_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"means": [[0, 1, 2], [3, 4, 5]], "stds": [0.5, 1], "weights": [0.25, 0.75]}))
    made = model(file=str(path))
    assert made.latent_shape == (3,) and made.mixture.classes == () and made.mixture.variances[1, 2] == 1
    before = models.fingerprint(models.named("gmm", file=str(path)))
    path.write_text(json.dumps({"means": [[0.0], [1.0]], "stds": [1, 1], "weights": [0.5, 0.5], "classes": ["a", "b"]}))
    assert models.fingerprint(models.named("gmm", file=str(path))) != before
    assert model(file=str(path)).encode_text(["b", ""]).parts["class"].tolist() == [[1], [-1]]
    path.write_text(json.dumps({"means": [[0.0], [1.0]], "stds": [1, 1], "weights": [0.5, 0.6]}))
    with pytest.raises(InputError, match=r"sum to 1, they sum to 1\.1"):
        model(file=str(path))


def test_fingerprints_tell_models_apart():
    changes = ({}, {"seed": 0}, {"seed": 1}, {"process": "ve"}, {"zero_terminal_snr": True}, {"seed": 0, "spread": 0.2})
    assert len({models.fingerprint(models.named("gmm", **change)) for change in changes}) == len(changes)


# ----------------------------------------------------------------------------------------------------- the figure


def convergence_rows() -> list[dict]:
    nothing = dict.fromkeys(("fid", "fid_low", "fid_high", "clip_score", "discretisation_error", "latency_s"))
    rows = []
    for sampler, order, calls in (("euler", 1, 1), ("unipc", 3, 1), ("dpmpp", 2, 2)):
        for nfe in (10, 20, 40, 80, 160) if sampler != "dpmpp" else (20, 40, 80):
            error = (nfe / 5) ** -order
            measured = {"error_to_exact": error, "error_to_exact_low": 0.9 * error, "error_to_exact_high": 1.1 * error}
            rows.append(records.cell_row(sampler, nfe // calls, model="gmm", nfe=nfe, **measured, **nothing))
    return rows


def test_the_figure_says_the_order_it_sees(tmp_path):
    store = Store(tmp_path)
    for row in convergence_rows():
        records.write(store, row, pictures=False)
    (group,) = groups(load_records(tmp_path))
    drawing = convergence.draw(group, Looks(sorted(group.cells["label"].unique())))
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == ["dpmpp (–)", "euler (1.00)", "unipc (3.00)"]  # two points of dpmpp lie in the window


def test_the_figure_of_laws_shows_stochastic_cells_and_their_floor(tmp_path):
    store = Store(tmp_path)
    for sampler, stochastic in (("ddim", True), ("euler", False)):
        for nfe in (10, 20):
            value = {"sliced_wasserstein": 1 / nfe, "sliced_wasserstein_floor": 0.04, "stochastic": stochastic}
            records.write(store, records.cell_row(sampler, nfe, model="gmm", nfe=nfe, **value), pictures=False)
    (group,) = groups(load_records(tmp_path))
    drawing = law_figure.draw(group, Looks(sorted(group.cells["label"].unique())))
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["ddim leading"]
    assert any(0.04 in line.get_ydata() for line in drawing.figure.axes[0].lines)


def test_a_report_of_cells_without_images(tmp_path, capsys):
    store = Store(tmp_path)
    for row in convergence_rows():
        records.write(store, row, pictures=False)
    assert plot.main(["--results", str(tmp_path), "--format", "png"]) == 0
    said = capsys.readouterr().out
    assert "drawn: convergence-txt2img-gmm" in said and "err. to exact" in said
    assert (tmp_path / "plots" / "convergence-txt2img-gmm.png").stat().st_size > 20_000
