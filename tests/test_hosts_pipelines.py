"""PlanScheduler where a user would put it: a script, a saved pipeline, base and refiner, and beside the native road."""

from __future__ import annotations

from functools import cache

import diffusers
import numpy as np
import pytest
import tiny
import torch
import zoo
from PIL import Image

from harness.models.guidance import Guidance
from harness.models.load import load, named
from harness.parity.pipeline import PROMPTS, stock_pipeline
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.noise import NoiseStreams
from samplers.hosts.diffusers import PlanScheduler

# What a user writes; WITHOUT are the tiny pipeline's missing text encoders, whose embeddings are given.
SCRIPT = """
import torch
from diffusers import DiffusionPipeline
from samplers.hosts.diffusers import PlanScheduler
pipe = DiffusionPipeline.from_pretrained(FOLDER, **WITHOUT)
pipe.scheduler = PlanScheduler.replacing(pipe.scheduler, sampler="unipc")
text = {"prompt_embeds": torch.ones(1, 7, 16), "pooled_prompt_embeds": torch.ones(1, 16)}
image = pipe(**text, height=32, width=32, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0]
image.save(RESULT)
"""


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path), np.int64))


def test_a_script_of_eight_lines_runs_our_unipc_in_a_stock_flux_pipeline(tmp_path):
    assert len(SCRIPT.strip().splitlines()) == 8
    without = {f"{part}{k}": None for part in ("text_encoder", "tokenizer") for k in ("", "_2")}
    zoo.case("flux").pipe.save_pretrained(tmp_path / "flux")
    names = {"FOLDER": tmp_path / "flux", "WITHOUT": without}
    exec(SCRIPT, names | {"RESULT": tmp_path / "ours.png"})
    stock = SCRIPT.replace(next(line for line in SCRIPT.splitlines() if line.startswith("pipe.scheduler")), "")
    exec(stock, names | {"RESULT": tmp_path / "stock.png"})
    ours, theirs = pixels(tmp_path / "ours.png"), pixels(tmp_path / "stock.png")
    assert ours.shape == (32, 32, 3) and ours.float().std() > 1
    # Another method on the same model, levels and noise: another image, and not far from the first.
    assert 0 < (ours - theirs).abs().float().mean() < 40


def test_a_pipeline_is_saved_and_loaded_with_it(tmp_path):
    pipe = tiny.pipeline("sd1")
    pipe.scheduler = PlanScheduler.replacing(pipe.scheduler, {"name": "unipc", "order": 3}, "karras")
    pipe.save_pretrained(tmp_path)
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.scheduler, PlanScheduler) and again.scheduler.config.sampler["order"] == 3
    call = {"prompt": "a", "num_inference_steps": 4, "output_type": "latent"}
    one, other = (each(**call, generator=torch.Generator().manual_seed(0)).images for each in (pipe, again))
    assert torch.equal(one, other) and one.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        ("EulerDiscreteScheduler", "euler"),
        ("DPMSolverMultistepScheduler", "dpmpp"),
        ("UniPCMultistepScheduler", {"name": "unipc", "lower_order_final": True}),
        ("HeunDiscreteScheduler", "heun"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_base_and_refiner_share_a_run(kind, sampler, share):
    base, refiner = zoo.case("sdxl"), zoo.case("sdxl_img2img")
    own = base.pipe.scheduler

    def both(scheduler):
        base.pipe.scheduler, refiner.pipe.scheduler = scheduler(), scheduler()
        half = zoo.sample(base, 2, steps=8, denoising_end=share)
        return half, zoo.sample(refiner, 2, steps=8, image=half, denoising_start=share)

    stock = getattr(diffusers, kind).from_config(own.config)
    expected = both(lambda: type(stock).from_config(stock.config))
    found = both(lambda: PlanScheduler.replacing(stock, sampler=sampler))
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) <= 3e-5


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", ["sd_img2img", "flux_img2img", "sd3_img2img"])
def test_a_strength_walks_as_many_calls_as_stock(name, share):
    case = zoo.case(name)
    calls = []
    for replaced in (False, True):
        if replaced:
            case.pipe.scheduler = PlanScheduler.replacing(case.pipe.scheduler, sampler="dpmpp")
        counted, step = [], case.pipe.scheduler.step
        case.pipe.scheduler.step = lambda *a, counted=counted, step=step, **k: counted.append(1) or step(*a, **k)
        zoo.sample(case, steps=10, strength=share)
        del case.pipe.scheduler.step
        calls.append(len(counted))
    assert calls[0] == calls[1] > 0


# --------------------------------------------------------------------------------------------------- the native road


@cache
def embedded():
    spec = named("embedded")
    return load(spec, "fp32", "cpu"), stock_pipeline(spec)


PLANNED = [n for n in registry.names() if not (registry.is_adaptive(n) or registry.has_own_levels(n))]
QUICK = ("unipc", "dpmpp_2m_sde", "heun")
WORST = {"sa_solver": 2e-4}


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [(name, 6) for name in QUICK] + [pytest.param(name, 20, marks=pytest.mark.zoo) for name in PLANNED],
)
@pytest.mark.parametrize("kind", ["DDIMScheduler", pytest.param("EulerDiscreteScheduler", marks=pytest.mark.zoo)])
def test_native_and_bridge_end_in_the_same_latents(sampler, steps, kind):
    """Same weights, prompts, noise and levels, guided; the state of a VP pipeline, and of a VE one."""
    model, pipe = embedded()
    prompts, indices = list(PROMPTS[:2]), range(2)
    text = model.encode_text(["", *prompts])
    levels = schedules.build("karras", model.process, steps)
    plan = registry.build_plan(registry.load(sampler), levels)
    streams = NoiseStreams(0, indices, model.latent_shape)
    with torch.inference_mode():
        native = integrate(plan, model.denoiser(text[1:], text[:1], Guidance(3.0)), streams.draw(), streams)
    settings = {"timestep_spacing": "leading"}  # an Euler that starts at unit variance, as we do
    base = getattr(diffusers, kind).from_config(stock_pipeline(named("embedded")).scheduler.config, **settings)
    pipe.scheduler = PlanScheduler.replacing(base, sampler=sampler, schedule="karras")
    pipe.scheduler.noise = NoiseStreams(0, indices, model.latent_shape)
    height, width = model.size
    latents = pipe.scheduler.noise.draw()
    call = {"latents": latents, "height": height, "width": width, "num_inference_steps": steps, "guidance_scale": 3.0}
    found = pipe(prompt=prompts, output_type="latent", **call).images
    assert float((found - native).abs().max() / native.abs().max()) <= WORST.get(sampler, 5e-5)
