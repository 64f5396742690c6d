"""Schedules that space the noise-to-signal ratio σ/α by a formula: the σ of Karras et al., whatever scales the state.

u runs from 0 to 1 over the chosen levels; σmax and σmin are the ends of the model's trained range.
"""

from __future__ import annotations

import numpy as np

from samplers.core.levels import NoiseLevels, Process
from samplers.schedules.ramp import above, chosen, from_ratios, ramp, rounded, truncated


def karras(process: Process, steps: int, *, rho: float = 7.0, end: str = "zero", rounding: str = "none") -> NoiseLevels:
    """σ = (σmax^{1/ρ} + u(σmin^{1/ρ} − σmax^{1/ρ}))^ρ (2206.00364, eq. 5)."""
    if not rho > 0:
        raise ValueError(f"rho={rho} of the karras schedule must be above 0 (the paper's is 7)")
    u = ramp(steps, end)
    ratios = (process.ratio_max ** (1 / rho) * (1 - u) + process.ratio_min ** (1 / rho) * u) ** rho
    return from_ratios(process, ratios, end, rounded(rounding, np.round))


def exponential(process: Process, steps: int, *, end: str = "zero", rounding: str = "none") -> NoiseLevels:
    """Uniform in log σ, that is in log SNR (2206.00927)."""
    return from_ratios(process, _log_range(process, ramp(steps, end)), end, rounded(rounding, truncated))


def logsnr(process: Process, steps: int, *, end: str = "sigma_min") -> NoiseLevels:
    """`exponential` under the name and with the end that DPM-Solver gives it (2206.00927)."""
    return exponential(process, steps, end=end)


def polyexponential(process: Process, steps: int, *, rho: float = 1.0, end: str = "zero") -> NoiseLevels:
    """log σ = ln σmin + w^ρ (ln σmax − ln σmin), w = 1 − u: k-diffusion's; ρ = 1 is `exponential`."""
    return from_ratios(process, _log_range(process, 1 - (1 - ramp(steps, end)) ** above("rho", rho)), end)


def vp(
    process: Process,
    steps: int,
    *,
    beta_d: float | None = None,
    beta_min: float | None = None,
    eps_s: float = 1e-3,
    end: str = "zero",
) -> NoiseLevels:
    """σ = √(exp(βd t²/2 + βmin t) − 1), t from 1 to ε_s: a VP process (2206.00364, table 1).

    Where βd and βmin are null they are such that t = 1 and ε_s give σmax and σmin. With numbers the levels are what the
    formula gives (k-diffusion's 19.9 and 0.1 span 152 to 0.0100), inside the trained range or not.
    """
    if (beta_d is None) != (beta_min is None):
        raise ValueError("the vp schedule needs beta_d and beta_min, or neither")
    if not above("eps_s", eps_s) < 1:
        raise ValueError(f"eps_s={eps_s} of the vp schedule is its last t, which begins at 1: give less than 1")
    if beta_d is None or beta_min is None:
        low, high = (float(np.log1p(ratio**2)) for ratio in (process.ratio_min, process.ratio_max))
        beta_d = 2 * (low / eps_s - high) / (eps_s - 1)
        beta_min = high - beta_d / 2
    t = 1 + ramp(steps, end) * (eps_s - 1)
    return from_ratios(process, np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t)), end)


def lu_lambdas(
    process: Process, steps: int, *, rho: float = 1.0, end: str = "zero", rounding: str = "none"
) -> NoiseLevels:
    """Uniform in |λ|^{1/ρ} with the sign of λ = log(α/σ): diffusers' `use_lu_lambdas`, which has ρ = 1 (2211.01095).

    ρ = 1 is `exponential`; larger ρ puts more levels round λ = 0, where signal and noise are alike.
    """
    u, root = ramp(steps, end), 1 / above("rho", rho)
    first, last = _signed_power(np.log([process.ratio_max, process.ratio_min]), root)
    ratios = np.exp(_signed_power(first * (1 - u) + last * u, rho))
    return from_ratios(process, ratios, end, rounded(rounding, np.round))


def kl_optimal(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """σ = tan(u·atan σmin + (1 − u)·atan σmax): least KL bound for Gaussian data (2404.14507)."""
    u = ramp(steps, end)
    ratios = np.tan(u * np.arctan(process.ratio_min) + (1 - u) * np.arctan(process.ratio_max))
    return from_ratios(process, ratios, end)


def linear_quadratic(
    process: Process,
    steps: int,
    *,
    threshold_noise: float = 0.025,
    linear_steps: int | None = None,
    end: str = "zero",
) -> NoiseLevels:
    """1 − s, s from 0 to 1: linear to `threshold_noise` in `linear_steps`, then quadratic with the same slope there.

    Made for flow models at few steps (2410.13720, Movie Gen). It is laid over what the process calls its noise: t of a
    rectified flow, k-diffusion's σ elsewhere. Half the steps are linear where `linear_steps` is null.
    """
    to_zero = chosen(steps, end) == steps
    linear = max(1, steps // 2) if linear_steps is None else linear_steps
    if not (1 <= linear < max(steps, 2) and 0 < threshold_noise < 1):
        raise ValueError(
            f"linear_quadratic needs 1 ≤ linear_steps < steps and 0 < threshold_noise < 1, not linear_steps={linear} "
            f"of {steps} and {threshold_noise}"
        )
    slope, rest = threshold_noise / linear, steps - linear
    s = slope * np.arange(steps + 1.0)
    bend = 1 - threshold_noise - slope * rest  # what the quadratic term must add to arrive at 1
    s[linear:] += bend * (np.arange(rest + 1) / max(rest, 1)) ** 2
    s[-1] = 1.0
    low, high = process.noise(np.array([process.ratio_min, process.ratio_max]))
    ratios = process.ratio_of_noise((high if to_zero else high - low) * (1 - s) + (0.0 if to_zero else low))
    return from_ratios(process, ratios[:steps] if to_zero else ratios, end)


def _log_range(process: Process, u: np.ndarray) -> np.ndarray:
    return np.exp(np.log(process.ratio_max) * (1 - u) + np.log(process.ratio_min) * u)


def _signed_power(x: np.ndarray, power: float) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** power
