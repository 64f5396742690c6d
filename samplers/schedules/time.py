"""Schedules that space the model's time: its trained timesteps, 0 … T−1 (1 … T−1 of a rectified flow)."""

from __future__ import annotations

import numpy as np

from samplers.core.levels import NoiseLevels, Process
from samplers.schedules.ramp import (
    above,
    checked,
    from_ratios,
    from_times,
    one_of,
    ramp,
    rounded,
    spare,
    truncated,
)


def normal(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """Uniform in the model's time, log σ interpolated between timesteps: the "normal" of k-diffusion's interfaces."""
    return _before_end(process, process.time_max + ramp(steps, end) * (process.time_min - process.time_max), end)


def sgm_uniform(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """N+1 times, uniform, of which the lowest is the end and not evaluated: the spacing of Stability's own samplers."""
    times = np.linspace(process.time_max, process.time_min, checked(steps) + 1)
    return from_times(process, times[:-1], end)


def time_uniform(process: Process, steps: int, *, end: str = "sigma_min") -> NoiseLevels:
    """Uniform in time: DPM-Solver's (2206.00927), that is `normal` with its end at the lowest trained level."""
    return normal(process, steps, end=end)


def time_quadratic(process: Process, steps: int, *, end: str = "sigma_min") -> NoiseLevels:
    """Uniform in √t, t = (timestep + 1)/T: DPM-Solver's (2206.00927), after the quadratic one of 2010.02502."""
    shift = 1 - process.time_min
    low, high = np.sqrt(process.time_min + shift), np.sqrt(process.time_max + shift)
    return _before_end(process, (high + ramp(steps, end) * (low - high)) ** 2 - shift, end)


def simple(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """Every T/N-th trained level from the noisiest down: σ[−(1 + ⌊iT/N⌋)]."""
    return from_times(process, process.train_steps - 1 - np.arange(checked(steps)) * process.train_steps // steps, end)


def ddim_uniform(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """σ[1 + i·⌊T/N⌋]: multiples of the stride from the second-lowest trained level up.

    ComfyUI's and stable-diffusion-webui's, which make a step or more too many where N does not divide T. Here N is
    kept: the noisiest of those levels are left out.
    """
    stride = process.train_steps // checked(steps)
    times = process.time_min + 1 + stride * np.arange(steps)[::-1]
    if stride < 1 or times[0] > process.time_max:
        raise ValueError(
            f"the ddim_uniform schedule of {steps} steps leaves the {process.train_steps} trained timesteps: take fewer"
        )
    return from_times(process, times, end)


def linspace(
    process: Process, steps: int, *, points: str = "steps", end: str = "zero", rounding: str = "none"
) -> NoiseLevels:
    """Timesteps T−1 … 0, evenly (2305.08891, table 2).

    `points="steps"` puts the last evaluation at timestep 0 (diffusers' Euler), "steps_plus_one" leaves timestep 0 to
    the end (diffusers' DPM-Solver family). With `rounding="diffusers"` the first interpolates σ linearly, as its Euler
    does, and the second rounds the timesteps.
    """
    matched = one_of("rounding", rounding, ("none", "diffusers")) == "diffusers"
    left_out = spare(points)
    intervals = checked(steps) if end == "sigma_min" else steps - 1 + left_out
    fractions = np.linspace(1, 0, intervals + 1)[:steps]
    if matched and intervals == 0:
        fractions = np.zeros(1)  # diffusers' Euler takes its only step from timestep 0
    times = process.time_min + (process.time_max - process.time_min) * fractions
    if matched and not left_out:
        trained = process.time_min + np.arange(len(process.table))
        return from_times(process, times, end, np.interp(times, trained, process.table))
    return from_times(process, np.round(times) if matched else times, end)


def leading(
    process: Process, steps: int, *, offset: int = 1, points: str = "steps", end: str = "sigma_min"
) -> NoiseLevels:
    """Multiples of ⌊T/N⌋ (or ⌊T/(N+1)⌋ without the lowest, `points="steps_plus_one"`), raised by `offset`.

    What Stable Diffusion's DDIM and PLMS use (2305.08891, table 2); it never visits the noisiest timesteps.
    """
    count = checked(steps) + spare(points)
    stride = process.train_steps // count
    times = process.time_min + np.arange(count)[::-1][:steps] * float(stride) + offset
    if stride < 1 or times[0] > process.time_max or times[-1] < process.time_min:
        raise ValueError(
            f"the leading schedule of {steps} steps with offset {offset} leaves the {process.train_steps} trained "
            "timesteps: take fewer steps or another offset"
        )
    return from_times(process, times, end)


def trailing(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """round(T − i·T/N) − 1: always visits the noisiest timestep (2305.08891, table 2)."""
    stride = process.train_steps / checked(steps)
    times = np.round(process.train_steps - stride * np.arange(steps)) - 1
    return from_times(process, times, end)


def beta(
    process: Process,
    steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    of: str = "time",
    end: str = "zero",
    rounding: str = "none",
) -> NoiseLevels:
    """Quantiles of a Beta(α, β) distribution: most steps where noise is highest and lowest (2407.12173).

    `of="time"`: over timesteps, N+1 of them with the lowest left to the end, as in the paper and in ComfyUI;
    `rounding="comfyui"` takes the nearest whole timesteps, as that does. `of="sigma"`: over [σmin, σmax] with the last
    evaluation at σmin, as diffusers has it, whose truncated times are `rounding="diffusers"`.
    """
    from scipy.special import betaincinv  # not at the top: other schedules need not wait for it

    shape = above("alpha", alpha), above("beta", beta)
    if one_of("of", of, ("time", "sigma")) == "sigma":
        quantiles = betaincinv(*shape, 1 - ramp(steps, end))
        low, high = process.noise(np.array([process.ratio_min, process.ratio_max]))
        ratios = process.ratio_of_noise(low + quantiles * (high - low))
        return from_ratios(process, ratios, end, rounded(rounding, truncated))
    quantiles = betaincinv(*shape, np.linspace(1, 0, checked(steps) + 1)[:-1])
    times = quantiles * (process.time_max - process.time_min)
    if one_of("rounding", rounding, ("none", "comfyui")) == "comfyui":
        times = np.rint(times)
    return from_times(process, process.time_min + times, end)


def _before_end(process: Process, times: np.ndarray, end: str) -> NoiseLevels:
    """Levels at these times, the last of which is the end itself where that is σmin."""
    return from_times(process, times if end == "zero" else times[:-1], end)
