"""A plan run backwards: the round trip's order, the exact one, and the task that does so to images."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from harness.errors import InputError
from harness.models import load
from harness.models.guidance import Guidance
from harness.sweep.enumerate import enumerate_cells
from harness.tasks.base import Ready
from harness.tasks.invert import Invert
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, NoiseLevels, RectifiedFlow
from samplers.core.noise import NoiseStreams
from samplers.inversion import invert, risen

# One call a step and none remembered, several calls, outputs remembered, a corrector.
KINDS = ("ddim", "heun", "dpmpp", "unipc")


@pytest.fixture(scope="module")
def gmm():
    return load.load(load.named("gmm"), "fp64", "cpu")


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """In float64: weights that were never trained magnify rounding as no model of data does."""
    return load.load(tiny.spec(tiny.folder(tmp_path_factory.mktemp("tiny"), "sd1")), "fp64", "cpu")


def data(gmm, count: int):
    """True points, and the denoiser of their classes without guidance."""
    cond = gmm.encode_text((["right", "left", "centre"] * count)[:count])
    ends = gmm.mixture.sample(np.random.default_rng(0), cond.parts["class"][:, 0].numpy())
    return torch.from_numpy(ends), gmm.denoiser(cond, None, Guidance())


def levels_of(model, steps: int, name: str = "exponential") -> NoiseLevels:
    return schedules.build(name, model.process, steps, end="sigma_min")


def planned(sampler: str, levels: NoiseLevels):
    return registry.build_plan(registry.load(sampler), levels)


# ------------------------------------------------------------------------------------------------------------- levels


def test_rising_levels_are_the_same_from_the_other_end():
    levels = schedules.build("karras", DiscreteVP.scaled_linear(), 6, end="sigma_min")
    assert [levels.rising()[k] for k in range(7)] == [levels[6 - k] for k in range(7)]
    with pytest.raises(ValueError, match="must fall"):
        NoiseLevels(*(getattr(levels.rising(), name) for name in ("alpha", "sigma", "time")), levels.process)
    clean = schedules.build("karras", DiscreteVP.scaled_linear(), 6)
    assert clean.sigma[-1] == 0 and clean.noisy().steps == 5 and clean.noisy()[5] == clean[5]
    with pytest.raises(ValueError, match="must begin with some noise"):
        clean.rising()
    with pytest.raises(ValueError, match="start below pure noise"):
        NoiseLevels([0, 0.5], [1, 0.5], [1000, 500], RectifiedFlow()).rising()


# ---------------------------------------------------------------------------------------------------- the round trip


@pytest.mark.parametrize("sampler", KINDS)
def test_up_and_down_again_meet_with_the_declared_order(gmm, sampler):
    """Of an even order with one more: what a step up and the same step down miss cancels (Hairer, Lubich and Wanner,
    Geometric Numerical Integration, theorem II.3.2)."""
    ends, denoise = data(gmm, 8)
    errors = []
    for steps in (40, 80):
        levels = levels_of(gmm, steps)
        up = integrate(planned(sampler, levels.rising()), denoise, ends)
        errors.append(((integrate(planned(sampler, levels), denoise, up) - ends).norm() / ends.norm()).item())
    order = registry.capabilities(registry.load(sampler), 80).order
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order + (order % 2 == 0), abs=0.25)


@pytest.mark.parametrize("sampler", KINDS)
def test_the_way_up_comes_to_the_noise_that_the_exact_flow_comes_from(gmm, sampler):
    ends, denoise = data(gmm, 8)
    cond = gmm.encode_text((["right", "left", "centre"] * 8)[:8])
    errors = []
    for steps in (40, 80):
        levels = levels_of(gmm, steps)
        up = integrate(planned(sampler, levels.rising()), denoise, ends)
        down = gmm.exact(up, cond, None, Guidance(), levels[0], levels[steps])
        errors.append(((down - ends).norm() / ends.norm()).item())
    order = registry.capabilities(registry.load(sampler), 80).order
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize(
    ("sampler", "scale"), [("ddim", 1.0), ("ddim", 2.0), ("heun", 2.0), ("dpmpp", 1.0), ("unipc", 1.0)]
)
def test_an_exact_inversion_comes_back_to_rounding(gmm, sampler, scale):
    ends, _ = data(gmm, 4)
    cond, whole = gmm.encode_text(["right", "left", "centre", "right"]), gmm.encode_text([""])
    denoise = gmm.denoiser(cond, whole if scale != 1 else None, Guidance(scale))
    levels = levels_of(gmm, 16)
    plan = planned(sampler, levels)
    found = invert(plan, levels, denoise, ends)
    back = integrate(plan, denoise, found.start)
    assert found.residual.max() < 1e-12
    # Where outputs are remembered, sweeps end when they move no state, which leaves what slow ones would yet move.
    assert (back - ends).norm() / ends.norm() < (1e-12 if sampler in ("ddim", "heun") else 1e-9)
    rising = integrate(planned(sampler, levels.rising()), denoise, ends)
    assert (integrate(plan, denoise, rising) - ends).norm() / ends.norm() > 1e-3  # which is not what was asked


def test_what_does_not_settle_says_so(gmm):
    """Ten steps at a scale of 3 lead nowhere near one of these points: no noise is made into it."""
    ends, _ = data(gmm, 4)
    cond, levels = gmm.encode_text(["right", "left", "centre", "right"]), levels_of(gmm, 10, "karras")
    plan, denoise = planned("ddim", levels), gmm.denoiser(cond, gmm.encode_text([""]), Guidance(3.0))
    found = invert(plan, levels, denoise, ends)
    off = (integrate(plan, denoise, found.start) - ends).norm(dim=1) / ends.norm(dim=1)
    assert ((off < 1e-9) == (found.residual < 1e-12)).all() and 0 < (off < 1e-9).sum() < 4


def test_an_inversion_does_not_depend_on_its_batch(gmm):
    ends, denoise = data(gmm, 3)
    levels = levels_of(gmm, 16)
    for sampler in ("ddim", "dpmpp"):
        plan = planned(sampler, levels)
        alone = gmm.denoiser(gmm.encode_text(["left"]), None, Guidance())
        together = invert(plan, levels, denoise, ends).start[1:2]
        torch.testing.assert_close(invert(plan, levels, alone, ends[1:2]).start, together, rtol=1e-9, atol=1e-9)


def test_what_a_call_was_given_is_found_for_every_call(gmm):
    ends, denoise = data(gmm, 2)
    levels = levels_of(gmm, 8)
    plan, seen = planned("heun", levels), []
    found = invert(plan, levels, denoise, ends)

    def watched(x, level):
        seen.append(x.clone())
        return denoise(x, level)

    integrate(plan, watched, found.start)
    for one, other in zip(found.states, [*seen, ends], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_what_has_no_way_back_is_refused(gmm):
    levels = levels_of(gmm, 4)
    with pytest.raises(ValueError, match="draws noise on the way, so there is no way back: set its eta"):
        planned("euler_a", levels).check_reversible()
    with pytest.raises(ValueError, match="its last step is to a clean state"):
        planned("ddim", schedules.build("karras", gmm.process, 4)).check_reversible()
    for words, said in (
        (["sampler=euler_a"], "task=invert with sampler=euler_a: it draws noise"),
        (["sampler=dpm_adaptive"], "sampler=dpm_adaptive chooses its own steps: not with task=invert"),
        (["implementation=diffusers"], "task=invert runs our own plans backwards: not with implementation=diffusers"),
        (["task.null_text=3", "cfg=1"], "give cfg above 1, or null_text=0"),
        (["task.null_text=3", "task.guided=true"], "set task.guided=false, or null_text=0"),
        (["task.null_text=3", "task.method=rising", "sampler=heun"], "set task.method=exact"),
        (["task.guided=true", "cfg=1"], "guides nothing"),
        (["task.method=exactly"], "did you mean 'exact'"),
        (["task.null_text=-1"], "task.null_text=-1 is not valid"),
        (["task.edit={red: 3}"], "give words and what they become"),
        (["model=gmm"], "makes points, not images"),
    ):
        with pytest.raises(InputError, match=said):
            enumerate_cells(["task=invert", *words])


# ----------------------------------------------------------------------------------------------------------- the task


def ready(model, task: Invert, sampler: str, steps: int, cfg: float) -> Ready:
    levels, _ = task.levels(lambda n: schedules.build("karras", model.process, n), steps, None)
    clean = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    made = registry.sampler(registry.load(sampler))
    text = model.encode_text(["", "a red circle", "a small star"])
    start = task.start(model, levels, NoiseStreams(0, [0, 1], model.latent_shape), source_latents=clean)
    return Ready(start, model, made, levels, made.plan(levels), text[1:], text[:1], Guidance(cfg))


def came_back(given: Ready, task: Invert) -> float:
    """What a round trip is off, relative to the source's latents."""
    start = task.prepared(given)
    each = iter(start.unconds or [given.uncond] * given.plan.nfe)

    def denoise(x, level):
        return given.model.denoiser(given.source_cond, next(each), given.guidance)(x, level)

    return ((integrate(given.plan, denoise, start.state) - given.start.state).norm() / given.start.state.norm()).item()


def test_a_round_trip_through_a_network_is_exact_to_rounding_and_a_rising_one_is_not(latent):
    exact, rising = (came_back(ready(latent, task, "ddim", 12, 1.0), task) for task in (Invert(), Invert("rising")))
    assert exact < 1e-10 and rising > 1e-3
    guided = Invert(guided=True)
    assert came_back(ready(latent, guided, "ddim", 12, 2.0), guided) < 1e-10


@pytest.mark.parametrize("method", ["exact", "rising"])
def test_null_text_brings_a_guided_way_down_nearer(latent, method):
    plain, mended = Invert(method), Invert(method, null_text=4, null_text_rate=0.1)
    given = ready(latent, plain, "ddim", 3, 3.0)
    with torch.inference_mode():  # as in a sweep
        assert came_back(given, mended) < 0.95 * came_back(given, plain)


def test_the_last_step_to_a_clean_state_is_left_out_and_one_more_taken(latent):
    levels, steps = Invert().levels(lambda n: schedules.build("karras", latent.process, n), 6, None)
    assert steps == levels.steps == 6 and levels.sigma[-1] > 0
    assert levels[6].ratio == pytest.approx(latent.process.ratio_min)
    part, steps = Invert().levels(lambda n: schedules.build("karras", latent.process, n), 6, 0.5)
    assert steps == 3 and [part[k] for k in range(4)] == [levels[k] for k in range(3, 7)]


def test_the_ways_meet_at_the_states_between(latent):
    task = Invert("rising")
    given = ready(latent, task, "ddim", 5, 1.0)
    denoise = latent.denoiser(given.source_cond, None, Guidance())
    states = risen(given.sampler.plan(given.levels.rising()), denoise, given.start.state)
    assert len(states) == 6 and torch.equal(states[-1], given.start.state)
