"""A model whose denoiser is known: five Gaussians in the plane, and the exact path of their probability-flow ODE."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.integrate import solve_ivp

from samplers.core.levels import DiscreteVP

MEANS = torch.tensor([[1.2, 0.3], [-0.9, 1.0], [-0.4, -1.3], [0.8, -0.9], [0.0, 0.2]], dtype=torch.float64)
VARIANCES = torch.tensor([0.35, 0.45, 0.30, 0.40, 0.50], dtype=torch.float64) ** 2
WEIGHTS = torch.tensor([0.25, 0.20, 0.20, 0.20, 0.15], dtype=torch.float64)
PROCESS = DiscreteVP.scaled_linear()


def posterior_mean(x, sigma):
    """E[x0 | x0 + σ·n = x], exactly."""
    means, variances, weights = (each.to(x.dtype) for each in (MEANS, VARIANCES, WEIGHTS))
    total = variances + sigma**2
    offset = x[:, None, :] - means
    log_weight = torch.log(weights) - torch.log(total) - offset.square().sum(-1) / (2 * total)
    weight = torch.softmax(log_weight, 1)[..., None]
    return (weight * (means + (variances / total)[:, None] * offset)).sum(1)


def denoiser(x, level):
    if level.alpha == 0:  # pure noise says nothing about x0
        return (WEIGHTS[:, None] * MEANS).sum(0).to(x.dtype).expand_as(x)
    return posterior_mean(x / level.alpha, level.ratio)


@functools.cache
def starts():
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@functools.cache
def flow(ratio):
    """x/α at this ratio: dx/d log σ = x − E[x0 | x], solved from σmax."""

    def slope(log_sigma, flat):
        x = torch.from_numpy(flat).view(64, 2)
        return (x - posterior_mean(x, float(np.exp(log_sigma)))).view(-1).numpy()

    begin = (starts() * PROCESS.ratio_max).view(-1).numpy()
    span = np.log([PROCESS.ratio_max, ratio])
    solved = solve_ivp(slope, span, begin, method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(solved.y[:, -1]).view(64, 2)
