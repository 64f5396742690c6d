"""Schedules: pure functions that choose the N+1 noise levels of N steps.

`end` says what the last level is: "zero" (a clean state, by x0-prediction from the level before) or "sigma_min" (the
lowest level the model was trained at). `rounding` says what the model is told: "none" keeps time fractional and true to
σ; "diffusers" reproduces what the schedulers of diffusers tell their model while they step with another σ.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable

import numpy as np

from samplers.levels import NoiseLevels, Process


def karras(process: Process, steps: int, *, rho: float = 7.0, end: str = "zero", rounding: str = "none") -> NoiseLevels:
    """σ = (σmax^{1/ρ} + u(σmin^{1/ρ} − σmax^{1/ρ}))^ρ, u from 0 to 1 (2206.00364, eq. 5)."""
    if not rho > 0:
        raise ValueError(f"rho={rho} of the karras schedule must be above 0 (the paper's is 7)")
    u = _ramp(steps, end)
    ratios = (process.ratio_max ** (1 / rho) * (1 - u) + process.ratio_min ** (1 / rho) * u) ** rho
    return _from_ratios(process, ratios, end, _rounded(rounding, np.round))


def exponential(process: Process, steps: int, *, end: str = "zero", rounding: str = "none") -> NoiseLevels:
    """Uniform in log σ, that is in log SNR (2206.00927, "logSNR")."""
    u = _ramp(steps, end)
    ratios = np.exp(np.log(process.ratio_max) * (1 - u) + np.log(process.ratio_min) * u)
    return _from_ratios(process, ratios, end, _rounded(rounding, _truncated))


def normal(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """Uniform in the model's time, log σ interpolated between timesteps: the "normal" of k-diffusion's interfaces."""
    times = (process.train_steps - 1) * (1 - _ramp(steps, end))
    return _from_ratios(process, process.ratio(times), end, None)


def simple(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """Every T/N-th trained level from the noisiest down: σ[−(1 + ⌊iT/N⌋)]."""
    times = process.train_steps - 1 - np.arange(_checked(steps)) * process.train_steps // steps
    return _from_times(process, times, process.ratio(times), end)


def linspace(
    process: Process, steps: int, *, points: str = "steps", end: str = "zero", rounding: str = "none"
) -> NoiseLevels:
    """Timesteps T−1 … 0, evenly (2305.08891, table 2).

    `points="steps"` puts the last evaluation at timestep 0 (diffusers' Euler), "steps_plus_one" leaves timestep 0 to
    the end (diffusers' DPM-Solver family). With `rounding="diffusers"` the first interpolates σ linearly, as its Euler
    does, and the second rounds the timesteps.
    """
    matched = _one_of("rounding", rounding, ("none", "diffusers")) == "diffusers"
    spare = _spare(points)
    intervals = _checked(steps) if end == "sigma_min" else steps - 1 + spare
    fractions = np.linspace(1, 0, intervals + 1)[:steps]
    if matched and intervals == 0:
        fractions = np.zeros(1)  # diffusers' Euler takes its only step from timestep 0
    times = (process.train_steps - 1) * fractions
    if matched and not spare:
        return _from_times(process, times, np.interp(times, np.arange(process.train_steps), process.table), end)
    times = np.round(times) if matched else times
    return _from_times(process, times, process.ratio(times), end)


def leading(
    process: Process, steps: int, *, offset: int = 1, points: str = "steps", end: str = "sigma_min"
) -> NoiseLevels:
    """Multiples of ⌊T/N⌋ (or ⌊T/(N+1)⌋ without the lowest, `points="steps_plus_one"`), raised by `offset`.

    What Stable Diffusion's DDIM and PLMS use (2305.08891, table 2); it never visits the noisiest timesteps.
    """
    count = _checked(steps) + _spare(points)
    stride = process.train_steps // count
    times = np.arange(count)[::-1][:steps] * float(stride) + offset
    if stride < 1 or times[0] > process.train_steps - 1 or times[-1] < 0:
        raise ValueError(
            f"the leading schedule of {steps} steps with offset {offset} leaves the {process.train_steps} trained "
            "timesteps: take fewer steps or another offset"
        )
    return _from_times(process, times, process.ratio(times), end)


def trailing(process: Process, steps: int, *, end: str = "zero") -> NoiseLevels:
    """round(T − i·T/N) − 1: always visits the noisiest timestep (2305.08891, table 2)."""
    stride = process.train_steps / _checked(steps)
    times = np.round(process.train_steps - stride * np.arange(steps)) - 1
    return _from_times(process, times, process.ratio(times), end)


SCHEDULES: dict[str, Callable[..., NoiseLevels]] = {
    function.__name__: function for function in (karras, exponential, normal, simple, linspace, leading, trailing)
}


def names() -> list[str]:
    return sorted(SCHEDULES)


def build(name: str, process: Process, steps: int, **knobs) -> NoiseLevels:
    """The levels of the named schedule; an unknown name or knob is a ValueError that lists the valid ones."""
    if name not in SCHEDULES:
        close = difflib.get_close_matches(str(name), SCHEDULES, n=1, cutoff=0.5)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown schedule {name!r}: {guess}valid: {', '.join(names())}")
    function = SCHEDULES[name]
    valid = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for knob in knobs:
        if knob not in valid:
            raise ValueError(f"the {name} schedule has no knob {knob!r}; valid: {', '.join(valid)}")
    return function(process, steps, **knobs)


def _checked(steps: int) -> int:
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps={steps} is not a number of sampling steps: give a whole number of at least 1")
    return int(steps)


def _one_of(knob: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise ValueError(f"{knob}={value!r} of the schedule is unknown; valid: {', '.join(valid)}")
    return value


def _spare(points: str) -> int:
    """Points of an evenly spaced grid that are not evaluated: the lowest one, or none."""
    return int(_one_of("points", points, ("steps", "steps_plus_one")) == "steps_plus_one")


def _ramp(steps: int, end: str) -> np.ndarray:
    """u from 0 to 1 over the levels that are chosen: N of them before a zero, N+1 when σmin is itself the end."""
    count = _checked(steps) + (_one_of("end", end, ("zero", "sigma_min")) == "sigma_min")
    return np.linspace(0, 1, count)


def _rounded(rounding: str, how: Callable) -> Callable | None:
    return how if _one_of("rounding", rounding, ("none", "diffusers")) == "diffusers" else None


def _truncated(times: np.ndarray) -> np.ndarray:
    """Towards 0, from just below: in diffusers' float32 the noisiest σ comes out a trifle short of timestep T−1."""
    return np.maximum(np.floor(times - 1e-3), 0)


def _from_ratios(process: Process, ratios: np.ndarray, end: str, rounded: Callable | None) -> NoiseLevels:
    ratios = np.append(ratios, 0.0) if end == "zero" else ratios
    times = process.time(ratios)
    return NoiseLevels.from_ratios(process, ratios, times if rounded is None else rounded(times))


def _from_times(process: Process, times: np.ndarray, ratios: np.ndarray, end: str) -> NoiseLevels:
    last = 0.0 if _one_of("end", end, ("zero", "sigma_min")) == "zero" else process.ratio_min
    return NoiseLevels.from_ratios(process, np.append(ratios, last), np.append(times, 0.0))
