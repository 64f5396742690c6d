"""Schedules against their formulas and against what diffusers steps with."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import yaml

from samplers import registry, schedules
from samplers.levels import DiscreteVP, NoiseLevels, Process

PROCESS = DiscreteVP.scaled_linear()
CONF = registry.CONF.parent / "schedule"
STEPS = (1, 2, 3, 7, 20, 50)


@pytest.mark.parametrize("name", schedules.names())
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", STEPS)
def test_levels_fall_to_the_end_that_was_asked_for(name, end, steps):
    levels = schedules.build(name, PROCESS, steps, end=end)
    assert (levels.steps, len(levels)) == (steps, steps + 1)
    assert (np.diff(levels.ratio) < 0).all() and (np.diff(levels.time) <= 1e-9).all()
    assert levels.ratio[-1] == pytest.approx(0 if end == "zero" else PROCESS.ratio_min, rel=1e-12)
    assert levels.time[-1] == pytest.approx(0, abs=1e-9)
    assert levels.ratio[0] <= PROCESS.ratio_max * (1 + 1e-12)
    assert np.allclose(levels.alpha**2 + levels.sigma**2, 1, rtol=0, atol=1e-14)
    inside = levels.ratio >= PROCESS.ratio_min
    assert np.allclose(PROCESS.time(levels.ratio[inside]), levels.time[inside], atol=1e-9)


@pytest.mark.parametrize("name", schedules.names())
def test_yaml_names_every_knob_and_its_default(name):
    written = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    signature = inspect.signature(schedules.SCHEDULES[name]).parameters.values()
    assert written == {"name": name} | {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


def test_formulas():
    sigma = schedules.build("karras", PROCESS, 5).ratio
    assert np.allclose(np.diff(sigma[:5] ** (1 / 7), 2), 0, atol=1e-12)
    sigma = schedules.build("exponential", PROCESS, 6, end="sigma_min").ratio
    assert np.allclose(np.diff(np.log(sigma), 2), 0, atol=1e-12)
    assert np.allclose(schedules.build("normal", PROCESS, 4).time, [999, 666, 333, 0, 0])
    assert np.allclose(schedules.build("simple", PROCESS, 4).time, [999, 749, 499, 249, 0])
    assert np.allclose(schedules.build("simple", PROCESS, 3).ratio[:3], PROCESS.table[[999, 666, 333]])
    assert np.allclose(
        schedules.build("linspace", PROCESS, 4, points="steps_plus_one").time[:4], [999, 749.25, 499.5, 249.75]
    )
    assert np.allclose(schedules.build("leading", PROCESS, 4).time, [751, 501, 251, 1, 0])
    assert np.allclose(schedules.build("leading", PROCESS, 4, points="steps_plus_one").time[:4], [801, 601, 401, 201])
    assert np.allclose(schedules.build("trailing", PROCESS, 4).time, [999, 749, 499, 249, 0])


@pytest.mark.parametrize(
    ("settings", "name", "knobs"),
    [
        ({"use_karras_sigmas": True}, "karras", {"rounding": "diffusers"}),
        ({"use_exponential_sigmas": True}, "exponential", {"rounding": "diffusers"}),
        ({}, "linspace", {"points": "steps_plus_one", "rounding": "diffusers"}),
        ({"timestep_spacing": "leading", "steps_offset": 1}, "leading", {"points": "steps_plus_one", "end": "zero"}),
        ({"timestep_spacing": "trailing"}, "trailing", {}),
    ],
)
@pytest.mark.parametrize("family", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_what_the_dpm_family_of_diffusers_steps_with_and_tells_its_model(settings, name, knobs, family):
    import diffusers

    training = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = getattr(diffusers, family)(**training, **settings)
    for steps in STEPS:
        scheduler.set_timesteps(steps)
        levels = schedules.build(name, PROCESS, steps, **knobs)
        assert levels.time[:-1].tolist() == scheduler.timesteps.tolist()
        assert np.allclose(levels.ratio, scheduler.sigmas.numpy(), rtol=3e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("karas", 5), "did you mean 'karras'.*valid: .*trailing"),
        (("karras", 0), "steps=0 .* at least 1"),
        (("trailing", -3), "at least 1"),
        (("simple", 2.5), "whole number"),
        (("simple", 1001), "must fall at every step"),
        (("leading", 1000), "trained timesteps"),
        (("linspace", 1001), None),
    ],
)
def test_bad_requests_get_one_clear_line(arguments, message):
    name, steps = arguments
    if message is None:
        assert schedules.build(name, PROCESS, steps).steps == steps
        return
    with pytest.raises(ValueError, match=message) as error:
        schedules.build(name, PROCESS, steps)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"end": "nil"}, "valid: zero, sigma_min"),
        ({"rounding": "up"}, "valid: none, diffusers"),
        ({"sigma": 1}, "no knob 'sigma'; valid: rho, end, rounding"),
        ({"rho": 0}, "above 0"),
    ],
)
def test_bad_knobs_get_one_clear_line(knobs, message):
    with pytest.raises(ValueError, match=message):
        schedules.build("karras", PROCESS, 5, **knobs)


def test_a_duplicate_level_is_refused():
    with pytest.raises(ValueError, match="must fall at every step"):
        schedules.build("leading", PROCESS, 5, offset=0)
    with pytest.raises(ValueError, match="must fall at every step"):
        NoiseLevels.from_ratios(PROCESS, [1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="grow with the timestep"):
        Process(np.array([1.0, 0.5]))


def test_tails():
    levels = schedules.build("karras", PROCESS, 10)
    tail = levels.from_(7)
    assert tail.steps == 3 and tail[0] == levels[7] and tail[-1] == levels[10]
    for start in (-1, 10, 11):
        with pytest.raises(ValueError, match="choose 0 to 9"):
            levels.from_(start)


def test_the_process_of_zero_terminal_snr_stays_finite():
    cumprod = np.linspace(0.999, 0.0, 1000)
    process = DiscreteVP.from_alphas_cumprod(cumprod)
    assert np.isfinite(process.ratio_max) and process.ratio_max > 4000
    assert schedules.build("trailing", process, 10)[0].time == 999


def test_levels_know_their_ratio_and_time():
    for process in (PROCESS, PROCESS.ve()):
        level = process.level(1.7)
        assert level.ratio == pytest.approx(1.7) and level.lam == pytest.approx(-np.log(1.7))
        assert process.ratio(level.time) == pytest.approx(1.7)
    assert PROCESS.ve().level(1.7).alpha == 1
    clean = PROCESS.level(0.0)
    assert (clean.alpha, clean.sigma, clean.time, clean.lam) == (1, 0, 0, np.inf)
