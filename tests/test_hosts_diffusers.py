"""PlanScheduler by itself, with a formula for a network: scalings, predictions, levels, edits, precision, refusals."""

from __future__ import annotations

import copy
import inspect
import itertools
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP
from samplers.core.noise import BrownianStreams, NoiseStreams
from samplers.hosts.diffusers import PlanScheduler
from samplers.hosts.replaced import KINDS, Replaced
from samplers.peers import widened

SHAPE = (2, 4, 8, 8)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNIPC = {"name": "unipc", "lower_order_final": True}


def network(x, time):
    """Some function of both that is neither linear nor small."""
    return torch.tanh(x.roll(1, -1) * 0.7 + x * 0.4 + torch.sin(torch.as_tensor(time, dtype=x.dtype) / 300)) * 1.3


def unit(seed=0, shape=SHAPE, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def walked(scheduler, steps=6, x=None, dtype=torch.float32, model=network, each=None, **given):
    """What a pipeline does with a scheduler. `each(i, x)` may answer with another state."""
    scheduler.set_timesteps(*(() if {"timesteps", "sigmas"} & {*given} else (steps,)), **given)
    x = unit(dtype=dtype) * float(getattr(scheduler, "init_noise_sigma", 1)) if x is None else x
    options = {"generator": torch.Generator().manual_seed(1)} if takes_generator(scheduler) else {}
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(seen, t), t, x, return_dict=False, **options)[0]
        x = x if each is None else each(i, x)
    return x


def takes_generator(scheduler):
    return "generator" in inspect.signature(scheduler.step).parameters


def relative(a, b):
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def stock(kind, **settings):
    return getattr(diffusers, kind)(**settings)


V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
EDM_V = {**V, "sigma_schedule": "exponential", "sigma_data": 1.0}
VIDEO = {**SD, **V, "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": True}
EQUAL = {
    "edm euler": ("EDMEulerScheduler", {}, "euler"),
    "edm euler v": ("EDMEulerScheduler", EDM_V, "euler"),
    "edm dpm": ("EDMDPMSolverMultistepScheduler", {}, "dpmpp"),
    "edm dpm thresholded": ("EDMDPMSolverMultistepScheduler", {"thresholding": True}, "dpmpp"),
    "video": ("EulerDiscreteScheduler", VIDEO, "euler"),
    "x0": ("EulerDiscreteScheduler", {**SD, "prediction_type": "sample"}, "euler"),
    "flow unipc": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0}, UNIPC),
    "flow dpm": ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 5.0}, "dpmpp"),
    "flow karras": ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_karras_sigmas": True}, "euler"),
    "flow inverted": ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "euler"),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, "flow_heun"),
    "lms": ("LMSDiscreteScheduler", SD, "lms"),
    "zero terminal SNR": ("EulerDiscreteScheduler", {**SD, **ZERO}, "euler"),
    "zero terminal SNR, ddim": ("DDIMScheduler", {**SD, **ZERO, "clip_sample": False}, "ddim"),
    "cogvideox": ("CogVideoXDDIMScheduler", {**ZERO, "snr_shift_scale": 3.0}, "ddim"),
    "ddim to alpha one": ("DDIMScheduler", {**SD, "clip_sample": False, "steps_offset": 1}, "ddim"),
    "thresholded": ("DPMSolverMultistepScheduler", {**SD, "thresholding": True, "sample_max_value": 1.2}, "dpmpp"),
    "clipped heun": ("HeunDiscreteScheduler", {**SD, "clip_sample": True}, "heun"),
    "clipped ddpm": ("DDPMScheduler", {**SD, "clip_sample": True}, "ddpm"),
    "thresholded ddpm": ("DDPMScheduler", {**SD, "thresholding": True, "sample_max_value": 1.5}, "ddpm"),
    "lcm": ("LCMScheduler", {}, "lcm"),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_state_at_the_end_is_the_stock_schedulers(name):
    """In float64, where only the method counts: with σ up to 700 a stock scheduler's float32 state is off by 1e-4."""
    kind, settings, sampler = EQUAL[name]
    ours = PlanScheduler.replacing(stock(kind, **settings), sampler=sampler)
    with widened.float64():
        theirs = stock(kind, **settings)
        steps = 5 if "zero" in name or "cog" in name else 6  # DDIM's strides must divide the timesteps
        expected = walked(theirs, steps, dtype=torch.float64)
    assert relative(walked(ours, steps, dtype=torch.float64), expected) <= 3e-5
    if ours.plan.draws:  # numbers of another type are other numbers
        expected = walked(stock(kind, **settings), steps)
    assert relative(walked(ours, steps), expected) <= 3e-5


def test_ddim_clips_as_with_use_clipped_model_output():
    theirs = stock("DDIMScheduler", **SD, clip_sample=True, steps_offset=1)
    ours = PlanScheduler.replacing(theirs, sampler="ddim")
    theirs.set_timesteps(6)
    x = unit()
    for t in theirs.timesteps:
        x = theirs.step(network(x, t), t, x, use_clipped_model_output=True).prev_sample
    assert relative(walked(ours), x) <= 3e-5


GIVEN = {
    "euler timesteps": ("EulerDiscreteScheduler", SD, "euler", {"timesteps": [900, 600, 300, 10]}),
    "euler sigmas": ("EulerDiscreteScheduler", SD, "euler", {"sigmas": [10.0, 3.0, 1.0, 0.1, 0.0]}),
    "dpm timesteps": ("DPMSolverMultistepScheduler", SD, "dpmpp", {"timesteps": [900, 600, 300, 10]}),
    "ddpm timesteps": ("DDPMScheduler", {**SD, "clip_sample": False}, "ddpm", {"timesteps": [900, 600, 300, 10]}),
    "flow sigmas, mu": (
        "FlowMatchEulerDiscreteScheduler",
        {"use_dynamic_shifting": True, "shift_terminal": 0.1},
        "euler",
        {"sigmas": np.linspace(1, 0.25, 4), "mu": 0.8},
    ),
    "flow linear mu": (
        "FlowMatchEulerDiscreteScheduler",
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        "euler",
        {"sigmas": [1.0, 0.7, 0.2], "mu": 1.1},
    ),
    # CogView4: the model is told other times than T·σ
    "flow timesteps and sigmas": (
        "FlowMatchEulerDiscreteScheduler",
        {"shift": 3.0},
        "euler",
        {"sigmas": [1.0, 0.75, 0.5, 0.25], "timesteps": [1000.0, 750.0, 500.0, 250.0]},
    ),
    "flow unipc sigmas": (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        UNIPC,
        {"sigmas": np.linspace(0.9, 0.25, 4)},
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_given_levels_are_walked(name):
    kind, settings, sampler, given = GIVEN[name]
    expected = walked(stock(kind, **settings), **copy.deepcopy(given))
    ours = PlanScheduler.replacing(stock(kind, **settings), sampler=sampler)
    assert relative(walked(ours, **given), expected) <= 3e-5
    assert ours.order == 1  # who gives levels counts calls


def test_levels_are_taken_where_the_stock_class_has_no_argument_for_them():
    ddim = PlanScheduler.replacing(stock("DDIMScheduler", **SD, clip_sample=False), sampler="euler")
    euler = PlanScheduler.replacing(stock("EulerDiscreteScheduler", **SD), sampler="euler")
    ends = []
    for scheduler, scale in ((ddim, 1 / np.hypot(10, 1)), (euler, 1.0)):
        ends.append(walked(scheduler, x=unit() * 10 * scale, sigmas=[10.0, 3.0, 1.0, 0.1, 0.0]))
    assert relative(*ends) <= 3e-5
    ddim.set_timesteps(timesteps=[900, 500, 20])
    assert ddim.timesteps.tolist() == [900, 500, 20] and ddim.plan.nfe == 3


def test_between_given_times_the_model_is_told_times_between():
    """A method that calls inside its steps, where the pipeline's times are not T·σ."""
    base = stock("FlowMatchEulerDiscreteScheduler", shift=3.0)
    scheduler = PlanScheduler.replacing(base, sampler="dpmpp_sde")
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], timesteps=[1000.0, 750.0, 500.0, 250.0])
    times = scheduler.timesteps.tolist()
    assert len(times) > 4 and times[0] == 1000 and {750.0, 500.0, 250.0} < {*times}
    assert all(a > b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
@pytest.mark.parametrize("schedule", ["karras", {"name": "exponential", "end": "sigma_min"}, "flow_shift"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "heun", "sa_solver"])
def test_a_schedule_of_ours_is_what_integrate_does(kind, schedule, sampler):
    settings = {} if kind.startswith("Flow") else SD | ({"clip_sample": False} if kind.startswith("DDIM") else {})
    scheduler = PlanScheduler.replacing(stock(kind, **settings), sampler=sampler, schedule=schedule)
    model = Replaced(kind, settings)
    knobs = {"name": schedule} if isinstance(schedule, str) else schedule
    levels = schedules.build(process=model.process, steps=6, **knobs)
    plan = registry.build_plan(registry.load(sampler), levels)

    def denoise(x, level):
        a, b = model.x0(level)
        shown = x * model.shown(level)
        return a * x + b * network(shown * model.seen(level), torch.tensor(level.time, dtype=torch.float32))

    scheduler.noise = NoiseStreams(7, [3, 9], SHAPE[1:])
    first = model.start(levels[0])
    expected = integrate(plan, denoise, unit() * (first / model.shown(levels[0])), NoiseStreams(7, [3, 9], SHAPE[1:]))
    found = walked(scheduler)
    assert relative(found, expected * model.shown(levels[levels.steps])) <= 3e-5
    assert len(scheduler.timesteps) == plan.nfe == len(scheduler.sigmas) - 1


def test_what_a_network_is_told_is_not_what_levels_are_counted_by():
    """EDM's networks are told ln(σ)/4; methods that reckon in time have the process's."""
    laid = Replaced("EDMEulerScheduler", {}).lay(4)
    assert np.allclose(laid.levels.time, laid.levels.process.time(laid.levels.ratio), atol=1e-4)
    assert laid.told(laid.levels[0]) == pytest.approx(np.log(80) / 4, rel=1e-6)


def test_the_process_is_the_one_of_the_training_schedule_in_float64():
    found = Replaced("DDIMScheduler", SD).process
    assert isinstance(found, DiscreteVP) and np.array_equal(found.table, DiscreteVP.scaled_linear().table)
    shifted = Replaced("CogVideoXDDIMScheduler", {})  # its own table, which no configuration of ours gives
    own = shifted.scheduler.alphas_cumprod.double().numpy()
    assert np.allclose(shifted.process.table, np.sqrt((1 - own) / own))


# --------------------------------------------------------------------------------------- the state, and who changes it


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_what_a_callback_does_to_the_state_counts(kind, in_place, inference):
    def blank(i, x):
        if i % 2:
            x = x if in_place else x.clone()
            x[..., :3] = 0.25
        return x

    base = stock(kind, **SD)
    sampler = "euler" if kind.startswith("Euler") else "dpmpp"
    with torch.inference_mode(inference):
        expected = walked(base, each=blank)
        found = walked(PlanScheduler.replacing(base, sampler=sampler), each=blank)
        untouched = walked(PlanScheduler.replacing(base, sampler=sampler))
    assert relative(found, expected) <= 3e-5
    assert relative(untouched, expected) > 1e-2


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_behind_half_precision_the_state_is_float32(kind, inference):
    """Less than half the error of the stock scheduler, to the run that is float32 throughout."""
    sampler = {"E": "euler", "D": "dpmpp", "U": UNIPC}[kind[0]]
    half = lambda x, t: network(x.float(), t).bfloat16()  # noqa: E731
    with torch.inference_mode(inference):
        base = stock(kind, **SD, use_karras_sigmas=True)
        ours = PlanScheduler.replacing(base, sampler=sampler)
        exact = walked(ours, 30, model=lambda x, t: network(x.bfloat16().float(), t))
        x = unit().bfloat16()
        theirs = walked(base, 30, x=x * float(base.init_noise_sigma), model=half)
        found = walked(ours, 30, x=x * ours.init_noise_sigma, model=half)
    assert found.dtype == torch.bfloat16
    rms = lambda a: float((a.double() - exact.double()).square().mean().sqrt())  # noqa: E731
    assert rms(found) < 0.75 * rms(theirs)


def test_the_x0_of_a_step_is_handed_out():
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD, clip_sample=False, steps_offset=1), "ddim")
    scheduler.set_timesteps(1)
    t, x = scheduler.timesteps[0], unit()
    out = scheduler.step(network(x, t), t, x)
    alpha, sigma = (float(v) for v in (scheduler._reached[0].alpha, scheduler._reached[0].sigma))
    assert relative(out.pred_original_sample, (x - sigma * network(x, t)) / alpha) <= 1e-5
    assert torch.equal(out[0], out.prev_sample)


def test_a_learned_variance_is_cut_off():
    base = stock("DDPMScheduler", **SD, clip_sample=False, variance_type="learned_range")
    ours = PlanScheduler.replacing(base, sampler="ddim")
    double = walked(ours, model=lambda x, t: torch.cat([network(x, t), x], 1))
    assert torch.equal(double, walked(ours))
    with pytest.raises(ValueError, match="answered"):
        walked(ours, model=lambda x, t: network(x, t)[..., :4])


# ------------------------------------------------------------------------------------------------ where a run begins


@pytest.mark.parametrize("sampler", ["unipc", "heun", "dpmpp_2s", "euler_a", {"name": "euler", "s_churn": 4.0}])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("how", ["begin_index", "by element", "by value"])
def test_img2img_begins_with_a_plan_for_the_levels_that_are_left(sampler, kind, how):
    """What a pipeline does at strength 0.5 of 8 steps: add_noise at the slice's first timestep, then walk the slice."""
    settings = {"clip_sample": False} if kind.startswith("DDIM") else {}
    scheduler = PlanScheduler.replacing(stock(kind, **SD, **settings), sampler=sampler, schedule="karras")
    scheduler.noise = NoiseStreams(5, [0, 1], SHAPE[1:])
    scheduler.set_timesteps(8)
    begin = 4 * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if how == "begin_index":
        scheduler.set_begin_index(begin)
    clean = unit(3)
    x = scheduler.add_noise(clean, unit(4), timesteps[:1].repeat(2))
    for t in timesteps:
        t = float(t) if how == "by value" else t
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    assert scheduler.step_index == len(scheduler.timesteps)

    model = Replaced(kind, {**SD, **settings})
    levels = schedules.build("karras", model.process, 8)
    given = registry.load(sampler) if isinstance(sampler, str) else {**registry.load("euler"), "s_churn": 2.0}
    plan = registry.build_plan(given, levels.from_(4))
    first = plan.stages[0].level
    # The start stands at the level to which a churn of the first call would raise it.
    plan = replace(plan, start=first, stages=(replace(plan.stages[0], churn=(1.0, 0.0)), *plan.stages[1:]))

    def denoise(x, level):
        a, b = model.x0(level)
        shown = x * model.shown(level)
        return a * x + b * network(shown * model.seen(level), torch.tensor(level.time, dtype=torch.float32))

    start = first.alpha * clean + first.sigma * unit(4)
    expected = integrate(plan, denoise, start, NoiseStreams(5, [0, 1], SHAPE[1:]))
    assert relative(x, expected * model.shown(levels[8])) <= 3e-5


@pytest.mark.parametrize(("sampler", "at"), [("dpmpp_2s", 3), ("heun", 3), ("dpmpp_3s", 4), ("dpmpp_3s", 5)])
def test_a_start_inside_a_step_goes_to_its_end_by_euler(sampler, at):
    """Flow pipelines count calls where they say steps: half of the strengths lead into the middle of Heun's."""
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD, clip_sample=False), sampler=sampler)
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(at)
    clean, told = unit(3), []
    x = scheduler.add_noise(clean, unit(4), scheduler.timesteps[at : at + 1])
    for t in scheduler.timesteps[at:]:
        told.append(float(t))
        x = scheduler.step(network(x, t), t, x).prev_sample
    model, full = Replaced("DDIMScheduler", SD), scheduler.plan
    levels = model.lay(6).levels
    size = scheduler.order
    after = -(-at // size)  # the step that begins next
    y = full.stages[at].level.alpha * clean + full.stages[at].level.sigma * unit(4)

    def denoise(x, level):
        a, b = model.x0(level)
        return a * x + b * network(x, torch.tensor(level.time, dtype=torch.float32))

    ways = [stage.level for stage in full.stages[at : after * size]] + [levels[after]]
    for now, then in itertools.pairwise(ways):
        if then.ratio < now.ratio:
            x0 = denoise(y, now)
            y = then.alpha * x0 + then.sigma * (y - now.alpha * x0) / now.sigma
    y = integrate(registry.build_plan(registry.load(sampler), levels.from_(after)), denoise, y)
    assert relative(x, y) <= 3e-5 and told == scheduler.timesteps[at:].tolist()


def test_a_start_from_which_a_sampler_makes_other_calls_is_refused():
    """PLMS has one call more in its first step, wherever that is."""
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD), sampler="plms")
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(3)
    with pytest.raises(ValueError, match="call 3 of 7, but plms cannot go on") as caught:
        scheduler.step(unit(), scheduler.timesteps[3], unit())
    assert len(str(caught.value)) <= 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sampler", "order"), [("euler", 1), ("heun", 2), ("seeds_3", 3), ("dpm_fast", 1), ("unipc", 1)]
)
def test_order_is_the_calls_of_a_step(sampler, order):
    end = {"name": "karras", "end": "sigma_min"}
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD), sampler=sampler, schedule=end)
    scheduler.set_timesteps(6)
    assert scheduler.order == order and len(scheduler.timesteps) == scheduler.plan.nfe


def test_noise_is_added_at_any_level():
    ve = PlanScheduler.replacing(stock("EulerDiscreteScheduler", **SD), sampler="euler")
    clean, noise = unit(1), unit(2)
    theirs = stock("DDIMScheduler", **SD)
    vp = PlanScheduler.replacing(theirs, sampler="euler")
    times = torch.tensor([981, 20])
    assert relative(vp.add_noise(clean, noise, times), theirs.add_noise(clean, noise, times)) <= 1e-6  # no run: trained
    sigma = ((1 - theirs.alphas_cumprod) / theirs.alphas_cumprod).sqrt()[times].view(2, 1, 1, 1)
    assert relative(ve.add_noise(clean, noise, times), clean + sigma * noise) <= 1e-6
    flow = PlanScheduler.replacing(stock("FlowMatchEulerDiscreteScheduler", shift=3.0), sampler="euler")
    flow.set_timesteps(4)
    flow.set_begin_index(2)
    t = flow.sigmas[2]
    assert relative(flow.scale_noise(clean, flow.timesteps[2:3].repeat(2), noise), t * noise + (1 - t) * clean) <= 1e-6


def test_noise_at_a_time_that_is_not_the_next_calls_is_added_there():
    """In the middle of a run, and when it is over: what is asked for counts."""
    theirs = stock("DDIMScheduler", **SD, steps_offset=1)
    ours = PlanScheduler.replacing(theirs, sampler="euler")
    clean, noise, other = unit(1), unit(2), torch.tensor([501])
    ours.set_timesteps(4)
    x = unit()
    for k, t in enumerate(ours.timesteps):
        assert relative(ours.add_noise(clean, noise, other), theirs.add_noise(clean, noise, other)) <= 1e-6
        here = ours.timesteps[k : k + 1]
        assert relative(ours.add_noise(clean, noise, here), theirs.add_noise(clean, noise, here)) <= 1e-6
        x = ours.step(x * 0.1, t, x).prev_sample
    assert relative(ours.add_noise(clean, noise, other), theirs.add_noise(clean, noise, other)) <= 1e-6


def test_noise_of_a_model_that_is_told_something_else_than_a_timestep():
    edm = PlanScheduler.replacing(stock("EDMEulerScheduler"), sampler="euler")
    clean, noise = unit(1), unit(2)
    time = torch.tensor([np.log(3.0) / 4])
    assert relative(edm.add_noise(clean, noise, time), clean + 3 * noise) <= 1e-5
    inverted = PlanScheduler.replacing(stock("FlowMatchEulerDiscreteScheduler", invert_sigmas=True), sampler="euler")
    assert relative(inverted.add_noise(clean, noise, torch.tensor([300.0])), 0.3 * clean + 0.7 * noise) <= 1e-5


# ------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("streams", [NoiseStreams, BrownianStreams])
def test_the_noise_of_an_image_does_not_depend_on_its_batch(streams):
    scheduler = PlanScheduler.replacing(stock("EulerDiscreteScheduler", **SD), sampler="dpmpp_2m_sde")
    shape = SHAPE[1:]
    ends = []
    for indices in ([4, 5, 6], [5]):
        scheduler.noise = streams(0, indices, shape)
        start = torch.cat([unit(k, (1, *shape)) for k in indices])
        scheduler.set_timesteps(5)
        ends.append(walked(scheduler, 5, x=start * scheduler.init_noise_sigma))
    assert relative(ends[0][1:2], ends[1]) <= 1e-5


def test_without_a_generator_the_noise_follows_from_the_start():
    scheduler = PlanScheduler.replacing(stock("FlowMatchEulerDiscreteScheduler"), sampler="euler_a")

    def run(x):
        scheduler.set_timesteps(5)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x, return_dict=False)[0]
        return x

    start = unit(0, (3, 4, 8, 8))
    three, one = run(start), run(start[1:2])
    assert relative(three[1:2], one) <= 1e-5
    assert relative(run(start[[1, 1]])[0], one[0]) <= 1e-5
    assert not torch.equal(three[0] - three[1], start[0] - start[1])


def test_generators_are_used_as_diffusers_uses_them():
    base = stock("EulerAncestralDiscreteScheduler", **SD)
    ours = PlanScheduler.replacing(base, sampler="euler_a")
    assert relative(walked(ours), walked(base)) <= 3e-5
    ours.set_timesteps(2)
    seeds = [torch.Generator().manual_seed(k) for k in range(2)]
    x = unit() * ours.init_noise_sigma
    both = ours.step(x * 0, ours.timesteps[0], x, generator=seeds).prev_sample
    ours.set_timesteps(2)
    one = ours.step(x[1:] * 0, ours.timesteps[0], x[1:], generator=[torch.Generator().manual_seed(1)]).prev_sample
    assert torch.equal(both[1:], one)


# --------------------------------------------------------------------------------------- nobody waits for the device


class NoWaiting(TorchDispatchMode):
    """Fails where a tensor's value is asked for: on a GPU that waits for everything before it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(function), "a value was asked for"
        return function(*args, **(kwargs or {}))


CHURNING = {"name": "heun", "s_churn": 3.0}


@pytest.mark.parametrize("sampler", ["euler", "unipc", "heun", "euler_a", "restart", CHURNING])
@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])
@pytest.mark.parametrize("begin", [None, 0])
def test_no_step_waits_for_the_device(sampler, kind, begin):
    scheduler = PlanScheduler.replacing(stock(kind), sampler=sampler)
    scheduler.set_timesteps(5)
    x = unit() * scheduler.init_noise_sigma
    if begin is not None:
        scheduler.set_begin_index(begin)
    generator = torch.Generator().manual_seed(0)
    with NoWaiting():
        for t in scheduler.timesteps:
            x = scheduler.step(scheduler.scale_model_input(x, t) * 0.1, t, x, generator, return_dict=False)[0]
    assert x.isfinite().all()
    with pytest.raises(AssertionError, match="asked for"), NoWaiting():
        float(x.sum())


# ------------------------------------------------------------------------------------------------- saved and refused


def test_a_scheduler_goes_through_a_file(tmp_path):
    base = stock("DPMSolverMultistepScheduler", **SD, use_karras_sigmas=True, thresholding=True)
    sampler = {"name": "unipc", "order": 3}
    one = PlanScheduler.replacing(base, sampler=sampler, schedule={"name": "karras", "rho": 5.0})
    one.save_pretrained(tmp_path)
    other = PlanScheduler.from_pretrained(tmp_path)
    assert dict(other.config) == {key: value for key, value in one.config.items() if not key.startswith("_")} | {
        key: value for key, value in other.config.items() if key.startswith("_")
    }
    assert other.config.replaced == "DPMSolverMultistepScheduler" and other.config.sampler == sampler
    assert other.config.thresholding is True and other.config.num_train_timesteps == 1000
    assert torch.equal(walked(other), walked(one))
    changed = PlanScheduler.from_config(one.config, sampler="euler", thresholding=False)
    assert changed.config.sampler == "euler" and changed.config.schedule["rho"] == 5.0
    assert not changed.config.thresholding and not torch.equal(walked(changed), walked(one))


def test_another_class_is_made_from_its_configuration():
    base = stock("EulerDiscreteScheduler", **SD, use_karras_sigmas=True)
    back = diffusers.EulerDiscreteScheduler.from_config(PlanScheduler.replacing(base, sampler="euler").config)
    assert torch.equal(walked(back), walked(base))
    # A setting that was left at its default is left to the new class's default, as between the stock ones.
    plan = PlanScheduler.from_config(PlanScheduler.replacing(base).config)
    ours, theirs = (diffusers.DDIMScheduler.from_config(each.config) for each in (plan, base))
    assert ours.config.timestep_spacing == theirs.config.timestep_spacing == "leading"


def test_a_configuration_that_a_pipeline_writes_into_it_counts():
    """StableDiffusionPipeline does so with an old steps_offset."""
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD, clip_sample=False), sampler="ddim")
    scheduler._internal_dict = diffusers.configuration_utils.FrozenDict({**scheduler.config, "steps_offset": 1})
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [751, 501, 251, 1]


def test_what_was_set_on_the_replaced_scheduler_counts():
    base = stock("FlowMatchEulerDiscreteScheduler")
    base.set_shift(7.0)
    one, other = (PlanScheduler.replacing(each, sampler="euler") for each in (base, stock(type(base).__name__)))
    other.set_shift(7.0)
    assert torch.equal(walked(one), walked(other)) and relative(walked(one), walked(base)) <= 3e-5
    again = PlanScheduler.replacing(one, sampler="heun")
    assert again.shift == 7.0 and again.config.replaced == "FlowMatchEulerDiscreteScheduler"


class Renamed(diffusers.EulerDiscreteScheduler):
    pass


REFUSED = {
    "unknown class": (lambda: PlanScheduler.replacing(stock("SCMScheduler")), "SCMScheduler is not a scheduler"),
    "wuerstchen": (lambda: PlanScheduler.replacing(stock("DDPMWuerstchenScheduler")), "not a scheduler whose levels"),
    "inverse": (lambda: PlanScheduler.replacing(stock("DDIMInverseScheduler")), "not a scheduler whose levels"),
    "a class of somebody else": (lambda: PlanScheduler.replacing(Renamed()), "Renamed is not"),
    "unknown prediction": (
        lambda: PlanScheduler.replacing(stock("DDPMScheduler", prediction_type="trigflow")),
        "prediction_type='trigflow'",
    ),
    "a flow that predicts noise": (
        lambda: PlanScheduler.replacing(stock("UniPCMultistepScheduler", use_flow_sigmas=True)),
        "flow_prediction is known",
    ),
    "one timestep": (
        lambda: PlanScheduler.replacing(stock("FlowMatchEulerDiscreteScheduler", num_train_timesteps=1)),
        "num_train_timesteps=1",
    ),
    "scale-wise": (
        lambda: PlanScheduler.replacing(stock("FlowMatchLCMScheduler", scale_factors=[1.0, 2.0])),
        "scale_factors",
    ),
    "sampler": (lambda: PlanScheduler.replacing(stock("DDIMScheduler"), sampler="unipcc"), "did you mean 'unipc'"),
    "knob": (
        lambda: PlanScheduler.replacing(stock("DDIMScheduler"), sampler={"name": "unipc", "ordr": 3}),
        "did you mean 'order'",
    ),
    "adaptive": (lambda: PlanScheduler.replacing(stock("DDIMScheduler"), sampler="dpm_adaptive"), "while it runs"),
    "schedule": (lambda: PlanScheduler.replacing(stock("DDIMScheduler"), schedule="karas"), "did you mean 'karras'"),
    "schedule's knob": (
        lambda: PlanScheduler.replacing(stock("DDIMScheduler"), schedule={"name": "karras", "roh": 5}),
        "no knob 'roh'",
    ),
    "no name": (lambda: PlanScheduler.replacing(stock("DDIMScheduler"), sampler={"order": 3}), "give a name"),
    "no class": (lambda: PlanScheduler.from_config(stock("DDIMScheduler").config), "use PlanScheduler.replacing"),
    "no setting": (
        lambda: PlanScheduler.from_config({"_class_name": "DDIMScheduler", "beta_end": 0.02}, shcedule="karras"),
        "no setting 'shcedule'",
    ),
    "epsilon without signal": (
        lambda: walked(PlanScheduler.replacing(stock("DDIMScheduler", **{**ZERO, "prediction_type": "epsilon"}))),
        "without signal",
    ),
    "levels twice": (
        lambda: walked(PlanScheduler.replacing(stock("EulerDiscreteScheduler"), schedule="karras"), timesteps=[9, 1]),
        "schedule='stock'",
    ),
    "uneven flow levels twice": (
        lambda: walked(
            PlanScheduler.replacing(stock("FlowMatchEulerDiscreteScheduler"), schedule="karras"), sigmas=[1, 0.9, 0.1]
        ),
        "schedule='stock'",
    ),
    "no mu": (lambda: walked(PlanScheduler.replacing(stock("DDIMScheduler")), mu=0.5), "takes no mu"),
    "no steps": (lambda: PlanScheduler.replacing(stock("DDIMScheduler")).set_timesteps(0), "at least 1"),
    "too many steps": (
        lambda: PlanScheduler.replacing(stock("DDIMScheduler", num_train_timesteps=10)).set_timesteps(25),
        "25",
    ),
    "a timestep of another run": (
        lambda: (s := PlanScheduler.replacing(stock("DDIMScheduler")), s.set_timesteps(4), s.step(unit(), 7, unit())),
        "timestep 7 is not one",
    ),
    "no timesteps": (lambda: PlanScheduler.replacing(stock("DDIMScheduler")).step(unit(), 7, unit()), "set_timesteps"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_in_one_line(name):
    act, said = REFUSED[name]
    with pytest.raises(ValueError, match=r"\w") as caught:
        act()
    assert said in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_over_is_not_gone_on_with():
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler"), sampler="ddim")
    x = walked(scheduler, 3)
    with pytest.raises(ValueError, match="3 calls of this run are made"):
        scheduler.step(x, scheduler.timesteps[-1], x)
    assert torch.equal(walked(scheduler, 3), x)  # set_timesteps begins another


@pytest.mark.parametrize("name", KINDS)
def test_every_scheduler_on_the_list_is_there_and_is_replaced(name):
    kind = getattr(diffusers, name)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for settings in ({}, flow) if "use_flow_sigmas" in kind.__init__.__wrapped__.__code__.co_varnames else ({},):
        scheduler = PlanScheduler.replacing(kind(**settings), sampler="dpmpp")
        assert walked(scheduler, 5).isfinite().all() and len(scheduler.timesteps) == 5


def test_a_copy_goes_on_by_itself():
    """Several pipelines copy their scheduler, whole or its attributes, in the middle of a run."""
    scheduler = PlanScheduler.replacing(stock("EulerDiscreteScheduler", **SD), sampler="dpmpp")
    expected = walked(scheduler)
    scheduler.set_timesteps(6)
    x = unit() * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        if i == 3:
            kept, other = copy.deepcopy(scheduler.__dict__), copy.deepcopy(scheduler)
            y = x.clone()
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    for again in (other, scheduler):
        again.__dict__.update(kept if again is scheduler else {})
        z = y
        for t in again.timesteps[3:]:
            z = again.step(network(again.scale_model_input(z, t), t), t, z).prev_sample
        assert relative(z, expected) <= 1e-5


PLANNED = [name for name in registry.names() if not (registry.is_adaptive(name) or registry.has_own_levels(name))]


@pytest.mark.parametrize("sampler", PLANNED)
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_every_sampler_runs(sampler, kind):
    scheduler = PlanScheduler.replacing(stock(kind), sampler=sampler)
    assert walked(scheduler, 7).isfinite().all()
    assert len(scheduler.timesteps) == scheduler.plan.nfe <= scheduler.plan.capabilities.nfe


@pytest.mark.parametrize("schedule", [name for name in schedules.names() if name != "file"])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_every_schedule_is_walked(schedule, kind):
    scheduler = PlanScheduler.replacing(stock(kind), sampler="dpmpp", schedule=schedule)
    assert walked(scheduler, 7).isfinite().all()
    levels = schedules.build(schedule, Replaced(kind, {}).process, 7)
    shown = levels.sigma if kind.startswith("Flow") else levels.ratio
    assert np.allclose(scheduler.sigmas.numpy(), shown, rtol=1e-6)


def test_a_plan_from_a_file_runs_with_its_own_levels():
    scheduler = PlanScheduler.replacing(stock("DDIMScheduler", **SD), sampler="plan", schedule="file")
    assert walked(scheduler, 20).isfinite().all()
    with pytest.raises(ValueError, match="ask for num_inference_steps=20"):
        scheduler.set_timesteps(8)
