"""Guidance by a classifier: the exact gradient on a mixture, and what the embedded model's classifier is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.embedded import classifier as training
from harness.embedded import nets, world
from harness.errors import InputError
from harness.measure.session import Session
from harness.models import classifier, load
from harness.models.guidance import Guidance
from harness.paths import CLASSIFIER
from harness.sweep.enumerate import enumerate_cells
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import Level

PROMPTS = ["right", "left", "centre", ""]


@pytest.fixture(scope="module")
def gmm():
    return load.load(load.named("gmm"), "fp64", "cpu")


@pytest.fixture(scope="module")
def embedded():
    return load.load(load.named("embedded"), "fp32", "cpu")


def points(count: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 2)) * scale)


# ------------------------------------------------------------------------------------------------------- the mixture


@pytest.mark.parametrize("ratio", [0.05, 0.7, 14.6])
def test_the_pull_is_the_gradient_of_the_log_posterior_of_the_class(gmm, ratio):
    """By automatic differentiation of log p(class | x) = log p(x | class) − log p(x), up to a constant."""
    level = gmm.process.level(ratio)
    law, classes = gmm.mixture.at(level), gmm.encode_text(PROMPTS).parts["class"]
    means, variances = torch.from_numpy(law.means), torch.from_numpy(law.variances)
    weights = torch.from_numpy(law.class_weights())
    x = points(4).requires_grad_()
    modes = (-0.5 * ((x[:, None] - means) ** 2 / variances + variances.log())).sum(-1)
    own, whole = (torch.logsumexp(modes + rows.log(), 1) for rows in (weights[classes[:, 0]], weights[-1]))
    (slope,) = torch.autograd.grad((own - whole).sum(), x)
    pull = gmm.pull(x.detach(), level.alpha, level.sigma, classes)
    torch.testing.assert_close(pull, level.sigma**2 / level.alpha * slope, rtol=1e-9, atol=1e-12)


def test_guided_from_the_whole_by_one_it_is_the_class(gmm):
    cond, whole, level = gmm.encode_text(PROMPTS), gmm.encode_text([""]), gmm.process.level(0.8)
    guided = gmm.denoiser(cond, whole, Guidance(0.0, classifier=1.0))(points(4), level)
    torch.testing.assert_close(guided, gmm.denoiser(cond, None, Guidance())(points(4), level), rtol=1e-12, atol=1e-12)
    pure = gmm.denoiser(cond, None, Guidance(classifier=2.0))(points(4), Level(0.0, 1.0, 1000))
    assert pure.isfinite().all()


@pytest.mark.parametrize(
    ("sampler", "few", "many"), [("euler", 40, 80), ("heun", 40, 80), ("dpmpp", 40, 80), ("unipc", 40, 80)]
)
def test_the_error_to_the_exact_guided_flow_falls_with_the_declared_order(gmm, sampler, few, many):
    guidance, cond, whole = Guidance(1.5, classifier=1.5), gmm.encode_text(PROMPTS * 2), gmm.encode_text([""])
    errors = []
    for steps in (few, many):
        levels = schedules.build("exponential", gmm.process, steps, end="sigma_min")
        start = points(8, levels[0].sigma)
        exact = gmm.exact(start, cond, whole, guidance, levels[0], levels[steps])
        got = integrate(registry.build_plan(registry.load(sampler), levels), gmm.denoiser(cond, whole, guidance), start)
        errors.append(((got - exact).norm() / exact.norm()).item())
    order = registry.capabilities(registry.load(sampler), many).order
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    unguided = gmm.exact(start, cond, None, Guidance(), levels[0], levels[many])
    assert (unguided - exact).norm() / exact.norm() > 0.05  # it is guided at all


# ------------------------------------------------------------------------------------------------- what prompts say


def test_every_caption_of_the_world_is_read_as_its_drawing():
    words, scenes = training.vocabulary(), world.scenes(range(2000))
    found, answers = words.targets(scenes.captions()), nets.answers(scenes)
    assert set(words.heads) == set(nets.SEEN)
    for k, name in enumerate(words.heads):
        assert torch.equal(found[:, k], answers[name]), name
    assert classifier.Vocabulary.from_json(words.to_json()) == words


def test_a_prompt_in_other_words_is_read_as_far_as_it_goes():
    words = training.vocabulary()
    assert words.read("") == words.read("a photograph of a cat, barred") == {}
    assert words.read("a ball left of a red ring") == {
        "objects": 1, "axis": 0, "shape_0": 0, "shape_1": world.SHAPES.index("ring"), "colour_1": 0,
    }  # fmt: skip
    assert words.read("a ball below a red ring")["colour_0"] == 0  # the upper one comes first
    assert words.read("sand")["ground"] == world.GROUND_NAMES.index("sand")


# ------------------------------------------------------------------------------------------------ the embedded model


def test_the_gradient_is_that_of_the_log_likelihood_inside_inference_mode_too():
    torch.manual_seed(0)
    words = training.vocabulary()
    net = classifier.NoisyClassifier(words).double()
    x, level = torch.randn(2, 4, 16, 16), Level(0.6, 0.8, 500)
    targets = words.targets(["a small matte red ball on sand", "a star above a ring"])

    def total(state: torch.Tensor) -> float:
        log_ratio = torch.full((2,), np.log(0.8 / 0.6), dtype=torch.float64)
        return classifier.log_likelihood(net(state, log_ratio), targets).sum().item()

    towards = torch.randn_like(x)
    net.float()
    with torch.inference_mode():
        slope = classifier.gradient(net, x, level, targets)
    net.double()
    step = 1e-4 * towards.double()
    assert (slope.double() * towards).sum().item() == pytest.approx(
        (total(x.double() + step) - total(x.double() - step)) / 2e-4, rel=2e-3
    )


def test_the_shipped_classifier_names_drawings_and_less_so_in_noise(embedded):
    assert CLASSIFIER.stat().st_size < 1_000_000
    scenes = world.split_scenes(128, held_out=True)
    with torch.inference_mode():
        clean = embedded.encode_images(world.render(scenes))
        shares = []
        for ratio in (0.03, 14.6):
            at = torch.full((128,), ratio)
            torch.manual_seed(0)
            logits = embedded.classifier(training.noised(clean, at), at.log())
            answers = nets.answers(scenes)
            shares.append(
                {
                    name: (logits[name].argmax(1) == answers[name])[answers[name] >= 0].float().mean().item()
                    for name in ("ground", "shape_0", "colour_0")
                }
            )
    assert min(shares[0].values()) > 0.8 and shares[1]["shape_0"] < 0.4


def test_guidance_raises_what_the_classifier_thinks_of_the_prompt(embedded):
    prompts = world.split_scenes(4, held_out=True).captions()
    cond, level = embedded.encode_text(prompts), embedded.process.level(1.0)
    x = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    at, classes = torch.zeros(4), cond.parts["classes"]

    def thinks(scale: float) -> torch.Tensor:
        with torch.inference_mode():
            x0 = embedded.denoiser(cond, None, Guidance(classifier=scale))(x, level)
            eps = (x - level.alpha * x0) / level.sigma
            now = embedded.process.level(0.9)
            state = now.alpha * x0 + now.sigma * eps
            return classifier.log_likelihood(embedded.classifier(state, at + np.log(0.9)), classes)

    assert (thinks(2.0) > thinks(0.0)).all()


def test_what_cannot_be_guided_is_refused(embedded):
    nothing = embedded.encode_text(["a photograph"])
    with pytest.raises(InputError, match=r"classifier_scale=1: 1 of 1 prompts name nothing that the classifier"):
        embedded.denoiser(nothing, None, Guidance(classifier=1.0))
    with pytest.raises(InputError, match=r"classifier_scale=2: model gaussian has no classifier"):
        enumerate_cells(["model=gaussian", "classifier_scale=2"])
    with pytest.raises(InputError, match=r"classifier_scale=-1 is not valid: give a number from 0 to 1,000"):
        enumerate_cells(["classifier_scale=-1"])


def test_the_axis_changes_no_id_where_it_is_off():
    off, on = (enumerate_cells(["device=cpu", "threads=1", f"classifier_scale={scale}"]).cells for scale in (0, 2))
    (plain,), (guided,) = off.values(), on.values()
    assert "classifier" not in plain.canonical()
    assert guided.classifier_scale == 2 and guided.classifier_fingerprint.startswith("content:")
    assert guided.label.endswith("classifier 2.0")


def test_a_guided_cell_is_recorded_with_the_flops_of_its_gradient(tmp_path):
    session, flops = Session(tmp_path), []
    for scale in (0, 2):
        words = [f"classifier_scale={scale}", "cfg=0", "steps=2", "n_images=2", "metrics=[]", "timing=off"]
        (cell,) = enumerate_cells([*words, "device=cpu", "threads=1"]).cells.values()
        row = session.run(cell, lambda *said: None).cell
        assert row["status"] == "ok" and row["nfe"] == 2
        flops.append(row["flops"])
    assert 1.01 < flops[1] / flops[0] < 1.5
