"""What the arithmetic of a sampler costs: `python -m harness.overhead [--samplers euler,lms] [--steps 50]`.

A denoiser that answers with a fixed tensor at no cost leaves nothing but the sampler's own work. Native, diffusers and
k-diffusion run in turn, in random order within a block, on one thread, and the minimum and the median over the blocks
are told in µs a denoiser call. What is inside the clock is what each does between two calls when it is used as its
authors mean it, at its own fastest:

* native: `integrate(plan, …)`, the plan built before;
* diffusers: the loop of a pipeline, `scale_model_input` and `step` of a scheduler whose timesteps are set before, with
  the answer in the scheduler's own prediction type;
* k-diffusion: the call of `sample_…` with the σ computed before.

Outside of it: building plans and schedulers, conversion of levels and of the answer, anything of samplers/peers. Every
implementation draws its noise as it does by itself, one `randn` a draw; where a peer's habit is a Brownian tree (100
times as dear) it is given plain noise instead. Prints a table and writes parquet.
"""

from __future__ import annotations

import argparse
import inspect
import math
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from harness.atomic import written_whole
from harness.errors import InputError
from harness.measure import cost
from harness.store import layout
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, NoiseLevels
from samplers.core.noise import NoiseStreams
from samplers.peers import diffusers as peer_diffusers
from samplers.peers import k_diffusion as peer_k_diffusion
from samplers.peers.counterparts import DIFFUSERS, K_DIFFUSION, choose
from samplers.registry import Sampler

SHAPES = {"1x4x64x64": (1, 4, 64, 64), "16x4x128x128": (16, 4, 128, 128)}
# What all implementations of a sampler can walk: some end at σ = 0 only, some above it, some on trained levels only.
LEVELS = (
    {"name": "karras", "end": "zero"},
    {"name": "karras", "end": "sigma_min"},
    {"name": "trailing", "end": "zero"},
    {"name": "leading", "end": "sigma_min"},
)
IMPLEMENTATIONS = ("native", "diffusers", "k_diffusion")
Run = Callable[[], float]  # seconds a denoiser call


def main(words: Sequence[str] | None = None) -> int:
    asked = _arguments(words)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # the peers warn of themselves
    try:
        samplers = [_sampler(name) for name in asked.samplers or _names()]
        rows = [row for shape in asked.shapes for row in measured(samplers, shape, asked.steps, asked.blocks)]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = pd.DataFrame(rows)
    show(table, Console(width=None if sys.stdout.isatty() else 150))
    with written_whole(asked.out) as file:
        table.to_parquet(file)
    print(f"{len(table)} rows written to {asked.out}")
    return 0


@torch.no_grad()
def measured(samplers: Sequence[Sampler], shape_name: str, steps: int, blocks: int) -> list[Mapping[str, Any]]:
    """A row a sampler and implementation: µs a denoiser call, beside what one add and one randn cost in this minute."""
    shape = SHAPES[shape_name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    answer = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    blocks = max(3, blocks // (1 if len(x) == 1 else 4))
    unit = {
        "add_us": 1e6 * _fastest(lambda: x + answer, 200),
        "randn_us": 1e6 * _fastest(lambda: torch.randn(shape), 40),
    }
    where = {"shape": shape_name, "steps": steps, "hardware": cost.hardware("cpu"), **cost.environment(), **unit}
    rows = []
    for sampler in samplers:
        levels, runs, names = _runs(sampler, steps, x, answer)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(blocks):
            for name in random.sample(list(runs), len(runs)):
                times[name].append(1e6 * runs[name]())
        for name, found in times.items():
            rows.append(
                {
                    "sampler": sampler.name,
                    "implementation": name,
                    "counterpart": names[name],
                    "nfe": sampler.plan(levels).nfe,
                    "draws": sampler.plan(levels).draws,
                    "us_min": min(found),
                    "us_median": statistics.median(found),
                    "blocks": blocks,
                    "plan_ms": _plan_ms(sampler, levels) if name == "native" else math.nan,
                    **where,
                }
            )
    return rows


def show(table: pd.DataFrame, console: Console) -> None:
    """A table a shape, and below it how native stands against the fastest peer of each sampler."""
    for shape, rows in table.groupby("shape", sort=False):
        add, randn = rows["add_us"].iloc[0], rows["randn_us"].iloc[0]
        title = f"µs a denoiser call, minimum (median), {shape} float32, {rows['steps'].iloc[0]} steps, one thread"
        out = Table(title=f"{title}; one add {add:.1f}, one randn {randn:.1f}", header_style="bold")
        for heading in ("sampler", "draws", *IMPLEMENTATIONS, "native / fastest peer", "plan ms"):
            out.add_column(heading, justify="left" if heading == "sampler" else "right")
        ratios = {}
        for sampler, group in rows.groupby("sampler", sort=False):
            by = group.set_index("implementation")
            peers = by["us_min"].drop("native")
            if len(peers):
                ratios[str(sampler)] = by.loc["native", "us_min"] / peers.min()
            out.add_row(
                str(sampler),
                str(by.loc["native", "draws"]),
                *(_cell(by, name) for name in IMPLEMENTATIONS),
                f"{ratios[str(sampler)]:.3f}" if len(peers) else "",
                f"{by.loc['native', 'plan_ms']:.2f}",
            )
        console.print(out)
        if ratios:
            mean = statistics.geometric_mean(ratios.values())
            slower = [name for name, ratio in ratios.items() if ratio >= 1]
            said = f"geometric mean of native / fastest peer over {len(ratios)} samplers: {mean:.3f}"
            console.print(f"{said}; not below it: {', '.join(slower) or 'none'}", highlight=False)


def _cell(by: pd.DataFrame, name: str) -> str:
    return f"{by.loc[name, 'us_min']:.1f} ({by.loc[name, 'us_median']:.1f})" if name in by.index else "–"


# --------------------------------------------------------------------------------------------------- what is measured


def _runs(
    sampler: Sampler, steps: int, x: torch.Tensor, answer: torch.Tensor
) -> tuple[NoiseLevels, dict[str, Run], dict[str, str]]:
    """The levels that most implementations of the sampler can walk, and a run of each that can."""
    best: tuple[NoiseLevels, dict[str, Run], dict[str, str]] | None = None
    for schedule in LEVELS:
        levels = schedules.build(process=DiscreteVP.scaled_linear(), steps=steps, **schedule)
        try:
            runs, names = {"native": _native(sampler, levels, x, answer)}, {"native": sampler.solver.called()}
        except ValueError:
            continue
        for name, table, make in (("diffusers", DIFFUSERS, _diffusers), ("k_diffusion", K_DIFFUSION, _k_diffusion)):
            try:
                row = choose(table, name, sampler, levels)
                run = make(row, sampler, levels, x, answer)
                run()  # some see only here that they cannot; and it is the warm-up
            except ValueError:
                continue
            runs[name], names[name] = run, row.name
        if best is None or len(runs) > len(best[1]):
            best = levels, runs, names
    if best is None:
        raise InputError(f"{sampler.name} plans for none of the levels that overheads are measured on")
    best[1]["native"]()
    return best


def _native(sampler: Sampler, levels: NoiseLevels, x: torch.Tensor, answer: torch.Tensor) -> Run:
    plan = sampler.plan(levels)
    streams = NoiseStreams(0, range(len(x)), x.shape[1:])

    def denoise(state, level):
        return answer

    return lambda: _timed(lambda: integrate(plan, denoise, x, streams)) / plan.nfe


def _diffusers(row, sampler: Sampler, levels: NoiseLevels, x: torch.Tensor, answer: torch.Tensor) -> Run:
    knobs = sampler.knobs
    arguments = row.step(knobs)

    def run() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler, timesteps, _ = peer_diffusers.LAYOUTS[row.layout](row, knobs, levels)
        if hasattr(scheduler, "noise_sampler"):
            scheduler.noise_sampler = lambda above, below: torch.randn_like(x)
        timesteps, scales = list(timesteps), hasattr(scheduler, "scale_model_input")  # flow schedulers have none

        def loop() -> None:
            state = x
            for timestep in timesteps:
                if scales:
                    scheduler.scale_model_input(state, timestep)
                state = scheduler.step(answer, timestep, state, return_dict=False, **arguments)[0]

        return _timed(loop) / len(timesteps)

    return run


def _k_diffusion(row, sampler: Sampler, levels: NoiseLevels, x: torch.Tensor, answer: torch.Tensor) -> Run:
    function = getattr(peer_k_diffusion.sampling, row.name)
    knobs = sampler.knobs
    given = {**row.fixed, **{name: knobs[name] for name in row.passes}}
    if "noise_sampler" in inspect.signature(function).parameters:
        given["noise_sampler"] = lambda above, below: torch.randn_like(x)
    sigmas = torch.tensor(levels.ratio, dtype=x.dtype)
    args = (sigmas[-1], sigmas[0], levels.steps) if row.ends_only else (sigmas,)
    calls = 0

    def model(state, sigma):
        nonlocal calls
        calls += 1
        return answer

    def run() -> float:
        nonlocal calls
        calls = 0
        return _timed(lambda: function(model, x, *args, disable=True, **given)) / calls

    return run


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _fastest(work: Callable[[], object], runs: int) -> float:
    return min(_timed(work) for _ in range(runs))


def _plan_ms(sampler: Sampler, levels: NoiseLevels) -> float:
    return 1e3 * _fastest(lambda: sampler.plan(levels), 10)


# ------------------------------------------------------------------------------------------------------ what is asked


def _names() -> list[str]:
    """Every sampler with a plan for levels of any number."""
    every = map(registry.sampler, registry.names())
    return [sampler.name for sampler in every if not (sampler.own_levels or sampler.adaptive)]


def _sampler(name: str) -> Sampler:
    """The sampler of conf/sampler, or with knobs: unipc:order=3."""
    import yaml

    name, *words = name.split(":")
    knobs = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}
    sampler = registry.sampler({**registry.load(name), **knobs})
    if sampler.adaptive or sampler.own_levels:
        raise InputError(f"{name} has no plan for {LEVELS[0]['name']} levels: its overhead is not measured here")
    return replace(sampler, name=":".join([name, *words]))


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.overhead", description="µs a step without a model.")
    comma = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser.add_argument("--samplers", type=comma, help="names with commas; unipc:order=3 sets a knob (default: all)")
    parser.add_argument("--shapes", type=comma, default=list(SHAPES), help=f"default: {','.join(SHAPES)}")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--blocks", type=int, default=40, help="runs of each; a quarter of it for the large shape")
    parser.add_argument("--out", type=Path, default=layout.overhead(Path("results")))
    asked = parser.parse_args(words)
    if unknown := [shape for shape in asked.shapes if shape not in SHAPES]:
        parser.error(f"shape {unknown[0]!r} is not valid; valid: {', '.join(SHAPES)}")
    return asked
