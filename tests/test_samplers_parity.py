"""Our plans beside diffusers' schedulers and k-diffusion's functions.

First on our levels, every sampler of conf/sampler by every counterpart (harness/parity/table.py); then the known
differences; then on the peers' own grids, so that our schedules are theirs too.
"""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from diffusers import schedulers

from harness.parity import __main__ as command
from harness.parity import known_differences, table
from harness.parity.side_by_side import SHAPE, denoiser, eps, far, start
from samplers import registry
from samplers import schedules as schedules_
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, RectifiedFlow
from samplers.core.noise import NoiseStreams
from samplers.peers import load as peers
from samplers.peers.counterparts import DIFFUSERS, K_DIFFUSION
from samplers.peers.widened import float64

PROCESS = DiscreteVP.scaled_linear()
TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = (1, 2, 3, 10, 20)

# ------------------------------------------------------------------------------------- on our levels, every counterpart


@pytest.fixture(scope="module")
def frame():
    """The command takes all steps in either precision."""
    both = (table.table(registry.names(), [name], steps) for name, steps in (("float64", STEPS), ("stock", (2, 20))))
    return pd.concat(both)


@pytest.mark.parametrize("name", registry.names())
def test_sampler_is_that_of_every_counterpart(frame, name):
    bad = frame[(frame["sampler"] == name) & ~frame["verdict"].isin(table.PASSES)]
    assert bad.empty, bad[["knobs", "counterpart", "precision", "end", "steps", "difference", "reason"]].to_string()


def test_every_counterpart_was_run_in_either_precision(frame):
    for peer in (DIFFUSERS, K_DIFFUSION):
        for row in (row for rows in peer.values() for row in rows):
            found = frame[(frame["counterpart"] == row.name) & frame["difference"].notna()]
            assert set(found["precision"]) == set(table.LIMITS), row.name
            assert found["steps"].nunique() >= 2, row.name


def test_all_thirteen_functions_of_k_diffusion_are_compared():
    from k_diffusion import sampling

    theirs = {name for name in vars(sampling) if name.startswith("sample_")}
    assert len(theirs) == 13
    assert {row.name for rows in K_DIFFUSION.values() for row in rows} == theirs


# Schedulers of diffusers that are no solver of the ones here: each with the reason.
NO_COUNTERPART = {
    "another model's own process": """Amused BlockRefinement CogVideoXDDIM CogVideoXDPM ConsistencyDecoder
        DDPMWuerstchen DiscreteDDIM EntropyBound FlowMapEulerDiscrete HeliosDMD Helios MiniMaxH3 Piflow
        RFD4Proteina SCM UnCLIP VQDiffusion""",
    "runs towards the noise": "DDIMInverse DPMSolverMultistepInverse",
    "resamples for inpainting": "RePaint",
    "deprecated": "KarrasVe ScoreSdeVp ScoreSdeVe",
    "a consistency model over EDM noise": "CMStochasticIterative",
}


def test_every_scheduler_of_diffusers_is_compared_or_has_no_counterpart():
    compared = {row.name for rows in DIFFUSERS.values() for row in rows}
    without = {f"{name}Scheduler" for names in NO_COUNTERPART.values() for name in names.split()}
    theirs = {name for name in dir(schedulers) if name.endswith("Scheduler")}
    assert not compared & without
    assert theirs - compared - without == set(), "a scheduler that nobody looked at"


def test_a_sampler_without_counterpart_is_said_to_have_none():
    """One file and one YAML are a sampler; that no scheduler goes uncompared is held from the peers' side, above."""
    found = table.table(["gradient_estimation"], ["float64"], (3,))
    assert set(found["verdict"]) == {"absent"} and found["reason"].str.contains("no counterpart").all()


def test_a_wrong_coefficient_and_a_mended_fault_are_found(monkeypatch):
    from samplers.solvers.dpmpp_m_sde import DPMppMSDE

    assert set(table.table(["dpmpp_3m_sde"], ["float64"], (10,))["verdict"]) == {"agrees", "by design", "absent"}
    right = DPMppMSDE.plan

    def off(self, levels):
        plan = right(self, levels)
        first = dataclasses.replace(plan.stages[-2], noise=plan.stages[-2].noise * (1 + 1e-9))
        return dataclasses.replace(plan, stages=(*plan.stages[:-2], first, plan.stages[-1]))

    monkeypatch.setattr(DPMppMSDE, "plan", off)
    monkeypatch.setattr(table, "VARIANTS", {})
    found = table.table(["dpmpp_3m_sde"], ["float64"], (10,), ["k_diffusion"])
    assert "differs" in set(found["verdict"])
    fault = known_differences.Fault("1", "here", "a fault that is gone", lambda: 1e-9, 0.1, 1.0)
    assert known_differences._found(fault).verdict == "fault gone"


def test_a_class_that_is_missing_in_another_version_is_a_row_and_no_crash(monkeypatch):
    row = dataclasses.replace(DIFFUSERS["lms"][0], name="NotYetScheduler")
    monkeypatch.setitem(DIFFUSERS, "lms", (row,))
    monkeypatch.setattr(table, "VARIANTS", {})
    found = table.table(["lms"], ["float64"], (3,), ["diffusers"])
    assert set(found["verdict"]) == {"not there"} and set(found["verdict"]) <= set(table.PASSES)


def test_a_peer_that_cannot_be_imported_is_no_pass(monkeypatch):
    monkeypatch.setattr(table, "_missing", lambda peer: f"{peer} cannot be imported" if peer == "diffusers" else "")
    found = table.table(["euler"], ["float64"], (3,))
    assert set(found.loc[found["peer"] == "diffusers", "verdict"]) == {"no peer"} and "no peer" not in table.PASSES


@pytest.mark.parametrize("fault", known_differences.FAULTS, ids=lambda fault: f"{fault.number}-{fault.where}")
def test_known_difference_is_still_there(fault):
    found = known_differences._found(fault)
    assert found.verdict == "by design", found


def test_the_thirteen_causes_are_all_reproduced():
    assert {str(n) for n in range(1, 14)} <= {fault.number for fault in known_differences.FAULTS}


def test_command_writes_and_says_what_it_found(tmp_path, capsys):
    assert command.main(["--samplers", "dpmpp,dpmpp_3m_sde", "--steps", "3,10", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "DPMSolverMultistepScheduler" in told and "by design" in told and told.rstrip().endswith("pass")
    kept = pd.read_parquet(next((tmp_path / "parity").glob("*.parquet")))
    assert {"torch", "diffusers", "k_diffusion", "difference", "verdict", "reason"} <= set(kept.columns)
    assert (tmp_path / "plots" / "parity.png").stat().st_size > 10_000


def test_command_fails_where_a_pair_differs(tmp_path, monkeypatch):
    monkeypatch.setitem(table.LIMITS, "float64", 1e-18)
    assert command.main(["--samplers", "heun", "--float64", "--steps", "10", "--out", str(tmp_path)]) == 1


# ------------------------------------------------------------------------------------------------- as a sweep runs them


def run(implementation, sampler, levels, **more):
    noise = NoiseStreams(0, (0, 1), SHAPE)
    return peers.load(implementation).run(sampler, levels, denoiser, start(levels, torch.float64, 2), noise, **more)


@pytest.mark.parametrize(
    ("name", "knobs", "task", "word"),
    [
        ("unipc", {}, "txt2img", "no counterpart of unipc"),
        ("dpmpp", {"order": 3}, "txt2img", "order=3"),
        ("euler", {}, "inpaint", "inpaint"),
    ],
)
def test_what_k_diffusion_cannot_do_is_said_in_one_line(name, knobs, task, word):
    with pytest.raises(ValueError, match=word) as caught:
        peers.check("k_diffusion", {**registry.load(name), **knobs}, task)
    assert "\n" not in str(caught.value)


def test_what_can_be_run_passes_the_check_and_levels_are_checked_too():
    peers.check("diffusers", registry.load("deis"), "inpaint")
    with pytest.raises(ValueError, match="sigma_min"):
        levels = schedules_.build("karras", PROCESS, 5)
        peers.check("diffusers", registry.load("deis"), "txt2img", levels)
    with pytest.raises(ValueError, match="unknown"):
        peers.check("difusers", registry.load("euler"), "txt2img")


@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "ddim", "plms", "dpmpp", "dpmpp_2m_sde", "flow_heun"])
def test_blend_and_calls_are_those_of_our_loop(name):
    """after_stage sees every state at its level; the model is called as often, at the same levels."""
    sampler = registry.load(name)
    process = RectifiedFlow() if name.startswith("flow") else PROCESS
    levels = schedules_.build(sampler["default_schedule"], process, 6)
    told: dict[str, list] = {"ours": [], "theirs": []}

    def seen_by(whose):
        def denoise(x, level):
            told[whose].append(level)
            return denoiser(x, level)

        return denoise

    def blend(x, level):
        kept = level.alpha * 0.3 * torch.ones_like(x)
        return torch.cat([kept[..., :3], x[..., 3:]], -1)

    counts = []
    x = start(levels, torch.float64, 2)
    plan = registry.build_plan(sampler, levels)
    mine = integrate(plan, seen_by("ours"), x, NoiseStreams(0, (0, 1), SHAPE), blend)
    with float64():
        theirs = peers.load("diffusers").run(
            sampler, levels, seen_by("theirs"), x, NoiseStreams(0, (0, 1), SHAPE), blend, counts.append
        )
    assert counts == list(range(plan.nfe))
    assert [tuple(level) for level in told["theirs"]] == [pytest.approx(tuple(level)) for level in told["ours"]]
    assert far(mine, theirs) <= 1e-12


@pytest.mark.parametrize("implementation", ["diffusers", "k_diffusion"])
def test_state_of_any_scaling_goes_in_and_comes_out(implementation):
    """The same run in a variance-exploding state, and from the middle of a schedule (img2img)."""
    sampler = registry.load("dpmpp")
    levels = schedules_.build("karras", PROCESS, 10).from_(4)
    exploding = schedules_.build("karras", PROCESS.ve(), 10).from_(4)
    x = start(levels, torch.float64, 2)

    def unscaled(y, level):
        vp = PROCESS.level(level.ratio)
        return denoiser(y * vp.alpha, vp)

    peer = peers.load(implementation)
    with float64():
        one = peer.run(sampler, levels, denoiser, x)
        other = peer.run(sampler, exploding, unscaled, x / levels[0].alpha)
    assert far(other * levels[len(levels) - 1].alpha, one) <= 1e-12


def test_idle_draws_leave_the_streams_where_they_are():
    """k-diffusion's Euler asks for noise in every step, diffusers' Euler a for the step to σ = 0."""
    for implementation, name, draws in (("k_diffusion", "euler", 0), ("diffusers", "euler_a", 4)):
        noise = NoiseStreams(0, (0, 1), SHAPE)
        levels = schedules_.build("karras", PROCESS, 5)
        x = start(levels, torch.float32, 2)
        peers.load(implementation).run(registry.load(name), levels, denoiser, x, noise)
        assert noise.number == draws


def test_float32_is_what_a_sweep_gets_unless_asked():
    levels = schedules_.build("karras", PROCESS, 10)
    before = torch.get_default_dtype()
    rounded = run("diffusers", registry.load("euler"), levels)
    with float64():
        exact = run("diffusers", registry.load("euler"), levels)
    assert 1e-9 < far(rounded, exact) < 5e-6
    assert torch.get_default_dtype() == before and far(run("diffusers", registry.load("euler"), levels), rounded) == 0


# ------------------------------------------------------------------------------------------- on the peers' own grids

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
        {"variant": "bh1", "lower_order_final": True},
        "linspace",
        {**DPM_GRID, "end": "sigma_min"},
    ),
    "unipc-3-bh1": (
        "UniPCMultistepScheduler",
        # bh1 with a final zero is 0·inf in diffusers
        {"solver_order": 3, "solver_type": "bh1", "disable_corrector": [0, 1], "final_sigmas_type": "sigma_min"},
        "unipc",
        {"order": 3, "variant": "bh1", "disable_corrector": 2, "lower_order_final": True},
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


def grid_start(dtype):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


# truncated times depend on diffusers' float32: only the next test can compare them
@pytest.mark.parametrize(("name", "steps"), cases("dpmpp-exponential"))
def test_method_is_that_of_diffusers_on_its_own_grid(name, steps):
    scheduler, settings, *ours = PAIRS[name]
    with float64():
        theirs, their_times = by_diffusers(scheduler, settings, steps, grid_start(torch.float64))
    result, times = by_plan(*ours, steps, grid_start(torch.float64))
    assert times == pytest.approx(their_times, abs=1e-9)
    assert far(result, theirs) <= 1e-12


# diffusers solves order 4 in float32, which costs it two digits
@pytest.mark.parametrize(("name", "steps"), cases("unipc-4-sigma_min"))
def test_result_is_that_of_stock_diffusers_on_its_own_grid(name, steps):
    scheduler, settings, *ours = PAIRS[name]
    theirs, their_times = by_diffusers(scheduler, settings, steps, grid_start(torch.float32))
    result, times = by_plan(*ours, steps, grid_start(torch.float32))
    assert times == pytest.approx(their_times, abs=2e-2 if "karras" in name else 1e-3)
    assert far(result, theirs) <= 5e-6


@pytest.mark.parametrize("steps", STEPS)
def test_ddim_eta_adds_the_noise_of_diffusers(steps):
    draws = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(steps)]
    x = grid_start(torch.float64)
    with float64():
        scheduler = schedulers.DDIMScheduler(**TRAINING, **SD, clip_sample=False)
        scheduler.set_timesteps(steps)
        for t, noise in zip(scheduler.timesteps, draws, strict=True):
            x = scheduler.step(eps(x, float(t)), t, x, eta=0.7, variance_noise=noise.double()).prev_sample
    levels = schedules_.build("leading", PROCESS, steps)
    plan = registry.build_plan({"solver": "ddim", "eta": 0.7}, levels)
    assert plan.draws == steps
    assert far(integrate(plan, denoiser, grid_start(torch.float64), noise=_Given(draws)), x) <= 1e-12


class _Given:
    def __init__(self, draws):
        self._draws = iter(draws)

    def draw(self, above=None, below=None):
        return next(self._draws)
