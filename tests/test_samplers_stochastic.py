"""Samplers that draw noise: the law of what comes out, which of them are one method, what they draw, and on which path.

For Gaussian data N(m, s²) the denoiser is linear, so mean and variance of the result follow from the plan's influence
without a single sample.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from samplers import registry, schedules
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, NoiseLevels, RectifiedFlow
from samplers.core.noise import KINDS, BrownianStreams, NoiseStreams

VP = DiscreteVP.scaled_linear()
VE = VP.ve()
FLOW = RectifiedFlow()
MEAN = 0.7
SHAPE = (2, 3)
CONSISTENCY = {"lcm", "tcd"}  # no law to converge to on a model that is not distilled
NOISY = {"eta": 1.0, "tau": 1.0}  # knobs that turn noise on where the default is off
# beside the values in the YAML
VARIATIONS = {
    "ddpm": [{"variance": "fixed_large"}],
    "euler_a": [{"eta": 0.5}, {"clock": "flow"}],
    "dpm2_a": [{"eta": 0.5}, {"clock": "flow"}],
    "dpmpp_2s_a": [{"eta": 0.5}, {"clock": "flow"}],
    "dpmpp_sde": [{"eta": 0.5}, {"r": 1.0}],
    "dpmpp_2m_sde": [{"eta": 0.5}, {"solver_type": "heun"}, {"order": 1}, {"lower_order_final": True}],
    "dpmpp_3m_sde": [{"eta": 0.5}, {"exact": True}],
    "sa_solver": [
        {"tau": 0.5},
        {"simple_order_2": False},
        {"predictor_order": 3, "corrector_order": 4},
        {"predictor_order": 3, "corrector_order": 4, "mode": "pece"},
        {"predictor_order": 1, "corrector_order": 0},
        {"predictor_order": 1, "corrector_order": 1},
        {"s_tmin": 0.3, "s_tmax": 6.0},
        {"lower_order_final": False},
    ],
    "er_sde": [{"points": 0}, *({"noise_scale": name, "points": 0} for name in ("ode", "sde", "er_1", "er_2", "er_3"))],
    "seeds_2": [{"eta": 0.5}, {"solver_type": "phi_2"}, {"r": 1.0}],
    "seeds_3": [{"eta": 0.5}, {"r_1": 0.5, "r_2": 1.0}],
    "restart": [{"method": "euler"}, {"clock": "flow"}, {"intervals": [[3, 2, 0.06, 0.3], [4, 1, 0.5, 4.0]]}],
    "tcd": [{"eta": 1.0}, {"rounding": "diffusers"}],
    "lcm": [{"sigma_data": 0.0}],
}


def cases():
    for name in registry.names():
        if registry.has_own_levels(name) or registry.is_adaptive(registry.load(name)):
            continue
        sampler = registry.load(name)
        on = {knob: value for knob, value in NOISY.items() if knob in sampler}
        if not registry.capabilities(sampler, 10).stochastic:
            sampler |= on
        if registry.capabilities(sampler, 10).stochastic:
            for knobs in [{}, *VARIATIONS.get(name, [])]:
                label = "-".join([name, *(f"{k}={v}" for k, v in knobs.items())])
                yield pytest.param({**sampler, **knobs}, id=label)


CASES = list(cases())
every_case = pytest.mark.parametrize("sampler", CASES)


def levels_of(steps, schedule="exponential", process=VP, end="sigma_min"):
    return schedules.build(schedule, process, steps, end=end)


def plan_of(name, steps=9, schedule="exponential", process=VP, end="sigma_min", **knobs):
    return registry.build_plan({**registry.load(name), **knobs}, levels_of(steps, schedule, process, end))


def law(plan, s, denoiser=None):
    """Mean and standard deviation of the result, in units of the clean data, from a start of the exact law.

    `denoiser(stage) -> (slope, constant)` of D = slope·X + constant; the posterior mean of N(MEAN, s²) where not given.
    """
    influence, n = plan.influence(), plan.nfe
    outputs = np.zeros((n, influence.shape[1] - n + 1))  # of (1, initial state, draws)

    def state(i):
        x = np.concatenate([[0.0], influence[i, :1], influence[i, 1 + n :]])
        return x + influence[i, 1 : 1 + i] @ outputs[:i]

    for i, stage in enumerate(plan.stages):
        alpha, sigma = stage.level.alpha, stage.level.sigma
        if denoiser is None:
            slope = s**2 * alpha / (alpha**2 * s**2 + sigma**2)
            constant = MEAN * (1 - slope * alpha)
        else:
            slope, constant = denoiser(stage)
        outputs[i] = slope * state(i)
        outputs[i, 0] += constant
    x, start, last = state(n), plan.start, plan.stages[-1].result
    variance = x[1] ** 2 * (start.alpha**2 * s**2 + start.sigma**2) + (x[2:] ** 2).sum()
    return (x[0] + x[1] * start.alpha * MEAN) / last.alpha, math.sqrt(variance) / last.alpha


def error(sampler, steps, s, process=VP):
    """Relative error of the standard deviation; the mean must be right whatever the steps: the method is affine."""
    levels = levels_of(steps, process=process)
    mean, deviation = law(registry.build_plan(sampler, levels), s)
    if sampler["name"] != "lcm":
        assert mean == pytest.approx(MEAN, abs=1e-11)
    return abs(deviation / math.hypot(s, levels[steps].ratio) - 1)


@every_case
@pytest.mark.parametrize("s", [0.1, 0.5, 2.0])
def test_the_law_converges_with_the_declared_order(sampler, s):
    """|error| = C·hᵖ(1 + O(h)): at 81 and 162 steps h is 0.08 and 0.04, so the slope lies within a few h of p.

    Order 2 is the most that is asked: a first step or an end of lower order leaves an h² behind, once.
    """
    if sampler["name"] in CONSISTENCY:
        pytest.skip("a consistency sampler")
    if sampler["name"] == "er_sde":
        sampler = {**sampler, "points": 0}  # the published Riemann sum leaves an error that no step count mends
    sizes = (243, 486) if sampler["name"] == "dpm_fast" else (81, 162)  # dpm_fast counts calls, three a step

    def at(n):
        loop = {"intervals": [[n // 2, 1, 0.1, 2.0]]} if sampler["name"] == "restart" else {}
        return error({**sampler, **loop}, n, s)

    coarse, fine = map(at, sizes)
    order = min(2, registry.capabilities(sampler, 81).order)
    unit = (math.log(VP.ratio_max / VP.ratio_min) / 162) ** order
    assert fine < unit
    if fine > 0.03 * unit:  # below, C nearly cancels for this s and the slope is that of the next term
        assert math.log2(coarse / fine) > order - 0.25


@pytest.mark.parametrize(
    "name", ["euler_a", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_2m_sde", "seeds_3", "sa_solver"]
)
def test_the_law_is_the_same_for_every_scaling_of_the_state(name):
    ratios = levels_of(11).ratio
    found = [
        law(registry.build_plan(registry.load(name), NoiseLevels.from_ratios(process, ratios)), 0.5)
        for process in (VP, VE, FLOW)
    ]
    assert np.allclose(found, found[0], rtol=1e-10)


@every_case
def test_few_steps_are_finite_and_every_state_has_its_level(sampler):
    """α of the state's level on a clean image, and σ of it in noise, for VP, VE and flow and from pure noise."""
    for case in itertools.product((VP, VE, FLOW), ("zero", "sigma_min"), (1, 2, 3)):
        _every_state_has_its_level(sampler, *case)


def _every_state_has_its_level(sampler, process, end, steps):
    levels = levels_of(steps, "karras", process, end)
    if process is FLOW:
        levels = NoiseLevels.from_ratios(process, [math.inf, *levels.ratio])
    plan = registry.build_plan(sampler, levels)
    influence, n = plan.influence(), plan.nfe
    assert np.isfinite(influence).all()
    if sampler.get("variance") == "fixed_large" or sampler.get("sigma_data", 0) > 0:
        return  # an upper bound of the variance; LCM's boundary condition, for which time 0 is a clean image
    for row, level in zip(influence[1:], [*(stage.level for stage in plan.stages[1:]), levels[-1]], strict=True):
        signal = row[0] * plan.start.alpha + row[1 : 1 + n].sum()
        assert signal == pytest.approx(level.alpha, abs=1e-9)
        if n > 1:
            spread = math.hypot(row[0] * plan.start.sigma, *row[1 + n :])
            assert spread == pytest.approx(level.sigma, abs=1e-9 * max(1, level.sigma))


def network(x, level):
    c = 1 / math.hypot(level.alpha, level.sigma)
    return torch.tanh(x * c + 0.2 * x.roll(1, -1) * c * level.sigma)


def run(sampler, indices=range(3), steps=5, dtype=torch.float32, kind="independent", start=0, end="zero"):
    streams = KINDS[kind](5, indices, SHAPE)
    plan = registry.build_plan(sampler, levels_of(steps, "karras", end=end).from_(start))
    counted = _Counted(streams)
    x = integrate(plan, network, streams.draw().to(dtype), counted)
    assert counted.draws == plan.draws
    return x


class _Counted:
    def __init__(self, streams):
        self.streams, self.draws = streams, 0

    def draw(self, above=None, below=None):
        self.draws += 1
        return self.streams.draw(above, below)


@every_case
def test_an_image_is_the_same_at_every_batch_size(sampler):
    many = run(sampler, range(64))
    assert torch.allclose(run(sampler, range(7)), many[:7], rtol=0, atol=1e-5)
    assert torch.allclose(run(sampler, [40]), many[40:41], rtol=0, atol=1e-5)
    assert not torch.allclose(many[0], many[1], atol=1e-2)


@every_case
def test_float32_follows_float64_and_img2img_starts_on_the_tail(sampler):
    for start in (0, 3):
        single, double = (run(sampler, steps=10, dtype=dtype, start=start) for dtype in (torch.float32, torch.float64))
        assert double.isfinite().all()
        assert float((single - double).abs().max() / double.abs().max()) < 5e-6


@every_case
def test_no_draw_where_nothing_is_added(sampler):
    for end in ("zero", "sigma_min"):
        plan = registry.build_plan(sampler, levels_of(6, "karras", end=end))
        for stage in plan.stages:
            assert stage.noise >= 0, end
            if stage.result.sigma == 0:
                assert stage.noise == 0, end
        for off in ({"eta": 0.0}, {"tau": 0.0}, {"s_noise": 0.0}):
            if set(off) <= set(sampler):
                quiet = {**sampler, **off}
                assert registry.build_plan(quiet, levels_of(6, "karras", end=end)).draws == 0, (end, off)
                assert not registry.capabilities(quiet, 6).stochastic, (end, off)


@pytest.mark.parametrize("name", [name for name in registry.names() if "s_noise" in registry.load(name)])
def test_s_noise_scales_the_noise_and_nothing_else(name):
    knobs = {"s_churn": 2.0} if "s_churn" in registry.load(name) else {}
    if registry.is_adaptive(registry.load(name)):
        pytest.skip("has no plan")
    one, other = (plan_of(name, s_noise=s, **knobs) for s in (1.0, 0.5))
    n = one.nfe
    assert np.allclose(one.influence()[-1, : 1 + n], other.influence()[-1, : 1 + n], atol=1e-12)
    assert np.allclose(one.influence()[-1, 1 + n :] / 2, other.influence()[-1, 1 + n :], atol=1e-12)


ORDER_2 = {"lower_order_final": False, "corrector_order": 0, "predictor_order": 2}
SAME = [  # pairs that are one method
    (("euler_a", {"eta": 0.0}), ("euler", {})),
    (("euler_a", {"eta": 0.0, "clock": "flow"}), ("euler", {})),
    (("euler_a", {"eta": 0.4}), ("ddim", {"eta": 0.4})),
    (("euler_a", {}), ("ddpm", {})),
    (("ddim", {"eta": 1.0}), ("ddpm", {})),
    (("dpmpp_2m_sde", {"order": 1}), ("ddpm", {})),
    (("er_sde", {"order": 1, "noise_scale": "sde"}), ("ddpm", {})),
    (("er_sde", {"order": 1, "noise_scale": "ode"}), ("euler", {})),
    (("er_sde", {"order": 1, "noise_scale": "er_2"}), ("dpmpp_2m_sde", {"order": 1, "eta": 0.5})),
    (("er_sde", {"order": 1, "noise_scale": "er_3"}), ("dpmpp_2m_sde", {"order": 1, "eta": 1.5})),
    (("sa_solver", {"predictor_order": 1, "corrector_order": 0}), ("ddpm", {})),
    (("sa_solver", {"predictor_order": 1, "corrector_order": 0, "tau": 0.0}), ("euler", {})),
    (("tcd", {"eta": 0.0}), ("ddim", {"eta": 0.0})),
    (("dpm2_a", {"eta": 0.0}), ("dpm2", {})),
    (("dpmpp_2s_a", {"eta": 0.0}), ("dpmpp_2s", {"lower_order_final": False})),
    (("dpmpp_sde", {"eta": 0.0}), ("dpmpp_2s", {"lower_order_final": False})),
    (("seeds_2", {"eta": 0.0}), ("dpmpp_2s", {"lower_order_final": False})),
    (
        ("seeds_2", {"eta": 0.0, "solver_type": "phi_2"}),
        ("dpmpp_2s", {"solver_type": "heun", "lower_order_final": False}),
    ),
    (("seeds_3", {"eta": 0.0}), ("dpmpp_3s", {"lower_order_final": False})),
    (("dpmpp_2m_sde", {"eta": 0.0}), ("dpmpp", {"lower_order_final": False})),
    (
        ("dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}),
        ("dpmpp", {"solver_type": "heun", "lower_order_final": False}),
    ),
    (("dpmpp_3m_sde", {"eta": 0.0}), ("dpmpp", {"order": 3, "solver_type": "heun", "lower_order_final": False})),
    (
        ("dpmpp_3m_sde", {"eta": 0.0, "exact": True}),
        ("dpmpp", {"order": 3, "solver_type": "heun", "exact": True, "lower_order_final": False}),
    ),
    (
        ("sa_solver", {**ORDER_2, "simple_order_2": False, "tau": 0.7}),
        ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.49}),
    ),
    (
        ("sa_solver", {**ORDER_2, "simple_order_2": False, "predictor_order": 3}),
        ("dpmpp_3m_sde", {"exact": True}),
    ),
    (
        ("sa_solver", {**ORDER_2, "tau": 0.0}),
        ("unipc", {"order": 2, "variant": "bh1", "corrector": False, "lower_order_final": False}),
    ),
    (
        ("sa_solver", {"predictor_order": 1, "corrector_order": 2, "tau": 0.0}),
        ("unipc", {"order": 1, "variant": "bh1", "lower_order_final": True}),
    ),
    *(
        (
            ("sa_solver", {"predictor_order": p, "corrector_order": p + 1, "simple_order_2": False, "tau": 0.0}),
            ("unipc", {"order": p, "variant": "vary_coeff", "lower_order_final": True}),
        )
        for p in (1, 2, 3)
    ),
    (("restart", {"intervals": []}), ("heun", {})),
    (("restart", {"intervals": [[4, 0, 0.1, 2.0]], "clock": "flow"}), ("heun", {"clock": "flow"})),
    (("restart", {"intervals": [], "method": "euler"}), ("euler", {})),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=lambda pair: "-".join(map(str, [pair[0], *pair[1].values()])))
@pytest.mark.parametrize("end", ["sigma_min", "zero"])
def test_these_are_one_method(one, other, end):
    if end == "zero" and "bh1" in other[1].values() and not other[1]["lower_order_final"]:
        pytest.skip("UniPC refuses what SA-Solver takes as a first-order step")
    for steps, process in ((1, VP), (7, VP), (7, FLOW)):
        plans = [plan_of(name, steps, process=process, end=end, **knobs) for name, knobs in (one, other)]
        assert plans[0].same_method(plans[1], 1e-9), (steps, str(plans[0]), str(plans[1]))


def test_euler_a_is_ddim_to_the_last_bit():
    assert plan_of("euler_a", eta=0.4) == plan_of("ddim", eta=0.4)
    assert plan_of("euler_a", eta=0.0) == plan_of("euler")


def test_neighbours_that_are_not_one_method():
    """SEEDS-2 and DPM++ SDE differ in how a step's two noises hang together, and in nothing else."""
    seeds, dpmpp = plan_of("seeds_2"), plan_of("dpmpp_sde")
    assert not seeds.same_method(dpmpp, 1e-3)
    n = seeds.nfe
    assert np.allclose(seeds.influence()[-1][: n + 1], dpmpp.influence()[-1][: n + 1], atol=1e-12)
    assert not plan_of("euler_a", eta=0.5).same_method(plan_of("dpmpp_2m_sde", order=1, eta=0.5), 1e-3)
    assert not plan_of("ddpm", variance="fixed_large").same_method(plan_of("ddpm"), 1e-3)


def test_consistency_samplers_meet_where_time_ends_in_a_clean_image():
    """γ = 1 goes to the model's lowest time, which on rectified flow is a clean image: TCD is LCM there."""
    assert plan_of("tcd", process=FLOW, eta=1.0).same_method(plan_of("lcm", process=FLOW, sigma_data=0.0))


def to_level(level, ratio, s):
    """(slope, constant) of the map that carries N(MEAN, s²) at a level along its ODE to the noise `ratio`, α = 1."""
    slope = math.hypot(s, ratio) / math.hypot(level.alpha * s, level.sigma)
    return slope, MEAN * (1 - slope * level.alpha)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("process", [VP, VE, FLOW])
def test_a_consistency_model_gives_the_exact_law_in_any_number_of_steps(steps, process):
    plan = plan_of("lcm", steps, process=process, sigma_data=0.0)
    mean, deviation = law(plan, 0.5, lambda stage: to_level(stage.level, 0.0, 0.5))
    assert (mean, deviation) == pytest.approx((MEAN, math.hypot(0.5, plan.stages[-1].result.ratio)), rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_trajectory_model_gives_the_exact_law_in_any_number_of_steps(steps, eta):
    """x0 such that the step a·x + b·x0 arrives where the trajectory has the noise that the step leaves, a·σ/α'."""

    def teacher(stage):
        a, b = stage.states[0], stage.x0[0]
        slope, constant = to_level(stage.level, a * stage.level.sigma / stage.result.alpha, 0.5)
        return (stage.result.alpha * slope - a) / b, stage.result.alpha * constant / b

    plan = plan_of("tcd", steps, eta=eta)
    assert law(plan, 0.5, teacher) == pytest.approx((MEAN, math.hypot(0.5, plan.stages[-1].result.ratio)), rel=1e-10)


def test_on_an_ordinary_model_consistency_sampling_stays_too_narrow():
    """One step gives the mean of the data; more steps widen, but each forgets what the state held."""
    one, *more = (law(plan_of("lcm", steps, sigma_data=0.0), 0.5)[1] for steps in (1, 4, 16, 64))
    assert one < 0.05
    assert all(0.2 < deviation < 0.45 for deviation in more)
    assert law(plan_of("tcd", 64), 0.5)[1] < law(plan_of("tcd", 64, eta=0.0), 0.5)[1] < 0.5


def test_the_boundary_condition_of_lcm():
    """At time 0 the state is its own clean image; a trained level above passes the model's answer."""
    levels = NoiseLevels.from_ratios(VP, [VP.ratio(5.0), VP.ratio(0.0), VP.ratio(0.0) / 2])
    plan = registry.build_plan({**registry.load("lcm"), "timestep_scaling": 10.0}, levels)
    last = plan.stages[1]
    assert last.states[0] == pytest.approx(last.result.alpha) and last.x0 == ()
    first = plan.stages[0]  # c_skip = 0.5²/(50² + 0.5²), c_out = 50/√(50² + 0.5²)
    assert first.states[0] == pytest.approx(first.result.alpha * 0.25 / 2500.25)
    assert first.x0[0] == pytest.approx(first.result.alpha * 50 / math.sqrt(2500.25))


def test_er_sde_as_published_carries_the_error_of_its_riemann_sum():
    exact, *sums = (law(plan_of("er_sde", 40, points=points), 0.5)[1] for points in (0, 100, 200, 400))
    errors = [abs(found - exact) for found in sums]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05) and errors[1] / errors[2] == pytest.approx(2, abs=0.05)


def test_er_sde_is_the_series_as_published():
    """The third stage written out with the slopes of x0 (eq. 21 of the paper in y = x/α), 200 points of 1/φ."""

    def phi(r):
        return r * (np.exp(r**0.3) + 10)

    r = levels_of(4, "karras", VE).ratio
    d = [1.3, 0.4, -0.2, 2.0]
    y, slopes = 5.0, [None]
    for k in range(4):
        here, there = r[k], r[k + 1]
        fall, step, kept = there - here, (here - there) / 200, phi(there) / phi(here)
        where = there + step * np.arange(200)
        y = kept * y + (1 - kept) * d[k]
        if k > 0:
            slopes.append((d[k] - d[k - 1]) / (here - r[k - 1]))
            y += (fall + (step / phi(where)).sum() * phi(there)) * slopes[k]
        if k > 1:
            bend = 2 * (slopes[k] - slopes[k - 1]) / (here - r[k - 2])
            y += (fall**2 / 2 + (step * (where - here) / phi(where)).sum() * phi(there)) * bend
    row = plan_of("er_sde", 4, "karras", VE).influence()[-1]
    assert row[0] * 5.0 + row[1:5] @ d == pytest.approx(y, rel=1e-12)


def test_restart_goes_up_by_noise_and_comes_down_again():
    levels = levels_of(12, "karras", end="zero")
    plan = registry.build_plan({**registry.load("restart"), "intervals": [[5, 3, 0.4, 2.0]]}, levels)
    ups = [(before, stage) for before, stage in itertools.pairwise(plan.stages) if stage.churn[1]]
    nearest = min(levels.ratio[1:-1], key=lambda r: abs(r - 0.4))
    assert len(ups) == plan.draws == 3
    for before, stage in ups:
        assert before.result.ratio == pytest.approx(nearest) and stage.level.ratio == pytest.approx(2.0)
    assert plan.nfe == 2 * 12 - 1 + 3 * 2 * 4
    tail = registry.build_plan({**registry.load("restart"), "intervals": [[5, 1, 0.4, 2.0]]}, levels.from_(6))
    assert max(stage.level.ratio for stage in tail.stages) <= levels[6].ratio * (1 + 1e-9)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"solver": "ancestral", "method": "heun"}, "valid: euler, dpm2, dpmpp_2s"),
        ({"solver": "ancestral", "eta": -1.0}, "not be negative"),
        ({"solver": "ancestral", "clock": "time"}, "valid: sigma, flow"),
        ({"solver": "ddpm", "variance": "learned"}, "valid: fixed_small, fixed_large"),
        ({"solver": "dpmpp_sde", "r": 0.0}, "above 0"),
        ({"solver": "dpmpp_sde", "s_noise": -1.0}, "not be negative"),
        ({"solver": "dpmpp_m_sde", "order": 4}, "valid: 1, 2, 3"),
        ({"solver": "dpmpp_m_sde", "solver_type": "mid"}, "valid: midpoint, heun"),
        ({"solver": "dpmpp_m_sde", "eta": -0.5}, "not be negative"),
        ({"solver": "sa_solver", "predictor_order": 5}, "valid: 1 to 4"),
        ({"solver": "sa_solver", "corrector_order": True}, "valid: 0 to 4"),
        ({"solver": "sa_solver", "mode": "PC"}, "valid: pec, pece"),
        ({"solver": "sa_solver", "tau": -1}, "not be negative"),
        ({"solver": "er_sde", "noise_scale": "er_4"}, "valid: ode, sde"),
        ({"solver": "er_sde", "points": -1}, "number of points"),
        ({"solver": "er_sde", "order": 0}, "valid: 1, 2, 3"),
        ({"solver": "seeds_2", "solver_type": "phi_3"}, "valid: phi_1, phi_2"),
        ({"solver": "seeds_2", "r": 2.0}, "at most at 1"),
        ({"solver": "seeds_3", "r_1": 0.7}, "must grow"),
        ({"solver": "restart", "intervals": [[1, 1, 0.1, 2.0]]}, "at least 2 levels"),
        ({"solver": "restart", "intervals": [3, 1, 0.1, 2.0]}, r"\[N, K, t_min, t_max\]"),
        ({"solver": "restart", "method": "dpm"}, "valid: heun, euler"),
        ({"solver": "lcm", "timestep_scaling": 0.0}, "above 0"),
        ({"solver": "tcd", "eta": 1.5}, "between 0"),
        ({"solver": "tcd", "rounding": True}, "valid: none, diffusers"),
    ],
)
def test_bad_knobs_get_one_clear_line(sampler, message):
    with pytest.raises(ValueError, match=message) as raised:
        registry.build_plan(sampler, levels_of(4))
    assert "\n" not in str(raised.value)


def streams(kind=BrownianStreams, indices=(3,), shape=(500,), seed=7):
    return kind(seed, list(indices), shape)


def test_increments_of_a_fine_grid_add_up_to_the_coarse_ones():
    for high, low in ((14.6, 9.0), (3.0, 0.03), (900.0, 0.002), (1.0, 0.5)):
        whole = streams().draw(high, low) * math.sqrt(high - low)
        for points in (np.geomspace(high, low, 6), np.linspace(high, low, 4)):
            path = streams()
            parts = sum(path.draw(a, b) * math.sqrt(a - b) for a, b in itertools.pairwise(points.tolist()))
            assert torch.allclose(parts, whole, rtol=0, atol=3e-5 * math.sqrt(high))


def test_increments_are_standard_normal_and_independent():
    points = [900.0, 14.6, 14.59, 8.3, 8.0, 2.0, 1.9, 0.4, 0.03, 0.02]
    path = streams(shape=(20_000,))
    rows = torch.stack([path.draw(a, b)[0] for a, b in itertools.pairwise(points)]).double()
    assert rows.mean(1).abs().max() < 5 / math.sqrt(20_000)
    assert (rows.var(1) - 1).abs().max() < 5 * math.sqrt(2 / 20_000)
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 5 / math.sqrt(20_000)
    assert ((rows**4).mean(1) - 3).abs().max() < 5 * math.sqrt(96 / 20_000)


def test_a_path_belongs_to_its_seed_and_image_alone():
    many = streams(indices=(5, 3, 8))
    first, second = many.draw(9.0, 3.0), many.draw(3.0, 0.7)
    alone = streams(indices=(3,))
    assert torch.equal(alone.draw(9.0, 3.0)[0], first[1]) and torch.equal(alone.draw(3.0, 0.7)[0], second[1])
    assert torch.equal(streams(indices=(5, 3, 8)).only(1).draw(9.0, 3.0)[0], first[1])
    others = torch.stack([*first, *second, streams(seed=8).draw(9.0, 3.0)[0]])
    assert (torch.corrcoef(others) - torch.eye(7)).abs().max() < 5 / math.sqrt(500)
    assert torch.equal(streams().draw(9.0, 3.0), streams().draw(9.0, 3.0))


def test_what_is_drawn_between_no_levels_is_independent_of_the_path():
    """The start, churn, an empty interval and one from pure noise are the draws of NoiseStreams, in their order."""
    path, plain = streams(), streams(NoiseStreams)
    assert torch.equal(path.draw(), plain.draw())
    along = path.draw(9.0, 3.0)
    assert torch.equal(path.draw(), plain.draw())
    assert torch.equal(path.draw(2.0, 2.0), plain.draw())
    assert torch.equal(path.draw(math.inf, 9.0), plain.draw())
    start = streams().draw()
    assert abs(float(torch.corrcoef(torch.stack([start[0], along[0]]))[0, 1])) < 5 / math.sqrt(500)


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "dpmpp_sde", "seeds_2"])
def test_on_one_path_more_steps_approach_one_image(sampler):
    """Strong convergence: the distance of N and 2N steps falls with h or faster; without a path it stays."""

    def final(steps, kind):
        noise = streams(kind)
        plan = plan_of(sampler, steps)
        x = noise.draw().double() * plan.start.sigma

        def denoise(x, level):
            return 0.5 * torch.tanh(x / math.hypot(level.alpha, level.sigma)) * level.alpha

        return integrate(plan, denoise, x, noise)

    def distances(kind):
        finals = [final(steps, kind) for steps in (8, 16, 32, 64)]
        return [float((a - b).square().mean().sqrt()) for a, b in itertools.pairwise(finals)]

    far, near, nearest = distances(BrownianStreams)
    assert far / near > 1.5 and near / nearest > 1.5
    assert distances(NoiseStreams)[-1] > 5 * nearest


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_batches_of_either_noise_agree(kind):
    for name in ("dpmpp_sde", "euler_a", "dpm2_a", "restart"):
        sampler = registry.load(name)
        many = run(sampler, range(7), steps=3, kind=kind)
        assert torch.allclose(run(sampler, [4], steps=3, kind=kind), many[4:5], rtol=0, atol=1e-5)


@every_case
def test_the_increments_of_a_run_are_one_path_without_a_gap(sampler):
    """A step of several calls draws over its whole way: what is drawn begins where the draw before ended."""
    levels = levels_of(6, "karras")
    drawn = [stage for stage in registry.build_plan(sampler, levels).stages if stage.noise]
    for one, other in itertools.pairwise(drawn):
        assert other.noise_from.ratio == pytest.approx(one.result.ratio, rel=1e-12, abs=0)
    bounded = sampler["solver"] == "sa_solver" and sampler["s_tmax"] < levels.ratio[0]
    assert not drawn or bounded or drawn[0].noise_from == levels[0]


@pytest.mark.parametrize("name", ["dpm2_a", "dpmpp_2s_a"])
def test_both_calls_of_an_ancestral_step_share_its_increment(name):
    """k-diffusion's step written out, with the path's increment from σ to σ', as its noise sampler is asked for it."""
    levels = levels_of(4, "karras", VE)
    x = expected = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 15
    for high, low in itertools.pairwise(levels.ratio.tolist()):
        up = low * math.sqrt(1 - (low / high) ** 2)
        down = math.sqrt(low**2 - up**2)
        middle = math.sqrt(high * down)
        first = network(expected, VE.level(high))
        half = middle / high * expected + (1 - middle / high) * first
        second = network(half, VE.level(middle))
        if name == "dpm2_a":
            expected = expected + (half - second) / middle * (down - high)
        else:
            expected = down / high * expected + (1 - down / high) * second
        expected = expected + up * streams(shape=SHAPE).draw(high, low).double()
    found = integrate(registry.build_plan(registry.load(name), levels), network, x, streams(shape=SHAPE))
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_both_halves_of_dpmpp_sde_see_one_path(eta):
    """k-diffusion's step written out, with the path's increments from σ to the middle and from σ to σ' themselves."""

    def increment(high, low):
        return streams(shape=SHAPE).draw(high, low).double()

    def down(high, low):
        up = eta * low * math.sqrt(1 - (low / high) ** 2)
        return math.sqrt(low**2 - up**2), up

    levels = levels_of(4, "karras", VE)
    x = expected = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 15
    for high, low in itertools.pairwise(levels.ratio.tolist()):
        middle = math.sqrt(high * low)
        first = network(expected, VE.level(high))
        to, up = down(high, middle)
        half = to / high * expected + (1 - to / high) * first + up * increment(high, middle)
        second = network(half, VE.level(middle))
        to, up = down(high, low)
        expected = to / high * expected + (1 - to / high) * second + up * increment(high, low)
    plan = registry.build_plan({**registry.load("dpmpp_sde"), "eta": eta}, levels)
    found = integrate(plan, network, x, streams(shape=SHAPE))
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)  # the path is float32 and known to 1e-6 of σ
