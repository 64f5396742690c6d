"""Show a sampler's plan: `python -m samplers.show dpmpp --steps 20 --schedule karras --set order=3 --json plan.json`.

It prints the table of coefficients, and what the plan is by itself: denoiser calls, draws of noise, order. `--json`
writes the plan to a file that `sampler=plan sampler.file=plan.json` runs. It needs no model and no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from samplers import diagnosis, registry, schedules
from samplers.conditions import convergence
from samplers.core import plan_json
from samplers.core.levels import DiscreteVP, NoiseLevels, Process, RectifiedFlow
from samplers.core.plan import Plan
from samplers.registry import Sampler

PROCESSES = {"vp": DiscreteVP.scaled_linear, "ve": lambda: DiscreteVP.scaled_linear().ve(), "flow": RectifiedFlow}


def main(words: Sequence[str] | None = None) -> int:
    """Print the plan that `words` ask for (default: those of this process); exit code 2 for bad input.

    >>> main(["ddim", "--steps", "2", "--schedule", "karras"])
    ddim: 2 steps, 2 denoiser calls, 0 draws of noise, declared order 1 (eta=0.0)
    call      time  sigma/alpha  new state
       0   999.000      14.6146  +0.0292229 x  +0.99758 D
       1     0.000    0.0291672  +1 D
    order by its order conditions, levels uniform in log SNR: 1.01
    0
    """
    asked = _arguments(words)
    try:
        sampler, levels, plan = planned(asked)
        print(f"{sampler.name}: {summary(sampler, levels, plan)}")
        print(plan)
        if not plan.draws and not sampler.own_levels:
            print(_order(sampler))
        if asked.diagnose:
            print(diagnosis.table(diagnosis.of_plan(levels, plan)))
        if asked.json:
            asked.json.write_text(plan_json.dumps(plan, levels), encoding="utf-8")
            print(f"written to {asked.json}: run it with sampler=plan sampler.file={asked.json}")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def planned(asked: argparse.Namespace) -> tuple[Sampler, NoiseLevels, Plan]:
    """The sampler with its knobs, the levels it runs on, its plan."""
    sampler = registry.sampler({**registry.load(asked.sampler), **_knobs(asked.set)})
    if sampler.adaptive:
        raise ValueError(f"{asked.sampler} decides its steps while it runs: it has no plan to show")
    name, knobs = asked.schedule or str(sampler.default_schedule), _knobs(asked.set_schedule)
    if name == "file" and sampler.own_levels:
        knobs = {**sampler.knobs, **knobs}
    levels = schedules.build(name, _process(asked.process), asked.steps, **knobs)
    return sampler, levels, sampler.plan(levels)


def summary(sampler: Sampler, levels: NoiseLevels, plan: Plan) -> str:
    """One line: how many steps, denoiser calls and draws of noise, the declared order, and every knob."""
    knobs = ", ".join(f"{name}={value}" for name, value in sampler.knobs.items())
    parts = [f"{levels.steps} steps", f"{plan.nfe} denoiser calls", f"{plan.draws} draws of noise"]
    return f"{', '.join(parts)}, declared order {plan.capabilities.order} ({knobs})"


def _order(sampler: Sampler) -> str:
    """What the order conditions say of the method. They need runs of many steps, so they have levels of their own."""

    def build(steps: int) -> tuple[NoiseLevels, Plan]:
        levels = schedules.build("exponential", DiscreteVP.scaled_linear().ve(), steps, end="sigma_min")
        return levels, sampler.plan(levels)

    return f"order by its order conditions, levels uniform in log SNR: {convergence(build).order:.2f}"


def _process(name: str) -> Process:
    return PROCESSES[name]()


def _knobs(pairs: Sequence[str]) -> Mapping[str, Any]:
    """KEY=VALUE words, values as in YAML."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"{pair!r} is not KEY=VALUE")
    return {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m samplers.show", description="Print a sampler's plan.")
    parser.add_argument("sampler", help=f"one of {', '.join(registry.names())}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--schedule", help="default: the sampler's customary one")
    parser.add_argument("--set", nargs="+", default=[], metavar="KNOB=VALUE", help="knobs of the sampler")
    parser.add_argument("--set-schedule", nargs="+", default=[], metavar="KNOB=VALUE", help="knobs of the schedule")
    parser.add_argument("--process", choices=sorted(PROCESSES), default="vp", help="how the state is scaled")
    parser.add_argument("--diagnose", action="store_true", help="what each step misses and how it enlarges errors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan to a file that runs again")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
