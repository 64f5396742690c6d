"""Order of convergence, on a model whose denoiser is known: five Gaussians in the plane.

The probability-flow ODE from σmax to σmin is solved by DOP853 to high accuracy; a sampler's error against it must have
the size it is known for and the slope that its solver declares. conf/sampler is enumerated: a new deterministic sampler
is held to what it declares as soon as its YAML is there.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from five_modes import PROCESS, denoiser, flow, starts

from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import NoiseLevels, RectifiedFlow

SCHEDULES = ("exponential", "karras")
FIT = (41, 80, 158)  # calls; remainders by 3 are equal, so methods that end in a lower order end in the same one


class Regime(NamedTuple):
    """Where a slope is measured, and which is then expected, for a sampler that does not show its order in `FIT`."""

    why: str
    fit: tuple[int, ...] = FIT
    graded: bool = False  # the first step is halved until it is 1/64: a first step of order 1 stops mattering
    order: int | None = None


STARTED = Regime("order 4 begins with a step of order 1, whose h² shows from 100 steps on", graded=True)
ELSEWHERE = {
    ("lms", "exponential"): STARTED,
    ("lms", "karras"): STARTED,
    ("dpmpp_3m", "karras"): Regime(
        "the half second difference (h²) and the third-order error have opposite signs and cancel near 20 steps",
        fit=(160, 320, 640),
    ),
    ("ipndm_v", "karras"): Regime(
        "the weights add up to 1 + O(h²), an error that the one of the turned sign hides below 300 steps",
        fit=(640, 1280, 2560),
    ),
    ("ipndm_v", "exponential"): Regime(
        "geometric steps are the ones where the published weights add up to 1: order 3", fit=(160, 320, 640), order=3
    ),
}


def deterministic():
    for name in registry.names():
        plans = not registry.has_own_levels(name) and not registry.is_adaptive(name)
        if plans and not registry.capabilities(name, FIT[0]).stochastic:
            yield name


DETERMINISTIC = list(deterministic())
every_sampler = pytest.mark.parametrize("name", DETERMINISTIC)


def full_order(name, **knobs):
    """The sampler with its order kept to the end, where that is a choice."""
    sampler = {**registry.load(name), **knobs}
    return {**sampler, "lower_order_final": False} if "lower_order_final" in registry.knobs(name) else sampler


def levels_for(sampler, schedule, nfe, process=PROCESS, end="sigma_min"):
    per_step = registry.capabilities(sampler, 1000).nfe / 1000
    return schedules.build(schedule, process, nfe // round(per_step), end=end)


def graded(levels):
    log = np.log(levels.ratio)
    extra = log[0] + (log[1] - log[0]) * 2.0 ** np.arange(-6, 0)
    return NoiseLevels.from_ratios(levels.process, np.exp(np.concatenate([log[:1], extra, log[1:]])))


def run(sampler, levels, start=None, dtype=torch.float64):
    """The last x/α from x/α = `start` (the starts of σmax), and the calls that it took."""
    calls = []
    plan = registry.build_plan(sampler, levels)
    y = starts() * levels[0].ratio if start is None else start
    x = y * levels[0].alpha if levels[0].alpha else starts()
    x = integrate(plan, denoiser, x.to(dtype), on_call=calls.append)
    return x.double() / levels[-1].alpha, len(calls)


def error(sampler, levels):
    """RMS distance to the exact solution relative to its RMS, and the calls."""
    x, calls = run(sampler, levels)
    exact = flow(float(levels.ratio[-1]))
    return float((x - exact).norm() / exact.norm()), calls


def fitted(errors, calls):
    return -np.polyfit(np.log(calls), np.log(errors), 1)[0]


def test_every_sampler_is_held_to_something():
    """What is not here is stochastic (its law is tested), adaptive or a plan from a file."""
    others = [name for name in registry.names() if name not in DETERMINISTIC]
    assert {"euler", "heun", "lms", "unipc"} <= set(DETERMINISTIC)
    for name in others:
        elsewhere = registry.has_own_levels(name) or registry.is_adaptive(name)
        assert elsewhere or registry.capabilities(name, 20).stochastic, name
    assert {name for name, _ in ELSEWHERE} <= set(DETERMINISTIC)


@every_sampler
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_slope_is_the_declared_order(name, schedule):
    sampler = full_order(name)
    regime = ELSEWHERE.get((name, schedule), Regime(""))
    levels = [levels_for(sampler, schedule, nfe) for nfe in regime.fit]
    declared = {registry.capabilities(sampler, each.steps).order for each in levels}
    order = regime.order or max(declared)
    measured = [error(sampler, graded(each) if regime.graded else each) for each in levels]
    slope = fitted(*zip(*((e, calls - 6 * regime.graded) for e, calls in measured), strict=True))
    assert len(declared) == 1
    if order <= 2:
        assert slope == pytest.approx(order, abs=0.15), measured
    else:
        assert slope >= order - 0.4, measured


# The table of errors at 10, 20, 40, 80 and 160 calls on uniform log-SNR levels: two significant digits each.
KNOWN = {
    "euler": ({}, (0.125, 6.4e-2, 3.2e-2, 1.6e-2, 8.1e-3)),
    "ddim": ({}, (0.125, 6.4e-2, 3.2e-2, 1.6e-2, 8.1e-3)),
    "dpm_multistep order 1": ({"order": 1}, (0.125, 6.4e-2, 3.2e-2, 1.6e-2, 8.1e-3)),
    "dpmpp order 1": ({"order": 1}, (0.125, 6.4e-2, 3.2e-2, 1.6e-2, 8.1e-3)),
    "heun": ({}, (0.228, 4.7e-2, 1.1e-2, 2.6e-3, 6.3e-4)),
    "dpm2": ({}, (0.106, 2.2e-2, 5.2e-3, 1.3e-3, 3.1e-4)),
    "dpmpp_2s": ({}, (6.3e-2, 1.9e-2, 5.0e-3, 1.3e-3, 3.4e-4)),
    "lms": ({}, (4.4e-2, 6.7e-3, 7.0e-4, 6.2e-5, 6.0e-6)),
    "dpmpp": ({}, (2.3e-2, 5.6e-3, 1.4e-3, 3.3e-4, 8.3e-5)),
    "dpmpp_3m": ({"lower_order_final": 15}, (1.5e-2, 1.6e-3, 3.8e-4, 9.5e-5, 2.4e-5)),
    "dpmpp_3s": ({"nodes": "levels"}, (2.1e-2, 3.6e-3, 6.1e-4, 8.4e-5, 1.1e-5)),
    "deis": ({"lower_order_final": 15}, (8.5e-3, 1.3e-3, 1.8e-4, 2.4e-5, 3.8e-6)),
    "unipc": ({"lower_order_final": True}, (1.2e-2, 1.6e-3, 2.2e-4, 2.9e-5, 3.6e-6)),
    "unipc order 3": ({"order": 3}, (6.2e-3, 5.2e-4, 3.6e-5, 2.7e-6, 1.8e-7)),
}


@pytest.mark.parametrize("row", KNOWN)
def test_errors_are_the_known_ones(row):
    name, (knobs, expected) = row.split()[0], KNOWN[row]
    sampler = {**full_order(name), **knobs}
    errors = [error(sampler, levels_for(sampler, "exponential", nfe))[0] for nfe in (10, 20, 40, 80, 160)]
    for found, known in zip(errors, expected, strict=True):
        digit = 10.0 ** np.floor(np.log10(known)) * (0.005 if known > 0.1 else 0.05)
        assert found == pytest.approx(known, rel=0.02, abs=digit * 1.001), errors  # 2 %, or what the table rounds away


@every_sampler
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_scaling_of_the_state_does_not_matter(name, schedule):
    """The same σ/α on a variance-preserving, a variance-exploding and a rectified-flow state: the same x/α."""
    sampler = registry.load(name)
    levels = levels_for(sampler, schedule, 20)
    results = [
        run(sampler, NoiseLevels.from_ratios(process, levels.ratio, levels.time))[0]
        for process in (PROCESS, PROCESS.ve(), RectifiedFlow())
    ]
    for other in results[1:]:
        assert torch.allclose(results[0], other, rtol=0, atol=1e-9)


@every_sampler
def test_few_steps_are_finite_and_counted(name):
    sampler = registry.load(name)
    for process, end, steps in product((PROCESS, PROCESS.ve(), RectifiedFlow()), ("zero", "sigma_min"), (1, 2, 3)):
        case = type(process).__name__, end, steps
        x, calls = run(sampler, schedules.build("karras", process, steps, end=end))
        assert x.isfinite().all(), case
        declared = registry.capabilities(sampler, steps).nfe
        assert steps <= calls == declared if end == "sigma_min" else calls <= declared, case


@every_sampler
def test_pure_noise_may_stand_first(name):
    """t = 1 of a rectified flow, where σ/α is infinite: every sampler takes that step, at first order if it must."""
    sampler = registry.load(name)
    process = RectifiedFlow()
    for steps in (1, 2, 3, 12):
        t = np.linspace(1, 0, steps + 1)
        levels = NoiseLevels.from_ratios(process, process.ratio_of_noise(t), 1000 * t)
        x, calls = run(sampler, levels)
        assert x.isfinite().all() and calls <= registry.capabilities(sampler, steps).nfe
        first = registry.build_plan(sampler, levels).stages[0]
        assert first.level.alpha == 0 and first.states == pytest.approx((first.result.sigma,)[: len(first.states)])


@every_sampler
def test_a_late_start_follows_the_exact_path(name):
    """img2img: the tail of the levels, begun on the exact path, ends where the path ends."""
    sampler = registry.load(name)
    levels = levels_for(sampler, "karras", 60)
    k = levels.steps // 3
    tail = levels.from_(k)
    plan = registry.build_plan(sampler, tail)
    assert plan.start == levels[k] and plan.stages[-1].result == levels[levels.steps]
    x, _ = run(sampler, tail, start=flow(float(tail.ratio[0])))
    exact = flow(PROCESS.ratio_min)
    assert float((x - exact).norm() / exact.norm()) < (0.04 if registry.capabilities(sampler, 20).order == 1 else 0.02)


@every_sampler
@pytest.mark.parametrize("process", [PROCESS, PROCESS.ve()], ids=["vp", "ve"])
def test_float32_loses_what_rounding_explains(name, process):
    """Every stage rounds a sum of terms a·X and b·D to 24 bits, and the flow does not make an error larger: the loss is
    below the sum of all these roundings as x0 sees them (a quarter of it, measured, since they do not all add up)."""
    sampler = registry.load(name)
    levels = levels_for(sampler, "karras", 20, process)
    plan = registry.build_plan(sampler, levels)
    seen = []

    def spy(x, level):
        seen.append((float(x.abs().max()), float((x0 := denoiser(x, level)).abs().max())))
        return x0

    double = integrate(plan, spy, starts() * levels[0].sigma)
    single = integrate(plan, denoiser, (starts() * levels[0].sigma).float())
    rounding = 0.0
    for i, stage in enumerate(plan.stages):
        lost = sum(abs(a) * seen[i - j][0] for j, a in enumerate(stage.states))
        lost += sum(abs(b) * seen[i - j][1] for j, b in enumerate(stage.x0))
        rounding += 2.0**-24 * lost / stage.result.alpha * min(1.0, 1 / stage.result.ratio)  # as x0 sees it
    assert single.dtype == torch.float32
    assert 0 < float((single - double).abs().max()) < rounding, rounding
