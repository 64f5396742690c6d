"""How well a sampler runs backwards on a mixture whose points are known: `python -m harness.bench.inversion`.

Points of the law go up to noise and down again, in float64. A row a sampler: the relative error of the round trip on
rising levels by steps, its slope, and that of the exact inversion with what it costs.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from harness.errors import interruptible
from harness.models.base import Denoise
from harness.models.guidance import Guidance
from harness.models.load import load, named
from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import NoiseLevels
from samplers.core.solver import Solver
from samplers.inversion import invert

STEPS = (10, 20, 40, 80, 160)
EXACT_STEPS = 20  # of the exact inversion, which needs more tries the longer steps are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default="ddim,heun,dpmpp,unipc", help="names, comma-separated")
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--cfg", type=float, default=1.0, help="guidance scale, both ways")
    args = parser.parse_args()
    model: Any = load(named("gmm"), "fp64", "cpu")  # its mixture is its own
    classes = [model.mixture.classes[k % len(model.mixture.classes)] for k in range(args.points)]
    cond = model.encode_text(classes)
    law = model.mixture.sample(np.random.default_rng(0), cond.parts["class"][:, 0].numpy())
    ends, denoise = torch.from_numpy(law), model.denoiser(cond, model.encode_text([""]), Guidance(args.cfg))
    table = Table("sampler", "order", *map(str, STEPS), "slope", f"exact, {EXACT_STEPS} steps", "calls a call")
    for name in args.samplers.split(","):
        solver = registry.solver(registry.load(name))
        errors = [_rising(solver, _levels(model, steps), denoise, ends) for steps in STEPS]
        before = model.calls
        exact, calls = _exact(solver, _levels(model, EXACT_STEPS), denoise, ends)
        slope = math.log2(errors[-3] / errors[-1]) / 2
        own = f"{(model.calls - before) / calls - 1:.0f}"
        order = str(solver.declares(STEPS[-1]).order)
        table.add_row(name, order, *(f"{error:.1e}" for error in errors), f"{slope:.2f}", f"{exact:.1e}", own)
    Console(width=140).print(table)


def _levels(model: Any, steps: int) -> NoiseLevels:
    return schedules.build("exponential", model.process, steps, end="sigma_min")


def _rising(solver: Solver, levels: NoiseLevels, denoise: Denoise, ends: torch.Tensor) -> float:
    """The round trip's relative error with the plan on rising levels."""
    noise = integrate(solver.plan(levels.rising()), denoise, ends)
    return _off(integrate(solver.plan(levels), denoise, noise), ends)


def _exact(solver: Solver, levels: NoiseLevels, denoise: Denoise, ends: torch.Tensor) -> tuple[float, int]:
    """That of the exact inversion, and the calls of one way down."""
    plan = solver.plan(levels)
    return _off(integrate(plan, denoise, invert(plan, levels, denoise, ends).start), ends), plan.nfe


def _off(found: torch.Tensor, ends: torch.Tensor) -> float:
    return float((found - ends).norm() / ends.norm())


if __name__ == "__main__":
    sys.exit(interruptible(main))
