"""The numbers that solver families share, against exact arithmetic; and which families turn out to be one method."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from samplers import registry, schedules
from samplers.core.levels import DiscreteVP, Level
from samplers.core.stage import first_order, is_lowered
from samplers.solvers.parts.coefficients import EPS, X0, adams, combined, divided, exponential, phis

PROCESS = DiscreteVP.scaled_linear()


def exact_phi(n, z):
    """φ_n by its series in rational numbers."""
    z, term = Fraction(z), Fraction(1, math.factorial(n))
    total = term
    for j in range(1, 120):
        term = term * z / (n + j)
        total += term
    return float(total)


@pytest.mark.parametrize("z", [1e-9, 0.05, 1.0, 1.999, 2.0, 5.0, 14.0])
def test_phi_functions_keep_their_digits(z):
    for sign in (-1, 1):
        exact = [exact_phi(n, sign * z) for n in range(1, 6)]
        assert phis(5, sign * z) == pytest.approx(exact, rel=2e-14, abs=0), sign
    assert phis(3, 0.0) == [1, 1 / 2, 1 / 6]
    assert phis(3, -math.inf) == [0, 0, 0]


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_adams_weights_integrate_polynomials_exactly(points):
    nodes = [3.0, 4.2, 6.0, 9.5][:points]
    for power in range(points):
        found = sum(w * node**power for w, node in zip(adams(nodes, 3.0, 1.9), nodes, strict=True))
        assert found == pytest.approx((1.9 ** (power + 1) - 3.0 ** (power + 1)) / (power + 1), rel=1e-13, abs=0)


@pytest.mark.parametrize("sign", [X0, EPS])
@pytest.mark.parametrize("r", [[], [-0.8], [-0.8, -2.1], [-0.8, -2.1, -3.0], [-0.8, 1.0]])
def test_exponential_weights_integrate_what_they_interpolate(sign, r):
    """h·∫₀¹ e^{±h(1−s)} (r_m's polynomial)(s) ds, by a quadrature fine enough."""
    h = 0.7
    at, weight = (np.polynomial.legendre.leggauss(24)[0] + 1) / 2, np.polynomial.legendre.leggauss(24)[1] / 2
    for power in range(1, len(r) + 1):
        found = sum(w * node**power for w, node in zip(exponential(r, h, sign), r, strict=True))
        exact = h * float((weight * np.exp(sign * h * (1 - at)) * at**power).sum())
        assert found == pytest.approx(exact, rel=1e-12, abs=0)


def test_published_differences_are_exact_up_to_the_factor():
    r = [0.9, 1.3]
    nodes = [-r[0], -r[0] - r[1]]
    assert divided(r, 0.6, X0, "heun", exact=True) == pytest.approx(exponential(nodes, 0.6, X0), rel=1e-12, abs=0)
    assert divided(r[:1], 0.6, EPS, "heun", exact=False) == pytest.approx(
        exponential(nodes[:1], 0.6, EPS), rel=1e-12, abs=0
    )
    assert divided(r, 0.6, X0, "heun", exact=False) != pytest.approx(exponential(nodes, 0.6, X0), rel=1e-2)


def test_combined_follows_the_line_of_fixed_noise():
    now, then = Level(0.1, 0.99, 900.0), Level(0.3, 0.95, 800.0)
    assert combined(then, [now]) == tuple((c,) for c in first_order(now, then))
    states, x0 = combined(then, [now, Level(0.05, 1.0, 950.0)], noise={1: 0.2}, x0={1: -0.4})
    eps, image = 0.3, -1.2  # of every call
    state = sum(a * (level[0] * image + level[1] * eps) for a, level in zip(states, (now, (0.05, 1.0)), strict=True))
    assert state + sum(x0) * image == pytest.approx(then.alpha * image + then.sigma * eps, abs=1e-14)


def test_lower_orders_at_the_end():
    to_zero, above = (schedules.build("karras", PROCESS, 12, end=end) for end in ("zero", "sigma_min"))
    assert is_lowered("zero", to_zero) is True and is_lowered("zero", above) is False
    assert is_lowered(13, above) and not is_lowered(12, above) and is_lowered(True, above)
    for bad in ("never", -1, 1.5, None):
        with pytest.raises(ValueError, match="true, false, zero or a number of steps"):
            is_lowered(bad, above)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"solver": "heun"}, {"solver": "dpm2", "r": 1.0}),
        ({"solver": "lms"}, {"solver": "deis", "order": 4, "deis_mode": "rhoab", "lower_order_final": False}),
        ({"solver": "lms", "order": 3}, {"solver": "ipndm_v", "max_order": 3, "exact": True}),
        ({"solver": "lms", "order": 2}, {"solver": "ipndm_v", "max_order": 2}),
        ({"solver": "gradient_estimation", "gamma": 1.0}, {"solver": "euler"}),
        ({"solver": "gradient_estimation", "gamma": 1.5}, {"solver": "ipndm", "max_order": 2}),
        ({"solver": "res_multistep"}, {"solver": "dpmpp", "solver_type": "heun", "lower_order_final": False}),
        (
            {"solver": "deis", "order": 2, "lower_order_final": False},
            {"solver": "dpm_multistep", "solver_type": "heun", "lower_order_final": False},
        ),
        (
            {"solver": "deis", "order": 3, "lower_order_final": False},
            {"solver": "dpm_multistep", "order": 3, "solver_type": "heun", "exact": True, "lower_order_final": False},
        ),
        (
            {"solver": "dpmpp", "order": 3, "solver_type": "heun", "exact": True, "lower_order_final": False},
            {"solver": "unipc", "order": 3, "corrector": False, "variant": "vary_coeff"},
        ),
    ],
    ids=lambda sampler: sampler["solver"],
)
def test_families_that_are_one_method(one, other):
    levels = schedules.build("karras", PROCESS, 12, end="sigma_min")
    plans = [registry.build_plan(sampler, levels) for sampler in (one, other)]
    assert plans[0].same_method(plans[1], 1e-11)


def test_nodes_inside_a_step_are_levels_twice_as_many():
    coarse, fine = (schedules.build("exponential", PROCESS, steps, end="sigma_min") for steps in (6, 12))
    inside = registry.build_plan({"solver": "dpmpp_single"}, coarse)
    between = registry.build_plan({"solver": "dpmpp_single", "nodes": "levels", "lower_order_final": False}, fine)
    assert inside.same_method(between, 1e-9)


def test_single_steps_are_diffusers_order_lists():
    """How many calls ago each step began, in the notation of its order lists: 1, 2, 3 is one step of order 3."""

    def orders(order, steps, lowers, end="sigma_min"):
        levels = schedules.build("karras", PROCESS, steps, end=end)
        sampler = {"solver": "dpmpp_single", "order": order, "nodes": "levels", "lower_order_final": lowers}
        return [max(1, len(stage.states)) for stage in registry.build_plan(sampler, levels).stages]

    assert orders(3, 6, True) == [1, 2, 3, 1, 2, 1] and orders(3, 6, False) == [1, 2, 3, 1, 2, 3]
    assert orders(3, 7, True) == [1, 2, 3, 1, 2, 3, 1] and orders(3, 8, True) == [1, 2, 3, 1, 2, 3, 1, 2]
    assert orders(3, 8, True, "zero") == [1, 2, 3, 1, 2, 3, 1, 1]
    assert orders(2, 6, True) == [1, 2, 1, 2, 1, 1] and orders(2, 7, True) == [1, 2, 1, 2, 1, 2, 1]


def test_dpm_fast_takes_only_the_ends():
    sampler = {"solver": "dpm_fast"}
    plans = [
        registry.build_plan(sampler, schedules.build(s, PROCESS, 11, end="sigma_min")) for s in ("karras", "normal")
    ]
    assert plans[0].same_method(plans[1], 1e-12) and plans[0].nfe == 11
    lengths = np.diff([stage.level.lam for stage in plans[0].stages])
    assert lengths[:9] == pytest.approx(lengths[0], rel=1e-9)  # thirds of equal steps
    assert plans[0].stages[-1].result.lam - plans[0].stages[9].level.lam == pytest.approx(3 * lengths[0], rel=1e-9)


def test_heun_depends_on_its_clock():
    levels = schedules.build("karras", PROCESS, 12, end="sigma_min")
    sigma, flow = (registry.build_plan({"solver": "heun", "clock": clock}, levels) for clock in ("sigma", "flow"))
    assert not sigma.same_method(flow, 1e-3)
    named = [registry.build_plan({**registry.load(name)}, levels) for name in ("heun", "flow_heun")]
    assert named == [sigma, flow]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"solver": "heun", "clock": "time"}, "valid: sigma, flow"),
        ({"solver": "heun", "s_tmin": -1.0}, "not be negative"),
        ({"solver": "dpm2", "r": 0.0}, "r=0.0 of dpm2"),
        ({"solver": "lms", "order": 5}, "valid: 1 to 4"),
        ({"solver": "ipndm", "max_order": 0}, "valid: 1 to 4"),
        ({"solver": "ipndm_v", "max_order": True}, "valid: 1 to 4"),
        ({"solver": "deis", "deis_mode": "log"}, "valid: logrho, rhoab, tab"),
        ({"solver": "deis", "order": 5}, "valid: 1 to 4"),
        ({"solver": "dpm_multistep", "order": 4}, "valid: 1, 2, 3"),
        ({"solver": "dpm_multistep", "solver_type": "taylor"}, "valid: midpoint, heun"),
        ({"solver": "dpmpp_single", "order": 1}, "valid: 2, 3"),
        ({"solver": "dpmpp_single", "nodes": "between"}, "valid: inside, levels"),
        ({"solver": "dpmpp_single", "solver_type": "phi_2"}, "valid: midpoint, heun"),
        ({"solver": "exp_heun", "solver_type": "phi_3"}, "valid: phi_1, phi_2"),
        ({"solver": "res_multistep", "eta": -1.0}, "not be negative"),
        ({"solver": "dpm_fast", "s_noise": -1.0}, "not be negative"),
    ],
)
def test_bad_knobs_get_one_clear_line(sampler, message):
    with pytest.raises(ValueError, match=message) as error:
        registry.build_plan(sampler, schedules.build("karras", PROCESS, 5))
    assert "\n" not in str(error.value)
