"""Solvers that choose their own steps: no plan, one image, and k-diffusion's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from five_modes import PROCESS, denoiser, flow, posterior_mean, starts
from k_diffusion import sampling

from samplers import registry, schedules
from samplers.core.levels import DiscreteVP, NoiseLevels, RectifiedFlow
from samplers.core.noise import NoiseStreams

ADAPTIVE = [name for name in registry.names() if registry.is_adaptive(name)]
every_adaptive = pytest.mark.parametrize("name", ADAPTIVE)


def ends(process=PROCESS, end="sigma_min", steps=1):
    return schedules.build("karras", process, steps, end=end)


def solve(name, levels, image=3, noise=None, dtype=torch.float64, **knobs):
    """x/α at the end, and the numbers of the calls."""
    calls = []
    x = starts()[image : image + 1] * (levels[0].ratio * levels[0].alpha if levels[0].alpha else 1.0)
    x = registry.solve({**registry.load(name), **knobs}, levels, denoiser, x.to(dtype), noise, calls.append)
    return x / levels[-1].alpha, calls


def test_there_are_adaptive_samplers():
    assert "dpm_adaptive" in ADAPTIVE


@every_adaptive
def test_it_is_declared_and_has_no_plan(name):
    declared = registry.capabilities(name, 20)
    assert declared.nfe is None and declared == registry.capabilities(name, 3)
    with pytest.raises(ValueError, match="no plan"):
        registry.build_plan(registry.load(name), ends())


@pytest.fixture
def float64():
    """k-diffusion makes its σ tensors of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(
    ("knobs", "bound"),
    [
        # k-diffusion's (e^h − 1)/h − 1 loses two digits at its first step, h = 0.05; the controller of order 3, which
        # sees the difference of two nearly equal states, turns that into steps that differ in the eleventh digit.
        ({}, 2e-11),
        ({"h_init": 0.5}, 1e-12),
        ({"rtol": 1e-3, "atol": 1e-4}, 1e-12),
        ({"pcoeff": 0.2, "icoeff": 0.6, "dcoeff": 0.1, "h_init": 0.5}, 1e-12),
        ({"accept_safety": 0.9, "h_init": 0.5}, 1e-12),
        ({"eta": 0.7, "h_init": 0.5}, 1e-12),
        ({"eta": 1.0, "s_noise": 0.9, "h_init": 0.5}, 1e-12),
    ],
    ids=["default", "h_init", "tight", "pid", "safety", "eta", "s_noise"],
)
def test_dpm_adaptive_is_k_diffusions(order, knobs, bound):
    levels = ends()
    for image in range(8):
        theirs, ours = (NoiseStreams(1, [image], (2,)) for _ in range(2))
        reference, info = sampling.sample_dpm_adaptive(
            lambda x, sigma: posterior_mean(x, float(sigma[0])),
            starts()[image : image + 1] * levels[0].ratio,
            float(levels.ratio[-1]),
            float(levels.ratio[0]),
            disable=True,
            order=order,
            return_info=True,
            noise_sampler=lambda *_, streams=theirs: streams.draw().double(),
            **knobs,
        )
        x, calls = solve("dpm_adaptive", levels, image, noise=ours, order=order, **knobs)
        assert float((x - reference).abs().max()) <= (1e-12 if order == 2 else bound)
        # of a step that was rejected the first output is still good: k-diffusion asks for it again
        assert calls == list(range(info["nfe"] - info["n_reject"]))
        assert (ours.number > 0) == ("eta" in knobs)


@every_adaptive
def test_the_error_follows_the_tolerance(name):
    exact = flow(PROCESS.ratio_min)[3:4]
    errors, costs = [], []
    for rtol in (1e-2, 1e-4, 1e-6):
        x, calls = solve(name, ends(), rtol=rtol, atol=rtol / 10)
        errors.append(float((x - exact).norm() / exact.norm()))
        costs.append(len(calls))
    assert errors[0] < 1e-2 and errors[1] < errors[0] / 20 and errors[2] < errors[1] / 20, errors
    assert costs[0] < costs[1] < costs[2]


@every_adaptive
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_the_scaling_of_the_state_does_not_matter(name, end):
    levels = ends(end=end, steps=2)
    results = [
        solve(name, NoiseLevels.from_ratios(process, levels.ratio, levels.time)) for process in (PROCESS, PROCESS.ve())
    ]
    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-10) and results[0][1] == results[1][1]


@every_adaptive
def test_only_the_ends_are_used(name):
    for end in ("zero", "sigma_min"):
        one, other = (solve(name, ends(end=end, steps=steps)) for steps in (1, 30))
        assert torch.equal(one[0], other[0]) and one[1] == other[1]
    assert torch.allclose(one[0], solve(name, ends(end="zero"))[0], atol=0.1)


@every_adaptive
def test_pure_noise_may_stand_first(name):
    t = np.array([1.0, 0.0])
    x, calls = solve(name, NoiseLevels.from_ratios(RectifiedFlow(), RectifiedFlow().ratio_of_noise(t), 1000 * t))
    assert x.isfinite().all() and len(calls) > 3


@every_adaptive
def test_a_late_start_and_float32(name):
    levels = schedules.build("karras", PROCESS, 20, end="sigma_min").from_(8)
    x = flow(float(levels.ratio[0]))[3:4] * levels[0].alpha
    sampler = registry.load(name)
    double, single = (
        registry.solve(sampler, levels, denoiser, x.to(dtype)) for dtype in (torch.float64, torch.float32)
    )
    exact = flow(PROCESS.ratio_min)[3:4]
    assert float((double / levels[-1].alpha - exact).norm() / exact.norm()) < 0.05
    assert single.dtype == torch.float32 and float((single - double).abs().max()) < 1e-4  # steps may differ a little


@every_adaptive
def test_the_state_that_it_is_given_stays(name):
    x = starts()[3:4] * ends()[0].sigma
    before = x.clone()
    first = registry.solve(registry.load(name), ends(), denoiser, x)
    assert torch.equal(x, before) and torch.equal(first, registry.solve(registry.load(name), ends(), denoiser, x))


@every_adaptive
def test_it_ends_where_it_cannot_go_on(name):
    with pytest.raises(ValueError, match="not finite"):
        registry.solve(registry.load(name), ends(), lambda x, level: x * torch.nan, starts()[:1])
    with pytest.raises(ValueError, match="noise streams"):
        solve(name, ends(), eta=0.5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"order": 1}, "valid: 2, 3"),
        ({"rtol": 0.0, "atol": 0.0}, "one must be above 0"),
        ({"rtol": -0.1}, "not be negative"),
        ({"h_init": 0.0}, "h_init"),
        ({"eta": -1.0}, "not be negative"),
    ],
)
def test_bad_knobs_get_one_clear_line(knobs, message):
    with pytest.raises(ValueError, match=message) as error:
        solve("dpm_adaptive", ends(), **knobs)
    assert "\n" not in str(error.value)


def test_a_start_below_the_lowest_level_takes_the_prediction():
    """From under σmin to zero nothing is left to integrate: one call, x0."""
    process = DiscreteVP.scaled_linear()
    levels = NoiseLevels.from_ratios(process, np.array([process.ratio_min / 2, 0.0]))
    _, calls = solve("dpm_adaptive", levels)
    assert calls == [0]
