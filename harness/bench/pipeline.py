"""Ours against diffusers' own pipeline, end to end: `python -m harness.bench.pipeline [--batch 1,16] [--pairs 15]`.

From the text of the prompts to uint8 images on the CPU, same weights, prompts, steps, sampler and precision, in one
process. The two run alternately in random order inside each pair, so that whatever else the machine does meets both;
the ratio of a pair is what counts, and its median carries a bootstrap interval. The stock pipeline runs without its
progress bar; ours computes text embeddings, levels and plan anew in every run.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from harness.errors import InputError, interruptible
from harness.models.guidance import Guidance
from harness.models.load import load, named
from harness.parity.pipeline import PAIRS, PROMPTS, by_harness, stock_pipeline, use_scheduler
from samplers.core.noise import NoiseStreams

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def paired(first: Callable[[], object], second: Callable[[], object], pairs: int, seed: int = 0) -> np.ndarray:
    """Seconds (pairs, 2) of two pieces of work, alternately and in random order inside a pair, after a warm-up."""
    order = random.Random(seed)
    first(), second()
    seconds = np.zeros((pairs, 2))
    for row in seconds:
        for which in order.sample((0, 1), 2):
            began = time.perf_counter()
            (first, second)[which]()
            row[which] = time.perf_counter() - began
    return seconds


def interval(ratios: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median and its 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.bench.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="a name in conf/model")
    parser.add_argument("--path", help="folder or hub id instead of the one in conf/model")
    parser.add_argument("--sampler", default="dpmpp karras", choices=list(PAIRS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--batch", default="1,16", help="batch sizes, comma-separated")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        spec = named(args.model, **({"path": args.path} if args.path else {}))
        model = load(spec, args.precision, args.device)
        pipe = stock_pipeline(spec, args.device, DTYPES[args.precision])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pair, guidance = PAIRS[args.sampler], Guidance(scale=args.cfg)
    use_scheduler(pipe, pair)
    height, width = model.size
    print(
        f"{args.model} {height}x{width}, {args.sampler}, {args.steps} steps, cfg {args.cfg:g}, {args.precision}, "
        f"{args.device}, {args.threads} threads, {args.pairs} pairs"
    )
    print(f"{'batch':>5}{'ours ms':>11}{'stock ms':>11}{'ours/stock':>12}   95 % interval")
    for batch in (int(text) for text in args.batch.split(",")):
        # All different: a prompt that is given twice is encoded once here, which would flatter us.
        prompts = [f"{PROMPTS[k % 3]} {k}" for k in range(batch)]

        def ours(prompts: list[str] = prompts) -> object:
            with torch.inference_mode():
                noise = NoiseStreams(0, range(len(prompts)), model.latent_shape, args.device)
                return by_harness(model, pair, prompts, noise, args.steps, guidance)

        def stock(prompts: list[str] = prompts) -> object:
            generator = torch.Generator(args.device).manual_seed(0)
            images = pipe(
                prompt=prompts,
                generator=generator,
                height=height,
                width=width,
                num_inference_steps=args.steps,
                guidance_scale=args.cfg,
            ).images
            return np.stack([np.asarray(image) for image in images])

        seconds = paired(ours, stock, args.pairs)
        middle, low, high = interval(seconds[:, 0] / seconds[:, 1])
        one, other = np.median(seconds, axis=0) * 1e3
        print(f"{batch:>5}{one:>11.1f}{other:>11.1f}{middle:>12.3f}   {low:.3f} to {high:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
