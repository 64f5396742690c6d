"""Schedules against their formulas and against what diffusers steps with."""

from __future__ import annotations

import inspect
import json
import re
from itertools import product

import numpy as np
import pytest
import yaml

from samplers import registry, schedules
from samplers.core.levels import (
    TRAINING_SCHEDULES,
    DiscreteVE,
    DiscreteVP,
    NoiseLevels,
    Process,
    RectifiedFlow,
    alphas_cumprod,
)  # fmt: skip
from samplers.schedules.searched import AYS_SIGMAS, AYS_TIMES, cheapest_path

PROCESS = DiscreteVP.scaled_linear()
CONF = registry.CONF.parent / "schedule"
STEPS = (1, 2, 3, 7, 20, 50)


PROCESSES = {
    "vp": PROCESS,
    "ve": PROCESS.ve(),
    "edm": DiscreteVE.edm(),
    "flow": RectifiedFlow(),
    "zero_snr": DiscreteVP.trained("linear", 1e-4, 0.02, zero_terminal_snr=True),
    "cosine": DiscreteVP.trained("squaredcos_cap_v2"),
}
# What these leave out at the noisy end is their definition; `file` has levels of its own (tests of plan files).
NAMES = [name for name in schedules.names() if name != "file"]
LATE_STARTS = ("leading", "ddim_uniform")


@pytest.mark.parametrize("name", NAMES)
def test_levels_fall_to_the_end_that_was_asked_for(name):
    for kind, end, steps in product(PROCESSES, ("zero", "sigma_min"), STEPS):
        _levels_fall_to_the_end(name, PROCESSES[kind], end, steps, case=(kind, end, steps))


def _levels_fall_to_the_end(name, process, end, steps, case):
    levels = schedules.build(name, process, steps, end=end)
    assert (levels.steps, len(levels)) == (steps, steps + 1), case
    assert (np.diff(levels.ratio) < 0).all() and (np.diff(levels.time) <= 1e-9).all(), case
    assert levels.ratio[-1] == pytest.approx(0 if end == "zero" else process.ratio_min, rel=1e-12, abs=0), case
    assert levels.time[-1] == pytest.approx(0 if end == "zero" else process.time_min, abs=1e-9), case
    if np.isinf(levels.ratio[0]):
        assert name == "flow_shift" and isinstance(process, RectifiedFlow), case
    else:
        assert levels.ratio[0] <= process.ratio_max * (1 + 1e-12), case
        if name not in LATE_STARTS:
            assert levels.ratio[0] == pytest.approx(process.ratio_max, rel=1e-9), case
    alpha, sigma = process.scale(levels.ratio)
    assert np.allclose(levels.alpha, alpha, rtol=0, atol=1e-14), case
    assert np.allclose(levels.sigma, sigma, rtol=0, atol=1e-14), case
    inside = levels.ratio >= process.ratio_min
    assert np.allclose(process.time(levels.ratio[inside]), levels.time[inside], atol=1e-9), case


@pytest.mark.parametrize("name", NAMES)
def test_very_many_steps_are_levels_that_fall_or_one_clear_line(name):
    """NoiseLevels refuses whatever does not fall, so that nothing but a plain reason may come out."""
    for kind, steps in product(PROCESSES, (250, 999, 1000, 1500)):
        try:
            assert schedules.build(name, PROCESSES[kind], steps).steps == steps, (kind, steps)
        except ValueError as error:
            said = str(error)
            assert re.search(r"take fewer|at most \d+ steps", said) and "\n" not in said, (kind, steps, said)
            assert steps > 500 or name == "gits", (kind, steps, said)


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


KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
BETA = {"use_beta_sigmas": True}


@pytest.mark.parametrize("training", [{}, {"beta_schedule": "linear"}, {"beta_schedule": "squaredcos_cap_v2"}], ids=str)
@pytest.mark.parametrize(
    ("family", "settings", "name", "knobs"),
    [
        ("EulerDiscreteScheduler", KARRAS, "karras", {}),
        ("HeunDiscreteScheduler", KARRAS, "karras", {}),
        ("EulerDiscreteScheduler", EXPONENTIAL, "exponential", {}),
        ("EulerDiscreteScheduler", BETA, "beta", {"of": "sigma"}),
        ("LMSDiscreteScheduler", BETA, "beta", {"of": "sigma"}),
        ("DPMSolverMultistepScheduler", BETA, "beta", {"of": "sigma"}),
        ("UniPCMultistepScheduler", BETA, "beta", {"of": "sigma"}),
        ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, "lu_lambdas", {}),
    ],
)
def test_sigmas_of_the_families_of_diffusers(family, settings, name, knobs, training):
    import diffusers

    given = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", **training}
    process = DiscreteVP.trained(given["beta_schedule"], given["beta_start"], given["beta_end"])
    scheduler = getattr(diffusers, family)(**given, **settings)
    for steps in (2, 3, 10, 50):  # the single step of diffusers' Euler family is at timestep 0
        scheduler.set_timesteps(steps)
        sigmas = np.unique(scheduler.sigmas.numpy())[::-1]  # Heun's has every level twice
        # 1 − ᾱ of the first timestep and √(1 − ᾱ)/√ᾱ of the last come out of float32 products there.
        assert np.allclose(
            schedules.build(name, process, steps, **knobs).ratio, sigmas, rtol=1e-3 if training else 3e-5
        )


def test_times_that_diffusers_tells_with_beta_and_lu_lambdas():
    import diffusers

    training = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for settings, name, knobs in (
        (BETA, "beta", {"of": "sigma", "rounding": "diffusers"}),
        ({"use_lu_lambdas": True}, "lu_lambdas", {"rounding": "diffusers"}),
    ):
        scheduler = diffusers.DPMSolverMultistepScheduler(**training, **settings)
        for steps in STEPS:
            scheduler.set_timesteps(steps)
            assert schedules.build(name, PROCESS, steps, **knobs).time[:-1].tolist() == scheduler.timesteps.tolist()


@pytest.fixture
def float64():
    """k-diffusion computes its schedules in torch's default precision."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("steps", [2, 3, 10, 50, 200])
def test_what_k_diffusion_steps_with(steps, float64):
    from k_diffusion import sampling

    low, high = PROCESS.ratio_min, PROCESS.ratio_max
    for theirs, name, knobs in (
        (sampling.get_sigmas_karras(steps, low, high), "karras", {}),
        (sampling.get_sigmas_karras(steps, low, high, rho=3.0), "karras", {"rho": 3.0}),
        (sampling.get_sigmas_exponential(steps, low, high), "exponential", {}),
        (sampling.get_sigmas_polyexponential(steps, low, high, rho=1.7), "polyexponential", {"rho": 1.7}),
        (sampling.get_sigmas_vp(steps), "vp", {"beta_d": 19.9, "beta_min": 0.1}),
    ):
        assert np.allclose(schedules.build(name, PROCESS, steps, **knobs).ratio, theirs.numpy(), rtol=1e-11), name


def test_k_diffusions_normal_sigmas(float64):
    import torch
    from k_diffusion.external import DiscreteSchedule

    theirs = DiscreteSchedule(torch.tensor(PROCESS.table), quantize=False)
    for steps in (2, 7, 50):
        ours = schedules.build("normal", PROCESS, steps).ratio
        assert np.allclose(ours, theirs.get_sigmas(steps).numpy(), rtol=5e-7)  # its times are always float32


@pytest.mark.parametrize("process", [PROCESS, RectifiedFlow()], ids=["vp", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 25, 50, 200])
def test_formulae_of_comfyui(process, steps):
    """Written down again from their definitions, over σ as it is called there: t of a flow, σ/α elsewhere."""
    from scipy import stats

    def sigma(name, **knobs):
        return process.noise(schedules.build(name, process, steps, **knobs).ratio)

    table = process.noise(process.table)
    last, grid = len(table) - 1, np.arange(steps)
    if isinstance(process, RectifiedFlow):
        table = np.append(table, 1.0)  # there t = 1 is an entry; the classical spacings here stop before it
    wanted = np.interp(np.linspace(last, 0, steps + 1)[:-1], np.arange(last + 1), np.log(table[: last + 1]))
    if process is PROCESS:
        assert np.allclose(sigma("sgm_uniform")[:-1], np.exp(wanted), rtol=1e-12)
        quantiles = stats.beta.ppf(1 - grid / steps, 0.6, 0.6)
        whole = np.rint(quantiles * last).astype(int)
        if (np.diff(whole) < 0).all():
            assert np.allclose(sigma("beta", rounding="comfyui")[:-1], table[whole], rtol=1e-12)
        assert np.abs(schedules.build("beta", process, steps).time[:-1] - quantiles * last).max() < 1e-6
        assert np.allclose(sigma("simple")[:-1], [table[-(1 + i * 1000 // steps)] for i in grid], rtol=1e-12)
        spread = np.arctan(table[-1]) + grid / max(steps - 1, 1) * (np.arctan(table[0]) - np.arctan(table[-1]))
        assert np.allclose(sigma("kl_optimal")[:-1], np.tan(spread), rtol=1e-12)
    if 1000 % steps == 0:
        assert np.allclose(sigma("ddim_uniform")[:-1], table[1 :: 1000 // steps][:steps][::-1], rtol=1e-12)
    # linear_quadratic: linear to 0.025 in half the steps, then the parabola to (steps, 1) that goes on as smoothly.
    bend = max(steps // 2, 1)
    points = np.minimum(np.arange(steps + 1), bend) * 0.025 / bend
    if steps > 1:
        a, b, c = np.linalg.solve(
            [[bend**2, bend, 1], [steps**2, steps, 1], [2 * bend, 1, 0]], [0.025, 1.0, 0.025 / bend]
        )
        late = np.arange(bend, steps + 1)
        points[bend:] = a * late**2 + b * late + c
    points[-1] = 1
    assert np.allclose(sigma("linear_quadratic"), (1 - points) * table[last], rtol=0, atol=1e-9)


def test_vp_fits_the_trained_range_as_edm_does():
    for process in PROCESSES.values():
        levels = schedules.build("vp", process, 30, end="sigma_min")
        t = np.linspace(1, 1e-3, 31)
        log = np.log1p(levels.ratio**2) / t  # βd t/2 + βmin: a straight line in t
        assert np.allclose(np.diff(log, 2), 0, atol=1e-6 * log[0])


def test_lu_lambdas_crowd_where_signal_and_noise_are_alike():
    lam = -np.log(schedules.build("lu_lambdas", PROCESS, 40, rho=3.0, end="sigma_min").ratio)
    assert np.allclose(lam, np.linspace(np.cbrt(lam[0]), np.cbrt(lam[-1]), 41) ** 3, rtol=0, atol=1e-13)
    one = schedules.build("lu_lambdas", PROCESS, 20).ratio
    assert np.allclose(one, schedules.build("exponential", PROCESS, 20).ratio, rtol=1e-13)


def test_time_quadratic_is_uniform_in_the_root_of_continuous_time():
    t = (schedules.build("time_quadratic", PROCESS, 25).time + 1) / 1000
    assert np.allclose(np.diff(np.sqrt(t), 2), 0, atol=1e-12) and (t[0], t[-1]) == (1, 1e-3)
    t = schedules.build("time_quadratic", RectifiedFlow(), 25).time / 1000
    assert np.allclose(np.diff(np.sqrt(t), 2), 0, atol=1e-12)


def test_align_your_steps():
    from diffusers.schedulers import AysSchedules

    ten = schedules.build("ays", PROCESS, 10)
    assert np.allclose(ten.time[:-1], AysSchedules["StableDiffusionTimesteps"], atol=1e-9)
    assert np.allclose(ten.ratio, AysSchedules["StableDiffusionSigmas"], rtol=2e-2)  # printed to three digits
    xl = schedules.build("ays", PROCESS, 10, table="sdxl")
    assert np.allclose(xl.time[:-1], AysSchedules["StableDiffusionXLTimesteps"], atol=1e-9)
    video = schedules.build("ays", DiscreteVE.edm(0.002, 700.0), 10, table="svd", end="sigma_min")
    assert np.allclose(video.ratio[:-1], AysSchedules["StableDiffusionVideoSigmas"][:-1], rtol=1e-9)
    # Twice the steps keep every level and put one between two, half way in log σ.
    twenty = schedules.build("ays", PROCESS, 20).ratio
    assert np.allclose(twenty[:-1:2], ten.ratio[:-1], rtol=1e-12)
    assert np.allclose(twenty[1:18:2] ** 2, ten.ratio[:9] * ten.ratio[1:10], rtol=1e-12)
    assert {len(table) for table in (*AYS_TIMES.values(), *AYS_SIGMAS.values())} == {11}


# ------------------------------------------------------------------------------------------------------------- flow


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_shift_is_that_of_diffusers(steps, shift):
    import diffusers

    flow = RectifiedFlow()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    # diffusers shifts the lowest of its times before it spaces them, and again with the others.
    twice = shift * 1e-3 / (1 + (shift - 1) * 1e-3)
    levels = schedules.build("flow_shift", flow, steps, shift=shift, points="steps", t_min=twice)
    assert np.allclose(levels.sigma, scheduler.sigmas.numpy(), atol=1e-6)
    assert np.allclose(levels.time[:-1], scheduler.timesteps.numpy(), atol=1e-3)
    # What the pipelines of Flux pass.
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    levels = schedules.build("flow_shift", flow, steps, shift=shift)
    assert np.allclose(levels.sigma, scheduler.sigmas.numpy(), atol=1e-6) and levels[0].alpha == 0


def test_dynamic_flow_shift_is_that_of_diffusers():
    import diffusers
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    flow, sigmas = RectifiedFlow(), np.linspace(1, 1 / 20, 20)
    for tokens in (256, 1024, 4096):
        mu = calculate_shift(tokens)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(sigmas=sigmas, mu=mu)
        for knobs in ({"mu": mu}, {"image_seq_len": tokens}):
            levels = schedules.build("flow_shift", flow, 20, **knobs)
            assert np.allclose(levels.sigma, scheduler.sigmas.numpy(), atol=1e-6)
        linear = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
        linear.set_timesteps(sigmas=sigmas, mu=mu)
        assert np.allclose(schedules.build("flow_shift", flow, 20, shift=mu).sigma, linear.sigmas.numpy(), atol=1e-6)
        stretched = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
        stretched.set_timesteps(sigmas=sigmas, mu=mu)
        levels = schedules.build("flow_shift", flow, 20, mu=mu, shift_terminal=0.1)
        assert np.allclose(levels.sigma, stretched.sigmas.numpy(), atol=1e-6)


def test_flow_shift_can_begin_below_pure_noise_and_keeps_other_models_in_their_range():
    levels = schedules.build("flow_shift", RectifiedFlow(), 10, shift=1.0, t_max=0.98)
    assert levels.sigma[0] == pytest.approx(0.98) and np.isfinite(levels.ratio).all()
    for points in ("steps", "steps_plus_one"):
        ratio = schedules.build("flow_shift", PROCESS, 400, points=points).ratio
        assert ratio[0] == pytest.approx(PROCESS.ratio_max) and ratio[-2] >= PROCESS.ratio_min * (1 - 1e-12)
    for knobs, message in (
        ({"mu": 1.0, "image_seq_len": 256}, "not both"),
        ({"t_max": 1.5}, "t_max ≤ 1"),
        ({"shift": 0.0}, "shift=0.0 .* above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            schedules.build("flow_shift", RectifiedFlow(), 10, **knobs)


def test_rectified_flow_is_exact_between_and_beyond_its_timesteps():
    flow = RectifiedFlow()
    assert (flow.train_steps, flow.time_min, flow.time_max) == (1000, 1, 999)
    assert flow.ratio_max == pytest.approx(999) and flow.ratio_min == pytest.approx(1 / 999)
    t = np.linspace(0, 1, 20001)
    alpha, sigma = flow.scale(flow.ratio(1000 * t))
    assert np.abs(alpha - (1 - t)).max() < 3e-16 and np.abs(sigma - t).max() < 3e-16
    assert np.abs(flow.time(flow.ratio(1000 * t)) - 1000 * t).max() < 3e-13
    tiny = flow.level(1e-12)  # no digits are lost where 1 − α would lose them
    assert tiny.sigma == pytest.approx(1e-12, rel=1e-11, abs=0)
    noise, clean = flow.level(np.inf), flow.level(0.0)
    assert noise == (0, 1, 1000) and noise.ratio == np.inf and noise.lam == -np.inf
    assert clean == (1, 0, 0) and clean.lam == np.inf


def test_pure_noise_may_only_stand_first():
    flow = RectifiedFlow()
    assert NoiseLevels.from_ratios(flow, [np.inf, 1.0, 0.0]).ratio.tolist() == [np.inf, 1, 0]
    with pytest.raises(ValueError, match="after the first"):
        NoiseLevels.from_ratios(flow, [np.inf, np.inf, 1.0])
    with pytest.raises(ValueError, match="must hold noise"):
        NoiseLevels(np.array([0.0, 1.0]), np.array([0.0, 0.0]), np.array([1.0, 0.0]), flow)


# -------------------------------------------------------------------------------------------------- how it was trained


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", TRAINING_SCHEDULES)
def test_training_schedules_are_those_of_diffusers(kind, zero_snr, monkeypatch):
    import torch
    from diffusers.schedulers import scheduling_ddim as theirs

    settings = {"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 800, "beta_schedule": kind}
    settings["rescale_betas_zero_snr"] = zero_snr
    stock = theirs.DDIMScheduler(**settings).alphas_cumprod.double().numpy()
    # The same code with its casts to float32 taken out.
    monkeypatch.setattr(theirs.torch, "float32", torch.float64)
    exact = theirs.DDIMScheduler(**settings).alphas_cumprod
    assert exact.dtype == torch.float64
    monkeypatch.undo()
    ours = alphas_cumprod(kind, 1e-4, 0.02, 800, zero_snr)
    assert np.abs(ours - exact.numpy()).max() < 1e-12
    assert np.abs(ours - stock).max() < 2e-6
    assert (ours[-1] == 0) == zero_snr
    process = DiscreteVP.trained(kind, 1e-4, 0.02, 800, zero_snr)
    inside = slice(0, -1 if zero_snr else None)
    assert np.allclose(1 / (1 + process.table[inside] ** 2), ours[inside], rtol=1e-12)


def test_a_training_schedule_nobody_knows():
    with pytest.raises(ValueError, match="valid: linear, scaled_linear, squaredcos_cap_v2"):
        DiscreteVP.trained("cosine")


def test_edm_knows_every_sigma_between_its_ends():
    process = DiscreteVE.edm()
    sigma = np.geomspace(0.002, 80, 777)
    assert np.allclose(process.ratio(process.time(sigma)), sigma, rtol=1e-12)
    level = process.level(1.234)
    assert (level.alpha, level.sigma) == (1, 1.234)


# ------------------------------------------------------------------------------------------------------------- gits


def test_the_search_finds_the_cheapest_path():
    from itertools import combinations, pairwise

    cost = np.random.default_rng(0).random((9, 9))
    for jumps in (1, 2, 4, 8):
        for coeff in (0.2, 1.0, 4.0):
            paths = [(0, *middle, 8) for middle in combinations(range(1, 8), jumps - 1)]
            price = [sum(coeff**k * cost[a, b] for k, (a, b) in enumerate(pairwise(p))) for p in paths]
            falling = np.where(np.triu(np.ones((9, 9)), 1), cost, np.inf)
            assert tuple(cheapest_path(falling, jumps, coeff)) == paths[int(np.argmin(price))]


def test_gits_reads_what_was_written(tmp_path):
    ratios = [14.6, 6.0, 2.0, 0.7, 0.03, 0.0]
    cost = [[abs(i - j) ** 2.0 for j in range(i + 1, 6)] for i in range(6)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"ratios": ratios, "cost": cost}))
    levels = schedules.build("gits", PROCESS, 5, file=str(path))
    stretched = np.polyfit(np.log(ratios[:-1]), np.log(levels.ratio[:-1]), 1, full=True)
    assert stretched[1].sum() < 1e-20 and levels.ratio[0] == pytest.approx(PROCESS.ratio_max)
    settled = schedules.settled({"name": "gits", "file": str(path), "sha256": None, "coeff": 1.15, "end": "zero"})
    assert len(settled["sha256"]) == 64 and settled["coeff"] == 1.15
    knobs = {key: value for key, value in settled.items() if key != "name"}
    assert schedules.build("gits", PROCESS, 3, **knobs).steps == 3
    path.write_text(json.dumps({"ratios": ratios[:-1], "cost": cost}))
    for given, message in (
        (knobs, "is not the one with sha256"),
        ({"file": str(path)}, "was not written by"),
        ({"file": "nobody"}, r"not there: .* \(embedded\)"),
        ({"coeff": -1.0}, "coeff=-1.0 .* above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            schedules.build("gits", PROCESS, 3, **given)
    assert schedules.settled({"name": "karras", "rho": 7.0}) == {"name": "karras", "rho": 7.0}


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
