"""Are our images those of diffusers' own pipeline? `python -m harness.parity_pipeline [--model embedded]`.

Same weights, prompts, initial noise, guidance and levels, float32; what diffusers rounds is rounded here too.
Prints the PSNR between the two for every pair of samplers; `--least` dB in all of them is a pass, else exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.errors import InputError
from harness.models.base import Model
from harness.models.guidance import Guidance
from harness.models.load import load, named
from harness.models.locate import Spec, place
from harness.tasks.txt2img import Txt2Img
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.noise import NoiseStreams

PROMPTS = (
    "a large matte red ball in the center on marble, lit from the left",
    "a small striped blue block at the top on wood, lit from above",
    "a large dotted green star left of a small shiny yellow ball on sand, lit from the right",
    "a photo of an astronaut riding a horse",
)


@dataclass(frozen=True)
class Pair:
    """One sampler as diffusers names it and as this project does."""

    scheduler: str  # class of diffusers.schedulers
    settings: Mapping[str, Any]  # beside what the model's own configuration says of its training
    sampler: str
    schedule: str
    knobs: Mapping[str, Any] = field(default_factory=dict)  # the schedule's
    start_scale: str = "unit"
    only: str | None = None  # prediction type for which the two are the same method; None: any


OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
LIKE_DPM = {"points": "steps_plus_one", "rounding": "diffusers"}
LINSPACE = {"timestep_spacing": "linspace"}
RELEASED = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
PAIRS = {
    "euler": Pair("EulerDiscreteScheduler", LINSPACE, "euler", "linspace", {"rounding": "diffusers"}, "sigma"),
    "dpmpp": Pair("DPMSolverMultistepScheduler", LINSPACE, "dpmpp", "linspace", LIKE_DPM),
    "dpmpp karras": Pair(
        "DPMSolverMultistepScheduler",
        {**LINSPACE, "use_karras_sigmas": True},
        "dpmpp",
        "karras",
        {"rounding": "diffusers"},
    ),
    "unipc": Pair("UniPCMultistepScheduler", LINSPACE, "unipc", "linspace", LIKE_DPM),
    "ddim": Pair("DDIMScheduler", {**RELEASED, "clip_sample": False}, "ddim", "leading"),
    # PNDM averages past outputs: diffusers averages v where the model predicts v, this project ε, as in the paper.
    "plms": Pair("PNDMScheduler", {**RELEASED, "skip_prk_steps": True}, "plms", "leading", only="epsilon"),
}


def stock_pipeline(spec: Spec, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """diffusers' StableDiffusionPipeline of the same folder, without its progress bar."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pipe = StableDiffusionPipeline.from_pretrained(
        place(spec, weights=True).folder, torch_dtype=dtype, variant=spec.get("variant"), safety_checker=None
    ).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def use_scheduler(pipe: Any, pair: Pair) -> None:
    from diffusers import schedulers

    kind = getattr(schedulers, pair.scheduler)
    # Only what belongs to the model: the rest of a configuration belongs to the scheduler that it was written for.
    own = {key: value for key, value in pipe.scheduler.config.items() if key in OF_THE_MODEL}
    pipe.scheduler = kind.from_config({**own, **pair.settings})


def by_pipeline(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: Guidance) -> Tensor:
    """uint8 (N, 3, H, W) by the stock pipeline."""
    side = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    images = pipe(
        prompt=prompts,
        latents=noise.to(pipe.device, pipe.unet.dtype),
        height=noise.shape[-2] * side,
        width=noise.shape[-1] * side,
        num_inference_steps=steps,
        guidance_scale=guidance.scale,
        guidance_rescale=guidance.rescale,
        output_type="np",
    ).images
    return (torch.from_numpy(images) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)


def by_harness(
    model: Model, pair: Pair, prompts: list[str], noise: NoiseStreams, steps: int, guidance: Guidance
) -> Tensor:
    """uint8 (N, 3, H, W) by this project: text, levels, plan, loop, decoder."""
    text = model.encode_text(["", *prompts])
    task = Txt2Img(start_scale=pair.start_scale)
    levels, _ = task.levels(lambda n: schedules.build(pair.schedule, model.process, n, **pair.knobs), steps)
    plan = registry.build_plan(registry.load(pair.sampler), levels)
    start = task.start(model, levels, noise)
    denoise = model.denoiser(text[1:], text[:1], guidance)
    return model.decode(integrate(plan, denoise, start.state, noise, start.after_stage))


def psnr(a: Tensor, b: Tensor) -> float:
    """dB between two batches of uint8 images; infinite where they are equal."""
    error = (a.double() - b.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def compare(spec: Spec, steps: int, guidance: Guidance, seed: int = 0, device: str = "cpu") -> dict[str, float]:
    """PSNR in dB for every pair of samplers that is one method for this model."""
    model, pipe = load(spec, "fp32", device), stock_pipeline(spec, device)
    prompts, indices = list(PROMPTS), range(len(PROMPTS))
    values = {}
    for name, pair in PAIRS.items():
        if pair.only not in (None, pipe.scheduler.config.prediction_type):
            continue
        use_scheduler(pipe, pair)
        noise = NoiseStreams(seed, indices, model.latent_shape, device)
        theirs = by_pipeline(pipe, prompts, noise.draw(), steps, guidance)
        again = NoiseStreams(seed, indices, model.latent_shape, device)
        values[name] = psnr(by_harness(model, pair, prompts, again, steps, guidance), theirs)
    return values


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.parity_pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="a name in conf/model")
    parser.add_argument("--path", help="folder or hub id instead of the one in conf/model")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--rescale", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--least", type=float, default=45.0, help="dB that every pair must reach")
    args = parser.parse_args(arguments)
    try:
        spec = named(args.model, **({"path": args.path} if args.path else {}))
        guidance = Guidance.parse(args.cfg, {"rescale": args.rescale})
        values = compare(spec, args.steps, guidance, args.seed, args.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.model}, fp32, {args.steps} steps, cfg {args.cfg:g}, {len(PROMPTS)} prompts, seed {args.seed}")
    print(f"{'sampler':<14}{'scheduler of diffusers':<30}{'PSNR dB':>8}")
    for name, value in values.items():
        low = "" if value >= args.least else f"   below {args.least:g}"
        print(f"{name:<14}{PAIRS[name].scheduler:<30}{value:>8.1f}{low}")
    return 0 if min(values.values()) >= args.least else 1
