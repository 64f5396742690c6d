"""The order conditions of every plan agree with what its sampler declares, without a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from samplers import registry, schedules
from samplers.conditions import convergence, exact_degree, residuals
from samplers.core.levels import DiscreteVP

VE = DiscreteVP.scaled_linear().ve()
FEW = (96, 192, 384)
MANY = (194, 386, 770)  # a remainder of 2 by 3, with which dpm_fast has its order at the end as well
HERE = {"ipndm_v": 3}  # declares 2: its published weights are wrong for steps that are neither equal nor geometric
DETERMINISTIC = {"eta": 0.0, "tau": 0.0, "s_churn": 0.0}


def builder(sampler, process=VE, schedule="exponential"):
    def build(steps):
        levels = schedules.build(schedule, process, steps, end="sigma_min")
        return levels, registry.build_plan(sampler, levels)

    return build


def deterministic(name):
    """The sampler of the YAML with its noise turned off, or None where it has none to turn off."""
    sampler = registry.load(name)
    if registry.is_adaptive(sampler) or registry.has_own_levels(sampler):
        return None
    sampler |= {knob: value for knob, value in DETERMINISTIC.items() if knob in sampler}
    return None if registry.capabilities(sampler, 10).stochastic else sampler


SAMPLERS = [pytest.param(s, id=name) for name in registry.names() if (s := deterministic(name)) is not None]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_order_is_the_declared_one(sampler):
    order = HERE.get(sampler["name"], registry.capabilities(sampler, MANY[-1]).order)
    found = convergence(builder(sampler), MANY)
    assert found.order == pytest.approx(order, abs=0.2), found.by_condition
    assert math.isclose(found.order, min(found.by_condition.values()))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ({"solver": "dpmpp", "order": 1}, 1),
        ({"solver": "dpmpp", "order": 2}, 2),
        ({"solver": "dpmpp", "order": 3}, 2),  # as published
        ({"solver": "dpmpp", "order": 3, "exact": True}, 3),
        *[({"solver": "unipc", "order": p, "variant": v}, p + 1) for p in (1, 2, 3) for v in ("bh1", "bh2")],
        *[({"solver": "unipc", "order": p}, p + 1) for p in (4, 5)],
        ({"solver": "unipc", "order": 2, "corrector": False}, 2),
        ({"solver": "ddim"}, 1),
    ],
)
def test_known_orders(sampler, order):
    assert convergence(builder(sampler)).order == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("process", [DiscreteVP.scaled_linear(), VE], ids=["vp", "ve"])
def test_the_scaling_of_the_state_is_of_no_account(process):
    errors = convergence(builder({"solver": "unipc"}, process), FEW).errors
    assert np.allclose(errors, convergence(builder({"solver": "unipc"}), FEW).errors, rtol=1e-6, atol=1e-12)


def test_a_published_sign_error_is_found():
    """Of diffusers' third-order SDE solver, put into 3M: the factor of D2 ends in −1/2 where +1/2 belongs."""

    def build(steps):
        levels, plan = builder({"solver": "dpmpp", "order": 3, "exact": True})(steps)
        stages = list(plan.stages)
        for k in range(2, steps):
            lam = [levels[j].lam for j in (k + 1, k, k - 1, k - 2)]
            h = lam[0] - lam[1]
            r0, r1 = (lam[1] - lam[2]) / h, (lam[2] - lam[3]) / h
            d2 = np.array([1 / r0, -1 / r0 - 1 / r1, 1 / r1]) / (r0 + r1)
            wrong = np.array(stages[k].x0) - levels[k + 1].alpha * d2
            stages[k] = replace(stages[k], x0=tuple(wrong))
        return levels, replace(plan, stages=tuple(stages))

    assert convergence(build, FEW).order < 1.3


def test_exact_degrees():
    def degree(clock, **sampler):
        return exact_degree(*builder(sampler)(48), clock)

    assert degree("lambda", solver="euler") == 0
    assert degree("lambda", solver="dpmpp", solver_type="heun") == 1
    assert degree("lambda", solver="dpmpp", solver_type="midpoint") == 0  # D1/2 in place of its exact integral
    assert degree("lambda", solver="dpmpp", order=3) == 1
    assert degree("lambda", solver="dpmpp", order=3, exact=True) == 2
    assert degree("lambda", solver="unipc", order=3, corrector=False) == 2
    assert degree("ratio", solver="euler") == 0
    assert degree("ratio", **registry.load("lms")) == 3


def test_residuals_show_the_start_up_and_the_lowered_end():
    sampler = {"solver": "dpmpp", "order": 3, "exact": True, "lower_order_final": True}
    missed = residuals(*builder(sampler)(20))
    assert missed.shape[0] == 20
    quadratic = missed[:, 1]  # exact in the steps of third order, to rounding
    assert (quadratic[2:-2] < 1e-13).all() and (quadratic[[0, 1, -2, -1]] > 1e-6).all()
    zero = residuals(schedules.build("karras", VE, 6), registry.build_plan(sampler, schedules.build("karras", VE, 6)))
    assert np.isnan(zero[-1]).all() and np.isfinite(zero[:-1]).all()


def test_what_has_no_order_says_so():
    with pytest.raises(ValueError, match="draws noise"):
        convergence(builder({"solver": "ddim", "eta": 1.0}), FEW)
    with pytest.raises(ValueError, match="too short"):
        exact_degree(*builder({"solver": "dpmpp"})(1))
    with pytest.raises(ValueError, match="valid: lambda, ratio"):
        exact_degree(*builder({"solver": "dpmpp"})(8), "time")
