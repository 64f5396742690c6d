"""What the spacings share: checked knobs, the ramp they bend, and the last level that `end` asks for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samplers.core.levels import NoiseLevels, Process

ENDS = ("zero", "sigma_min")


def checked(steps: int) -> int:
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps={steps} is not a number of sampling steps: give a whole number of at least 1")
    return int(steps)


def one_of(knob: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise ValueError(f"{knob}={value!r} of the schedule is unknown; valid: {', '.join(valid)}")
    return value


def above(knob: str, value: float, least: float = 0.0) -> float:
    """The knob as a float; ValueError unless it is a finite number above `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > least or value == float("inf"):
        raise ValueError(f"{knob}={value!r} of the schedule must be a number above {least:g}")
    return float(value)


def spare(points: str) -> int:
    """How many points of an evenly spaced grid are not evaluated: 1 (the lowest) or 0."""
    return int(one_of("points", points, ("steps", "steps_plus_one")) == "steps_plus_one")


def chosen(steps: int, end: str) -> int:
    """How many levels a spacing chooses: N before a final zero, N+1 where σmin itself is the end."""
    return checked(steps) + (one_of("end", end, ENDS) == "sigma_min")


def ramp(steps: int, end: str) -> np.ndarray:
    """u from 0 (the noisiest level) to 1 (σmin) over the levels that are chosen."""
    return np.linspace(0, 1, chosen(steps, end))


def rounded(rounding: str, how: Callable) -> Callable | None:
    return how if one_of("rounding", rounding, ("none", "diffusers")) == "diffusers" else None


def truncated(times: np.ndarray) -> np.ndarray:
    """Round down from just below: in diffusers' float32 the noisiest σ comes out a trifle short of timestep T−1."""
    return np.maximum(np.floor(times - 1e-3), 0)


def from_ratios(process: Process, ratios: np.ndarray, end: str, how: Callable | None = None) -> NoiseLevels:
    """Levels at the chosen ratios, and a zero where that is the end; `how` rounds what the model is told."""
    ratios = np.append(ratios, 0.0) if end == "zero" else ratios
    times = process.time(ratios)
    return NoiseLevels.from_ratios(process, ratios, times if how is None else how(times))


def from_times(process: Process, times: np.ndarray, end: str, ratios: np.ndarray | None = None) -> NoiseLevels:
    """Levels at N times, and the end. Give `ratios` only where they are not those that belong to the times."""
    chosen = process.ratio(times) if ratios is None else ratios
    last = 0.0 if one_of("end", end, ENDS) == "zero" else process.ratio_min
    last_time = 0.0 if end == "zero" else process.time_min
    return NoiseLevels.from_ratios(process, np.append(chosen, last), np.append(times, last_time))
