"""What every scheduler of diffusers must be able to do, whatever it computes: the library's own expectations."""

from __future__ import annotations

import inspect

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from samplers.hosts.diffusers import PlanScheduler

SD = {"num_train_timesteps": 1100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
PAIRS = [
    ("EulerDiscreteScheduler", SD, "euler"),
    ("EulerDiscreteScheduler", SD, "heun"),
    ("EulerAncestralDiscreteScheduler", SD, "euler_a"),
    ("EulerDiscreteScheduler", SD, "restart"),
    ("DPMSolverMultistepScheduler", SD, "dpmpp"),
    ("UniPCMultistepScheduler", SD, "unipc"),
    ("DPMSolverMultistepScheduler", SD, "dpmpp_2m_sde"),
    ("DDIMScheduler", {**SD, "clip_sample": True}, "ddim"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "unipc"),
    ("EDMEulerScheduler", {}, "dpmpp"),
]
ALL = pytest.mark.parametrize(
    ("kind", "settings", "sampler"), PAIRS, ids=lambda value: value if type(value) is str else ""
)
BETAS = pytest.mark.parametrize(("kind", "settings", "sampler"), PAIRS[:8], ids=lambda v: v if type(v) is str else "")


def made(kind, settings, sampler, **changes):
    return PlanScheduler(kind, sampler, **{**settings, **changes})


def state(dtype=torch.float32):
    return torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).to(dtype) / 800


def run(scheduler, steps=5, **given):
    scheduler.set_timesteps(steps, **given)
    x = state() * scheduler.init_noise_sigma
    generator = torch.Generator().manual_seed(0)
    for t in scheduler.timesteps:
        x = scheduler.step(scheduler.scale_model_input(x, t) * 0.3, t, x, generator=generator).prev_sample
    return x


@ALL
def test_a_step_after_saving_is_the_step_before(kind, settings, sampler, tmp_path):
    scheduler = made(kind, settings, sampler)
    scheduler.save_pretrained(tmp_path)
    assert torch.equal(run(PlanScheduler.from_pretrained(tmp_path)), run(scheduler))
    again, unused = PlanScheduler.from_pretrained(tmp_path, return_unused_kwargs=True, somebody_elses=1)
    assert unused == {"somebody_elses": 1} and torch.equal(run(again), run(scheduler))


@ALL
def test_a_tuple_and_an_output_hold_the_same(kind, settings, sampler):
    scheduler, results = made(kind, settings, sampler), []
    for return_dict in (False, True):
        scheduler.set_timesteps(5)
        x = state() * scheduler.init_noise_sigma
        generator = torch.Generator().manual_seed(0)
        results.append(scheduler.step(x * 0.1, scheduler.timesteps[0], x, generator=generator, return_dict=return_dict))
    assert isinstance(results[0], tuple) and torch.equal(results[0][0], results[1].prev_sample)
    assert torch.equal(results[0][1], results[1]["pred_original_sample"])


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_step_keeps_shape_and_type(kind, settings, sampler, dtype):
    scheduler = made(kind, settings, sampler)
    scheduler.set_timesteps(5)
    x = state(dtype)
    for t in scheduler.timesteps[:2]:
        y = scheduler.step(scheduler.scale_model_input(x, t) * 0.1, t, x)[0]
        assert y.shape == x.shape and y.dtype == dtype and y.isfinite().all()
        x = y


@ALL
def test_what_pipelines_look_for_is_there(kind, settings, sampler):
    scheduler = made(kind, settings, sampler)
    assert isinstance(scheduler, SchedulerMixin) and isinstance(scheduler.timesteps, torch.Tensor)
    assert isinstance(scheduler.init_noise_sigma, float) and len(scheduler) == scheduler.config.num_train_timesteps
    for name in ("set_timesteps", "step", "scale_model_input", "add_noise", "scale_noise", "set_begin_index"):
        assert callable(getattr(scheduler, name))
    assert {"timesteps", "sigmas", "mu"} < {*inspect.signature(scheduler.set_timesteps).parameters}
    takes = inspect.signature(scheduler.step).parameters
    assert "generator" in takes and "eta" not in takes
    for steps in (1, 2, 7):
        scheduler.set_timesteps(steps, device="cpu")
        assert scheduler.timesteps.ndim == 1 and len(scheduler.timesteps) == len(scheduler.sigmas) - 1
        assert scheduler.num_inference_steps == steps and scheduler.order >= 1


@ALL
def test_the_configuration_shows_through_flat(kind, settings, sampler):
    scheduler = made(kind, settings, sampler)
    stock = getattr(diffusers, kind)(**settings)
    for key, value in stock.config.items():
        if not key.startswith("_"):
            assert scheduler.config[key] == value and getattr(scheduler.config, key) == value
    assert scheduler.config.num_train_timesteps == scheduler.num_train_timesteps  # as an attribute: deprecated, works
    with pytest.raises(AttributeError):
        _ = scheduler.no_such_setting


@BETAS
def test_compatible_classes_are_made_of_it_and_it_of_them(kind, settings, sampler):
    scheduler = made(kind, settings, sampler)
    assert len(scheduler.compatibles) > 10
    for other in scheduler.compatibles:
        there = other.from_config(scheduler.config)
        back = PlanScheduler.from_config(there.config)
        kept, expected = ({k: dict(c)[k] for k in scheduler.config} for c in (back.config, scheduler.config))
        assert {*kept.pop("_use_default_values")} == {*expected.pop("_use_default_values")} and kept == expected
        assert torch.equal(run(back), run(scheduler))


@BETAS
def test_betas_may_be_given(kind, settings, sampler):
    betas = np.linspace(0.0002, 0.018, 30)
    scheduler = made(kind, settings, sampler, trained_betas=betas, num_train_timesteps=30)
    assert np.allclose(scheduler.betas.numpy(), betas) and run(scheduler).isfinite().all()
    assert torch.allclose(scheduler.alphas_cumprod, torch.from_numpy(np.cumprod(1 - betas)).float())


@BETAS
@pytest.mark.parametrize(
    "changes",
    [
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"timestep_spacing": "leading"},
        {"timestep_spacing": "trailing"},
        {"num_train_timesteps": 10},
        {"beta_end": 0.002},
    ],
)
def test_any_training_is_walked(kind, settings, sampler, changes):
    scheduler = made(kind, settings, sampler, **changes)
    assert run(scheduler).isfinite().all()
    before = made(kind, settings, sampler)
    same = all(before.config[key] == value for key, value in changes.items())  # a default of the class
    assert torch.equal(run(scheduler), run(before)) == same


@ALL
def test_noise_keeps_its_type_and_adds_what_the_level_says(kind, settings, sampler):
    scheduler = made(kind, settings, sampler)
    scheduler.set_timesteps(5)
    for dtype in (torch.float16, torch.float32):
        noised = scheduler.add_noise(state(dtype), torch.ones_like(state(dtype)), scheduler.timesteps[3].unsqueeze(0))
        assert noised.shape == state().shape and noised.dtype == dtype
    level = scheduler.sigmas[3]
    zero = scheduler.add_noise(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), scheduler.timesteps[3].unsqueeze(0))
    vp = level / (level**2 + 1).sqrt()
    assert any(torch.allclose(zero, expected.expand_as(zero), rtol=1e-5) for expected in (level, vp))


@ALL
def test_repeated_calls_are_independent(kind, settings, sampler):
    scheduler = made(kind, settings, sampler)
    first = run(scheduler)
    run(scheduler, steps=3)
    assert torch.equal(run(scheduler), first)
