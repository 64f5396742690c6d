"""What every sampler must hold to. conf/sampler is enumerated, so a new file there is tested at once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, Level
from samplers.core.noise import NoiseStreams
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage

PROCESS = DiscreteVP.scaled_linear()
SHAPE = (4, 8, 8)
# variations beside the values in the YAML: every stochastic road and every start-up is run too
VARIATIONS = {
    "euler": [{"s_churn": 2.0}, {"s_churn": 10.0, "s_tmin": 0.5, "s_tmax": 8.0, "s_noise": 1.005}],
    "dpmpp": [{"order": 1}, {"order": 3}, {"order": 3, "exact": True}, {"solver_type": "heun"}],
    "unipc": [
        *({"order": order, "variant": variant} for order in (1, 2, 3) for variant in ("bh1", "bh2", "vary_coeff")),
        {"corrector": False},
        {"disable_corrector": 2},
    ],
    "ddim": [{"eta": 0.5}, {"eta": 1.0}],
    "plms": [{"warmup": "prk"}],
    "heun": [{"clock": "flow"}, {"s_churn": 2.0}, {"clock": "flow", "s_churn": 2.0}],
    "dpm2": [{"r": 1.0}, {"s_churn": 2.0}],
    "lms": [{"order": order} for order in (1, 2, 3)],
    "ipndm": [{"max_order": order} for order in (1, 2, 3)],
    "ipndm_v": [{"max_order": 3}, {"exact": True}],
    "deis": [{"order": order, "deis_mode": mode} for order in (2, 4) for mode in ("logrho", "rhoab", "tab")],
    "dpm_multistep": [{"order": 3}, {"order": 3, "exact": True}, {"solver_type": "heun"}],
    "dpmpp_2s": [{"nodes": "levels"}, {"solver_type": "heun"}],
    "dpmpp_3s": [{"nodes": "levels"}, {"nodes": "levels", "solver_type": "heun"}, {"solver_type": "heun"}],
    "exp_heun": [{"solver_type": "phi_1"}],
    "res_multistep": [{"eta": 1.0}],
    "dpm_fast": [{"eta": 1.0}],
    "gradient_estimation": [{"gamma": 1.5}],
    "lcm": [{"sigma_data": 0.0}],
}
SAMPLERS = [
    pytest.param({**registry.load(name), **knobs}, id="-".join([name, *(f"{k}={v}" for k, v in knobs.items())]))
    for name in registry.names()
    if not registry.has_own_levels(name)  # a plan from a file: tests/test_plan_files.py
    if not registry.is_adaptive(name)  # no plan: tests/test_samplers_adaptive.py
    for knobs in [{}, *VARIATIONS.get(name, [])]
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def denoiser(x, level):
    return torch.tanh(x * level.alpha + 0.1 * x.roll(1, -1) * level.sigma)


def levels_for(sampler, steps, schedule=None):
    return schedules.build(schedule or sampler["default_schedule"], PROCESS, steps)


def run(sampler, steps=7, indices=range(3), dtype=torch.float32, schedule=None, start=0):
    streams = NoiseStreams(5, indices, SHAPE)
    x = streams.draw().to(dtype)
    plan = registry.build_plan(sampler, levels_for(sampler, steps, schedule).from_(start))
    return integrate(plan, denoiser, x, noise=streams)


@every_sampler
def test_few_steps_stay_finite(sampler):
    for schedule, steps in itertools.product(schedules.names(), (1, 2, 3)):
        x = run(sampler, steps, schedule=schedule)
        assert x.isfinite().all(), (schedule, steps)
        assert x.shape == (3, *SHAPE) and x.dtype == torch.float32, (schedule, steps)


@every_sampler
def test_float32_follows_float64(sampler):
    single, double = run(sampler, 20), run(sampler, 20, dtype=torch.float64)
    assert double.dtype == torch.float64
    assert float((single - double).abs().max() / double.abs().max()) < 2e-6


@every_sampler
def test_an_image_does_not_depend_on_its_batch(sampler):
    together = run(sampler, indices=[4, 9, 2])
    alone = run(sampler, indices=[9])
    assert torch.allclose(together[1], alone[0], rtol=0, atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@every_sampler
def test_declared_is_counted(sampler):
    for steps in (1, 2, 3, 4, 12):
        _declared_is_counted(sampler, steps)


def _declared_is_counted(sampler, steps):
    levels = levels_for(sampler, steps)
    plan = registry.build_plan(sampler, levels)
    calls, progress = [], []
    streams = _Counted(NoiseStreams(0, [0], SHAPE))
    x = streams.streams.draw()
    integrate(plan, lambda x, level: calls.append(level) or denoiser(x, level), x, streams, on_call=progress.append)
    declared = registry.capabilities(sampler, steps)
    assert plan.capabilities == declared
    assert len(calls) == plan.nfe
    if declared.nfe is not None:  # of two-call methods the step to zero takes one
        assert plan.nfe <= declared.nfe
        above_zero = schedules.build("karras", PROCESS, steps, end="sigma_min")
        assert registry.build_plan(sampler, above_zero).nfe == declared.nfe
    assert progress == list(range(plan.nfe))
    assert streams.draws == plan.draws
    assert declared.stochastic or plan.draws == 0
    assert calls == [stage.level for stage in plan.stages]


class _Counted:
    def __init__(self, streams):
        self.streams, self.draws = streams, 0

    def draw(self, above=None, below=None):
        self.draws += 1
        return self.streams.draw()


@every_sampler
def test_img2img_starts_on_the_tail(sampler):
    levels = levels_for(sampler, 10).from_(6)
    plan = registry.build_plan(sampler, levels)
    assert (plan.start, levels.steps) == (levels[0], 4)
    assert plan.stages[-1].result == levels[4] == levels_for(sampler, 10)[10]
    assert run(sampler, 10, start=6).isfinite().all()


@every_sampler
def test_a_perfect_denoiser_is_followed_exactly(sampler):
    """x0 known: whatever the coefficients, the result must be α·x0 + σ·(the noise in the state), draws aside."""
    _skip_boundary(sampler)
    plans = {steps: registry.build_plan(sampler, levels_for(sampler, steps)) for steps in (1, 2, 5)}
    quiet = {steps: plan for steps, plan in plans.items() if not plan.draws}
    if not quiet:
        pytest.skip("the noise in the state changes on the way")
    x0 = torch.full((1, *SHAPE), 0.7, dtype=torch.float64)
    eps = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for steps, plan in quiet.items():
        levels = levels_for(sampler, steps)
        x = integrate(plan, lambda x, level: x0, levels[0].alpha * x0 + levels[0].sigma * eps)
        assert torch.allclose(x, levels[-1].alpha * x0 + levels[-1].sigma * eps, rtol=0, atol=1e-12), steps


@every_sampler
def test_every_state_has_the_level_it_says(sampler):
    """Of a clean image and of pure noise, each stage's state holds α and σ of its level: coefficients add up."""
    levels = levels_for(sampler, 6)
    plan = registry.build_plan(sampler, levels)
    if sampler["solver"] == "ipndm_v" and sampler["max_order"] == 4 and not sampler["exact"]:
        pytest.skip("the published weights add up to 1 on equal and geometric steps alone")
    _skip_boundary(sampler)
    influence, n = plan.influence(), plan.nfe
    for i, stage in enumerate(plan.stages[1:], 1):
        row = influence[i]
        signal = row[0] * plan.start.alpha + row[1 : 1 + n].sum()  # x0 = 1 everywhere, no noise
        fresh = np.square(row[1 + n :]).sum()
        assert signal == pytest.approx(stage.level.alpha, abs=1e-9)
        if "s_noise" not in sampler or sampler["s_noise"] == 1:
            assert (row[0] * plan.start.sigma) ** 2 + fresh == pytest.approx(stage.level.sigma**2, abs=1e-9)


@every_sampler
def test_a_step_to_zero_gives_the_last_prediction(sampler):
    levels = levels_for(sampler, 4, "karras")
    plan = registry.build_plan(sampler, levels)
    if sampler["solver"] in ("plms", "lms"):
        pytest.skip("extrapolates the noise, to zero as well")
    _skip_boundary(sampler)
    seen = []
    streams = NoiseStreams(0, [0], SHAPE)
    x = integrate(plan, lambda x, level: seen.append(denoiser(x, level)) or seen[-1], streams.draw(), streams)
    assert torch.equal(x, seen[-1])


def _skip_boundary(sampler):
    if sampler.get("sigma_data", 0) > 0:
        pytest.skip("LCM's boundary condition keeps a share of the state: tests/test_samplers_stochastic.py")


def plan_of(solver, steps=12, schedule="exponential", end="zero", **knobs):
    return registry.build_plan({"solver": solver, **knobs}, schedules.build(schedule, PROCESS, steps, end=end))


@pytest.mark.parametrize("schedule", [name for name in schedules.names() if name != "file"])
def test_first_order_methods_are_one_method(schedule):
    for steps in (1, 2, 12):
        euler = plan_of("euler", steps, schedule)
        assert euler == plan_of("ddim", steps, schedule) == plan_of("dpmpp", steps, schedule, order=1)
        assert euler == plan_of("unipc", steps, schedule, order=1, corrector=False)
    assert euler != plan_of("dpmpp", 12, schedule)


def test_higher_orders_that_are_one_method():
    ends = {"end": "sigma_min", "lower_order_final": False}
    assert plan_of("dpmpp", **ends).same_method(plan_of("unipc", corrector=False, **ends))
    exact = {"solver_type": "heun", **ends}
    unip = {"corrector": False, "variant": "vary_coeff", **ends}
    assert plan_of("dpmpp", **exact).same_method(plan_of("unipc", **unip))
    assert plan_of("dpmpp", order=3, exact=True, **exact).same_method(plan_of("unipc", order=3, **unip), 1e-9)
    assert not plan_of("dpmpp", order=3, **exact).same_method(plan_of("unipc", order=3, **unip), 1e-3)


def test_variants_agree_where_coefficients_are_solved_for():
    """From the third step on UniPC-3 has nothing of B(h) left; its first two steps differ."""
    plans = [plan_of("unipc", order=3, variant=v, end="sigma_min", lower_order_final=False) for v in ("bh1", "bh2")]
    for stages in itertools.islice(zip(*(plan.stages for plan in plans), strict=True), 3, None):
        assert np.allclose(stages[0].x0, stages[1].x0, rtol=1e-9)
    assert not plans[0].same_method(plans[1], 1e-6)


def test_lower_order_final_is_a_number_of_steps():
    """15, as in diffusers: a run of 14 steps ends in first order, one of 15 does not."""
    for steps, reach in ((14, 1), (15, 2)):
        assert len(plan_of("dpmpp", steps, end="sigma_min", lower_order_final=15).stages[-1].x0) == reach
    assert len(plan_of("dpmpp", 15, end="sigma_min", lower_order_final=True).stages[-1].x0) == 1
    assert len(plan_of("dpmpp", 14, end="sigma_min", lower_order_final=False).stages[-1].x0) == 2


def test_churn_draws_only_where_it_churns():
    plan = plan_of("euler", 12, s_churn=3.0, s_tmin=0.5, s_tmax=5.0)
    churned = [stage for stage in plan.stages if stage.draws]
    plain = plan_of("euler", 12)
    inside = [stage for stage in plain.stages if 0.5 <= stage.level.ratio <= 5.0]
    assert 0 < len(churned) == len(inside) < 12
    assert all(c.level.ratio == pytest.approx(1.25 * p.level.ratio) for c, p in zip(churned, inside, strict=True))
    assert registry.capabilities({"solver": "euler", "s_churn": 3.0}, 12).stochastic
    assert not registry.capabilities("euler", 12).stochastic


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_refuses_what_is_infinite(order):
    with pytest.raises(ValueError, match=r"sigma 0 .* lower_order_final=true or .* sigma_min"):
        plan_of("unipc", order=order, lower_order_final=False)
    assert plan_of("unipc", order=order, lower_order_final=False, end="sigma_min").nfe == 12


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"solver": "dpmpp", "order": 4}, "order=4 .* valid: 1, 2, 3"),
        ({"solver": "dpmpp", "solver_type": "mid"}, "valid: midpoint, heun"),
        ({"solver": "dpmpp", "lower_order_final": -1}, "number of steps"),
        ({"solver": "unipc", "order": 0}, "valid: 1 to"),
        ({"solver": "unipc", "variant": "bh3"}, "valid: bh1, bh2, vary_coeff"),
        ({"solver": "ddim", "eta": 1.5}, "between 0"),
        ({"solver": "euler", "s_churn": -1}, "negative"),
        ({"solver": "plms", "warmup": True}, "valid: repeat, prk"),
        ({"name": "ddim", "solver": "ddim", "etta": 0}, "no knob 'etta': did you mean 'eta'"),
        ({"solver": "os"}, "unknown solver 'os'"),
        ({"solver": "registry"}, "unknown solver"),
        ({"solver": "../euler"}, "unknown solver"),
    ],
)
def test_bad_knobs_get_one_clear_line(sampler, message):
    with pytest.raises(ValueError, match=message) as error:
        registry.build_plan(sampler, schedules.build("karras", PROCESS, 5))
    assert "\n" not in str(error.value)


def test_unknown_sampler_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"did you mean 'dpmpp'.* valid: .*ddim.*unipc"):
        registry.load("dpmp")


def plain(knobs):
    return json.loads(json.dumps(knobs))


@pytest.mark.parametrize("name", registry.names())
def test_yaml_shows_every_knob_with_a_comment(name):
    sampler = registry.load(name)
    assert sampler["name"] == name and sampler["default_schedule"] in schedules.names()
    assert registry.knobs(name) == {k: v for k, v in sampler.items() if k in registry.knobs(name)}
    assert set(sampler) - {"few_calls"} == {*registry.NOT_KNOBS, *registry.knobs(name)} - {"few_calls"}
    if name == sampler["solver"]:  # the solver's own YAML says its defaults
        assert plain(registry.knobs(name)) == plain(registry.knobs({"solver": name}))
    lines = (registry.CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        if line.split(":")[0] in registry.knobs(name):
            assert before.startswith("# "), line


def test_planning_needs_no_torch():
    code = """
import sys
from samplers import registry, schedules
from samplers.core.levels import DiscreteVP
for name in registry.names():
    sampler = registry.load(name)
    if registry.is_adaptive(sampler) or name == "learned":  # chosen by a model, tests/test_learn.py
        continue
    registry.build_plan(sampler, schedules.build(sampler["default_schedule"], DiscreteVP.scaled_linear(), 5))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=registry.CONF.parents[1])


def test_a_plan_prints_and_refuses_nonsense():
    text = str(plan_of("unipc", 3))
    assert len(text.splitlines()) == 4 and "D[-1]" in text
    level = Level(1.0, 1.0, 0.0)
    for stage in (Stage(level, level, (float("nan"),), (1.0,)), Stage(level, level, (1.0,), (1.0, 2.0))):
        with pytest.raises(ValueError, match="stage 0"):
            Plan(level, (stage,), Capabilities(1, 1))
