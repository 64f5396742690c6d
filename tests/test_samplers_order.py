"""Order of convergence, on a model whose denoiser is known: five Gaussians in the plane.

The probability-flow ODE from σmax to σmin is solved by DOP853 to high accuracy; a sampler's error against it must have
the size and the slope it is known for.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from samplers import registry, schedules
from samplers.integrate import integrate
from samplers.levels import DiscreteVP, NoiseLevels

MEANS = torch.tensor([[1.2, 0.3], [-0.9, 1.0], [-0.4, -1.3], [0.8, -0.9], [0.0, 0.2]], dtype=torch.float64)
VARIANCES = torch.tensor([0.35, 0.45, 0.30, 0.40, 0.50], dtype=torch.float64) ** 2
WEIGHTS = torch.tensor([0.25, 0.20, 0.20, 0.20, 0.15], dtype=torch.float64)
PROCESS = DiscreteVP.scaled_linear()

# error at 10, 20 and 40 denoiser calls, and the slope over 40 to 160
KNOWN = {
    "euler": ({}, (0.125, 6.4e-2, 3.2e-2), 1.00),
    "ddim": ({}, (0.125, 6.4e-2, 3.2e-2), 1.00),
    "dpmpp-1": ({"order": 1}, (0.125, 6.4e-2, 3.2e-2), 1.00),
    "dpmpp-2": ({"lower_order_final": False}, (2.3e-2, 5.6e-3, 1.4e-3), 2.02),
    "dpmpp-3": ({"order": 3}, (1.5e-2, 1.6e-3, 3.8e-4), 2.00),
    "unipc-2": ({}, (1.2e-2, 1.6e-3, 2.2e-4), 2.96),
    "unipc-3": ({"order": 3, "lower_order_final": False}, (6.2e-3, 5.2e-4, 3.6e-5), 3.81),
}


def posterior_mean(x, sigma):
    """E[x0 | x0 + σ·n = x], exactly."""
    total = VARIANCES + sigma**2
    offset = x[:, None, :] - MEANS
    log_weight = torch.log(WEIGHTS) - torch.log(total) - offset.square().sum(-1) / (2 * total)
    weight = torch.softmax(log_weight, 1)[..., None]
    return (weight * (MEANS + (VARIANCES / total)[:, None] * offset)).sum(1)


def denoiser(x, level):
    return posterior_mean(x / level.alpha, level.ratio)


@pytest.fixture(scope="module")
def problem():
    """The starts at σmax and where the exact flow takes them at σmin."""
    start = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * PROCESS.ratio_max
    exact = flow(start, PROCESS.ratio_min)
    assert float(exact.square().sum(1).mean().sqrt()) == pytest.approx(1.342, abs=1e-3)
    return start, exact


def flow(start, ratio):
    """dx/d log σ = x − E[x0 | x], solved from σmax to `ratio`."""

    def slope(log_sigma, flat):
        x = torch.from_numpy(flat).view(64, 2)
        return (x - posterior_mean(x, float(np.exp(log_sigma)))).view(-1).numpy()

    span = np.log([PROCESS.ratio_max, ratio])
    solved = solve_ivp(slope, span, start.view(-1).numpy(), method="DOP853", rtol=1e-11, atol=1e-11)
    return torch.from_numpy(solved.y[:, -1]).view(64, 2)


def error(sampler, knobs, process, steps, problem):
    start, exact = problem
    levels = schedules.build("exponential", process, steps, end="sigma_min")
    plan = registry.build_plan({"solver": sampler, **knobs}, levels)
    x = integrate(plan, denoiser, start * levels[0].alpha) / levels[-1].alpha
    return float((x - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", KNOWN)
def test_error_and_order_are_the_known_ones(name, problem):
    knobs, expected, order = KNOWN[name]
    errors = [error(name.split("-")[0], knobs, PROCESS.ve(), nfe, problem) for nfe in (10, 20, 40, 80, 160)]
    for found, known in zip(errors, expected, strict=False):
        digits = 0.5 * 10 ** (np.floor(np.log10(known)) - 1)
        assert found == pytest.approx(known, rel=0.02, abs=digits), errors  # 2 %, or what the table rounds away
    assert fitted(errors[2:]) == pytest.approx(order, abs=0.02), errors


@pytest.mark.parametrize("name", KNOWN)
def test_the_scaling_of_the_state_does_not_matter(name, problem):
    """DPM-Solver++ and UniPC step in log SNR alone: a variance-preserving state comes to the same result."""
    knobs, sampler = KNOWN[name][0], name.split("-")[0]
    one, other = (error(sampler, knobs, process, 20, problem) for process in (PROCESS, PROCESS.ve()))
    assert one == pytest.approx(other, rel=1e-9)


def fitted(errors, steps=(40, 80, 160)):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def test_exact_third_order_is_third_order(problem):
    """An Adams-like method of order 3 that starts with one step of order 1: 2.74 is what DEIS-3 has here, too."""
    knobs = {"order": 3, "lower_order_final": False, "exact": True}
    errors = [error("dpmpp", knobs, PROCESS.ve(), nfe, problem) for nfe in (40, 80, 160)]
    assert fitted(errors) == pytest.approx(2.74, abs=0.03), errors


@pytest.mark.parametrize("variant", ["bh1", "vary_coeff"])
def test_variants_of_unipc_have_its_order(variant, problem):
    errors = [error("unipc", {"variant": variant}, PROCESS.ve(), nfe, problem) for nfe in (40, 80, 160)]
    assert fitted(errors) == pytest.approx(3.0, abs=0.05), errors


@pytest.mark.parametrize("warmup", ["repeat", "prk"])
def test_plms_has_order_two(warmup, problem):
    """On the even timesteps that it assumes, down to timestep 100: nearer to 0 the model's clock is not smooth."""
    start, exact = problem[0], flow(problem[0], PROCESS.ratio(100))
    errors = []
    for steps in (40, 80, 160):
        times = np.linspace(PROCESS.train_steps - 1, 100, steps + 1)
        levels = NoiseLevels.from_ratios(PROCESS, PROCESS.ratio(times), times)
        x = integrate(
            registry.build_plan({"solver": "plms", "warmup": warmup}, levels), denoiser, start * levels[0].alpha
        )
        errors.append(float((x / levels[-1].alpha - exact).norm() / exact.norm()))
    assert fitted(errors) == pytest.approx(2.0, abs=0.05), errors
