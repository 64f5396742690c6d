"""The schedules of rectified-flow models: a uniform t from 1 to 0, shifted towards noise for large images."""

from __future__ import annotations

import math

import numpy as np

from samplers.core.levels import NoiseLevels, Process, RectifiedFlow
from samplers.schedules.ramp import ENDS, above, checked, one_of, spare

MOST_MU = 10  # the largest logarithm of a shift: e^10 is 22,000


def flow_shift(
    process: Process,
    steps: int,
    *,
    shift: float = 3.0,
    mu: float | None = None,
    image_seq_len: int | None = None,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_image_seq_len: int = 256,
    max_image_seq_len: int = 4096,
    shift_terminal: float | None = None,
    points: str = "steps_plus_one",
    t_max: float = 1.0,
    t_min: float | None = None,
    end: str = "zero",
) -> NoiseLevels:
    """t' = s·t/(1 + (s − 1)t) of a uniform t (2403.03206, eq. 23), as diffusers' FlowMatchEulerDiscreteScheduler.

    s is `shift`, or e^μ where `mu` is given, or e^μ with μ linear in the number of image tokens (`image_seq_len`; the
    four knobs after it are that line): dynamic shift. `shift_terminal` stretches 1 − t' so that the last evaluation
    is at that t'. t runs from `t_max` to 0, which is left to the end (`points="steps_plus_one"`, as Flux has it), or to
    `t_min` (1/T where null) at the last evaluation (`points="steps"`). On other processes t is σ/(α + σ), and t and t'
    keep to the trained range at the noisy end.
    """
    s = _shift(shift, mu, image_seq_len, (base_image_seq_len, base_shift), (max_image_seq_len, max_shift))
    to_zero = one_of("end", end, ENDS) == "zero"
    low, high = (ratio / (1 + ratio) for ratio in (process.ratio_min, process.ratio_max))
    top, bottom = above("t_max", t_max), 0.0
    if not isinstance(process, RectifiedFlow):  # the unshifted times whose t' are the ends of the trained range
        low, high = _shifted(low, 1 / s), _shifted(high, 1 / s)
        top, bottom = min(top, high), low
    if not spare(points):
        bottom = low if t_min is None else above("t_min", t_min)
    if not bottom < top <= 1:
        raise ValueError(f"the flow_shift schedule needs t_min < t_max ≤ 1, not {bottom:g} and {top:g}")
    t = _shifted(np.linspace(top, bottom, checked(steps) + (spare(points) or not to_zero))[:steps], s)
    if shift_terminal is not None and steps > 1:
        t = 1 - (1 - t) * ((1 - above("shift_terminal", shift_terminal)) / (1 - t[-1]))
    with np.errstate(divide="ignore"):
        ratios = t / (1 - t)
    return NoiseLevels.from_ratios(process, np.append(ratios, 0.0 if to_zero else process.ratio_min))


def _shift(
    shift: float, mu: float | None, tokens: int | None, base: tuple[int, float], most: tuple[int, float]
) -> float:
    if mu is not None and tokens is not None:
        raise ValueError("the flow_shift schedule takes mu or image_seq_len, not both")
    if tokens is not None:
        if most[0] == base[0]:
            raise ValueError(f"base_image_seq_len and max_image_seq_len must differ, not both be {base[0]}")
        slope = (most[1] - base[1]) / (most[0] - base[0])
        mu = base[1] + slope * (tokens - base[0])
    if mu is not None and not abs(mu) <= MOST_MU:
        raise ValueError(f"mu is {mu:.4g}, but shifts beyond exp(±{MOST_MU}) are none: mind the numbers of tokens")
    return above("shift", shift) if mu is None else math.exp(mu)


def _shifted(t, s: float):
    return s * t / (1 + (s - 1) * t)
