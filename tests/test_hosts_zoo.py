"""PlanScheduler in whole pipelines: equal to the scheduler it replaces on its levels, and any of our samplers runs.

A few pipelines run in every test run; all of them with `-m zoo`.
"""

from __future__ import annotations

import diffusers
import pytest
import torch
import zoo

from samplers.hosts.diffusers import PlanScheduler

UNIPC = {"name": "unipc", "lower_order_final": True}  # as diffusers has it, whatever the last level is
DIFFUSION = {
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpmpp",
    "UniPCMultistepScheduler": UNIPC,
    "HeunDiscreteScheduler": "heun",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DDIMScheduler": "ddim",
    "LMSDiscreteScheduler": "lms",
    "KDPM2DiscreteScheduler": "dpm2",
    "KDPM2AncestralDiscreteScheduler": "dpm2_a",
    "DDPMScheduler": "ddpm",
    "PNDMScheduler": "plms",
    "LCMScheduler": "lcm",
}
FLOW = {
    "FlowMatchEulerDiscreteScheduler": "flow_euler",
    "FlowMatchHeunDiscreteScheduler": "flow_heun",
}
OURS = ("dpmpp", "unipc", "heun", "euler_a", "dpmpp_2s", "restart", "sa_solver")
QUICK = ("sd", "sd_img2img", "sd_inpaint", "sd_controlnet", "sdxl", "sd3", "flux", "flux_img2img")
MID_RUN = ("img2img", "inpaint")
# What is not compared, by the stock scheduler's class: in which pipelines, and why.
NOT_COMPARED = {
    # Those pipelines pass sigmas=, and refuse a class that does not take them.
    "FlowMatchHeunDiscreteScheduler": lambda name: name.startswith("flux"),
    # It averages v where the model predicts v, and begins again in the middle with a timestep of its own.
    "PNDMScheduler": lambda name: name == "sd_v" or name.endswith(MID_RUN),
    # In the middle of a run it takes the weights of a history that it does not have.
    "LMSDiscreteScheduler": lambda name: name.endswith(MID_RUN),
    # Between its two calls it blends the source in at the level of the second's end.
    "KDPM2DiscreteScheduler": lambda name: name.endswith("inpaint"),
    "KDPM2AncestralDiscreteScheduler": lambda name: name.endswith("inpaint"),
}
NAMES = [
    name
    if name in QUICK and not name.endswith(("inpaint", "controlnet"))
    else pytest.param(name, marks=pytest.mark.zoo)
    for name in zoo.CASES
]


def made(name):
    diffusers.utils.logging.set_verbosity_error()
    case = zoo.case(name)
    return case, case.pipe.scheduler


def is_flow(name):
    return name.startswith(("sd3", "flux"))


def pairs(name):
    found = FLOW if is_flow(name) else DIFFUSION
    few = (
        "EulerDiscreteScheduler",
        "UniPCMultistepScheduler",
        "HeunDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
    )
    for kind, sampler in found.items():
        if not NOT_COMPARED.get(kind, lambda name: False)(name):
            quick = name in QUICK and (kind in few or name == "sd")
            yield pytest.param(name, kind, sampler, marks=[] if quick else pytest.mark.zoo, id=f"{name}-{kind}")


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(("name", "kind", "sampler"), [pair for name in zoo.CASES for pair in pairs(name)])
def test_latents_equal_those_of_the_stock_scheduler_on_its_levels(name, kind, sampler):
    case, own = made(name)
    # DDIM goes on with the noise of the x0 that was not clipped, which no plan does: without clipping they are one.
    changes = {} if is_flow(name) else {"clip_sample": False}
    if kind == "PNDMScheduler":
        changes["skip_prk_steps"] = True
    stock = getattr(diffusers, kind).from_config(own.config, **changes)
    case.pipe.scheduler = stock
    expected = zoo.sample(case, 2)
    case.pipe.scheduler = PlanScheduler.replacing(stock, sampler=sampler)
    assert relative(zoo.sample(case, 2), expected) <= 3e-5
    assert relative(zoo.sample(case, 2, first=5), expected) > 1e-2  # it is not the input that was compared


@pytest.mark.parametrize("name", NAMES)
def test_any_sampler_runs_and_an_image_depends_neither_on_its_batch_nor_on_earlier_calls(name):
    case, own = made(name)
    results = {}
    for sampler in OURS:
        schedule = "karras" if sampler in ("dpmpp", "sa_solver") else "stock"
        case.pipe.scheduler = PlanScheduler.replacing(own, sampler=sampler, schedule=schedule)
        three = zoo.sample(case, 3)
        alone = zoo.sample(case, first=1)
        assert three.isfinite().all() and relative(alone, three[1:2]) <= 3e-5
        assert torch.equal(zoo.sample(case, first=1), alone)
        results[sampler] = three
    results.pop("restart", None)  # Heun's where four steps leave no room for its intervals
    every = [*results.values()]
    assert all(relative(a, b) > 1e-5 for k, a in enumerate(every) for b in every[:k])  # samplers, not one sampler
