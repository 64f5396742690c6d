"""The plans against diffusers' schedulers and k-diffusion's functions: same model, same levels, same start.

diffusers casts to float32 in many places. `float64_modules` lets its modules see float64 wherever they say float32, so
that what is compared is the method; one test without it compares with the schedulers as they are.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import schedulers
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_dpmsolver_multistep,
    scheduling_euler_discrete,
    scheduling_pndm,
    scheduling_unipc_multistep,
)

from samplers import registry
from samplers import schedules as schedules_
from samplers.integrate import integrate
from samplers.levels import DiscreteVP

PROCESS = DiscreteVP.scaled_linear()
TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MODULES = (
    scheduling_ddim,
    scheduling_dpmsolver_multistep,
    scheduling_euler_discrete,
    scheduling_pndm,
    scheduling_unipc_multistep,
)
DPM_GRID = {"points": "steps_plus_one", "rounding": "diffusers"}
SD = {"steps_offset": 1, "set_alpha_to_one": False}

# name: (scheduler, its settings, our sampler with knobs, our schedule, its knobs)
PAIRS = {
    "euler": ("EulerDiscreteScheduler", {}, "euler", {}, "linspace", {"rounding": "diffusers"}),
    "euler-leading": (
        "EulerDiscreteScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1},
        "euler",
        {},
        "leading",
        {"end": "zero"},
    ),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "euler", {}, "trailing", {}),
    "euler-karras": (
        "EulerDiscreteScheduler",
        {"use_karras_sigmas": True, "final_sigmas_type": "zero"},
        "euler",
        {},
        "karras",
        {},
    ),
    "dpmpp": ("DPMSolverMultistepScheduler", {}, "dpmpp", {}, "linspace", DPM_GRID),
    "dpmpp-karras": (
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True},
        "dpmpp",
        {},
        "karras",
        {"rounding": "diffusers"},
    ),
    "dpmpp-exponential": (
        "DPMSolverMultistepScheduler",
        {"use_exponential_sigmas": True},
        "dpmpp",
        {},
        "exponential",
        {"rounding": "diffusers"},
    ),
    "dpmpp-heun": (
        "DPMSolverMultistepScheduler",
        {"solver_type": "heun", "use_karras_sigmas": True},
        "dpmpp",
        {"solver_type": "heun"},
        "karras",
        {"rounding": "diffusers"},
    ),
    "dpmpp-leading": (
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1, "lower_order_final": False},
        "dpmpp",
        {"lower_order_final": False},
        "leading",
        {"points": "steps_plus_one", "end": "zero"},
    ),
    "dpmpp-3": ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpmpp", {"order": 3}, "linspace", DPM_GRID),
    "dpmpp-sigma_min": (
        "DPMSolverMultistepScheduler",
        {"final_sigmas_type": "sigma_min"},
        "dpmpp",
        {},
        "linspace",
        {**DPM_GRID, "end": "sigma_min"},
    ),
    "unipc": ("UniPCMultistepScheduler", {}, "unipc", {}, "linspace", DPM_GRID),
    "unipc-karras": (
        "UniPCMultistepScheduler",
        {"use_karras_sigmas": True},
        "unipc",
        {},
        "karras",
        {"rounding": "diffusers"},
    ),
    "unipc-bh1": (
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        "unipc",
        {"variant": "bh1"},
        "linspace",
        {**DPM_GRID, "end": "sigma_min"},
    ),
    "unipc-3-bh1": (
        "UniPCMultistepScheduler",
        # bh1 with a final zero is 0·inf in diffusers
        {"solver_order": 3, "solver_type": "bh1", "disable_corrector": [0, 1], "final_sigmas_type": "sigma_min"},
        "unipc",
        {"order": 3, "variant": "bh1", "disable_corrector": 2},
        "linspace",
        {**DPM_GRID, "end": "sigma_min"},
    ),
    "unipc-4-sigma_min": (
        "UniPCMultistepScheduler",
        {"solver_order": 4, "final_sigmas_type": "sigma_min", "lower_order_final": False},
        "unipc",
        {"order": 4, "lower_order_final": False},
        "linspace",
        {**DPM_GRID, "end": "sigma_min"},
    ),
    "ddim": ("DDIMScheduler", {**SD, "clip_sample": False}, "ddim", {}, "leading", {}),
    "plms": ("PNDMScheduler", {**SD, "skip_prk_steps": True}, "plms", {}, "leading", {}),
    "plms-prk": ("PNDMScheduler", SD, "plms", {"warmup": "prk"}, "leading", {}),
}
STEPS = (1, 2, 3, 10, 20)


class _Widened:
    """A module in which float32 means float64."""

    def __init__(self, module, wide):
        self._module, self._wide = module, wide

    def __getattr__(self, name):
        return self._wide if name == "float32" else getattr(self._module, name)


@pytest.fixture
def float64_modules(monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, "torch", _Widened(torch, torch.float64))
        monkeypatch.setattr(module, "np", _Widened(np, np.float64))


def eps(x, time):
    """A nonlinear stand-in for a network that mixes positions and depends on the time it is told."""
    return torch.tanh(x * (1 + 0.3 * math.sin(time / 90)) + 0.2 * x.roll(1, -1) + 0.1 * math.cos(time / 40))


def denoiser(x, level):
    return (x - level.sigma * eps(x, level.time)) / level.alpha


def start(dtype):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def by_diffusers(scheduler_name, settings, steps, x):
    """The loop of diffusers' pipelines; returns the result, the levels' times and how often the model was called."""
    scheduler = getattr(schedulers, scheduler_name)(**TRAINING, **settings)
    scheduler.set_timesteps(steps)
    times = [float(t) for t in scheduler.timesteps]
    if scheduler_name.startswith("Euler"):
        x = x * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    for t in scheduler.timesteps:
        x = scheduler.step(eps(scheduler.scale_model_input(x, t), float(t)), t, x).prev_sample
    return x, times


def by_plan(sampler, knobs, schedule, schedule_knobs, steps, x):
    levels = schedules_.build(schedule, PROCESS, steps, **schedule_knobs)
    plan = registry.build_plan({**registry.load(sampler), **knobs}, levels)
    return integrate(plan, denoiser, x), [stage.level.time for stage in plan.stages]


def cases(*without):
    for name in [name for name in PAIRS if name not in without]:
        for steps in STEPS:
            if name == "plms-prk" and steps < 4:
                continue  # not defined there in diffusers
            if name == "euler-karras" and steps == 1:
                continue  # diffusers takes sigma_min for sigma_max when there is one timestep
            if name == "unipc-4-sigma_min" and steps == 1:
                continue  # covered by order 1
            yield pytest.param(name, steps, id=f"{name}-{steps}")


def far(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


# truncated times depend on diffusers' float32: only the next test can compare them
@pytest.mark.parametrize(("name", "steps"), cases("dpmpp-exponential"))
def test_method_is_that_of_diffusers(name, steps, float64_modules):
    scheduler, settings, *ours = PAIRS[name]
    theirs, their_times = by_diffusers(scheduler, settings, steps, start(torch.float64))
    result, times = by_plan(*ours, steps, start(torch.float64))
    assert times == pytest.approx(their_times, abs=1e-9)
    assert far(result, theirs) <= 1e-12


# diffusers solves order 4 in float32, which costs it two digits
@pytest.mark.parametrize(("name", "steps"), cases("unipc-4-sigma_min"))
def test_result_is_that_of_stock_diffusers(name, steps):
    scheduler, settings, *ours = PAIRS[name]
    theirs, their_times = by_diffusers(scheduler, settings, steps, start(torch.float32))
    result, times = by_plan(*ours, steps, start(torch.float32))
    assert times == pytest.approx(their_times, abs=2e-2 if "karras" in name else 1e-3)
    assert far(result, theirs) <= 5e-6


@pytest.mark.parametrize("steps", STEPS)
def test_ddim_eta_adds_the_noise_of_diffusers(steps, float64_modules):
    scheduler = schedulers.DDIMScheduler(**TRAINING, **SD, clip_sample=False)
    scheduler.set_timesteps(steps)
    draws = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(steps)]
    x = start(torch.float64)
    for t, noise in zip(scheduler.timesteps, draws, strict=True):
        x = scheduler.step(eps(x, float(t)), t, x, eta=0.7, variance_noise=noise.double()).prev_sample
    levels = schedules_.build("leading", PROCESS, steps)
    plan = registry.build_plan({"solver": "ddim", "eta": 0.7}, levels)
    assert plan.draws == steps
    assert far(integrate(plan, denoiser, start(torch.float64), noise=_Given(draws)), x) <= 1e-12


class _Given:
    def __init__(self, draws):
        self._draws = iter(draws)

    def draw(self, above=None, below=None):
        return next(self._draws)


def test_euler_and_2m_are_those_of_k_diffusion(monkeypatch):
    sampling = pytest.importorskip("k_diffusion.sampling")  # 8 s: nowhere else

    def model(x, sigma):
        return torch.tanh(x * 0.8 / (1 + sigma.flatten()[0]) + 0.1 * x.roll(1, -1))

    for steps in (2, 3, 10, 20):
        levels = schedules_.build("karras", PROCESS.ve(), steps)
        sigmas = torch.tensor(levels.sigma)
        x = start(torch.float64) * levels[0].sigma
        churn = {"s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}
        draws = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(steps)]
        runs = (
            ("euler", {}, sampling.sample_euler, {}),
            ("euler", churn, sampling.sample_euler, churn),
            ("dpmpp", {"lower_order_final": False}, sampling.sample_dpmpp_2m, {}),
        )
        for sampler, knobs, function, arguments in runs:
            plan = registry.build_plan({**registry.load(sampler), **knobs}, levels)
            theirs_noise = iter(draws)
            monkeypatch.setattr(sampling.torch, "randn_like", lambda x, it=theirs_noise: next(it).to(x.dtype))
            theirs = function(model, x, sigmas, disable=True, **arguments)
            churned = [noise for noise, stage in zip(draws, plan.stages, strict=True) if stage.draws]
            ours = integrate(
                plan, lambda x, level: model(x, torch.tensor([level.ratio], dtype=x.dtype)), x, noise=_Given(churned)
            )
            assert far(ours, theirs) <= 1e-12, (sampler, steps)
            monkeypatch.undo()
