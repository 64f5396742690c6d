"""Clocks in which a method that is not written in λ steps, for any scaling of the state.

Where the clock shows c, the scaled state z = x/s moves by dz/dc = (z − x0)/c. Euler's step is the same in every
clock, a second stage is not.
"""

from __future__ import annotations

import math

from samplers.core.levels import Level, NoiseLevels

CLOCKS = ("sigma", "flow")


def scale(level: Level, clock: str) -> float:
    """s of z = x/s: α, so that z = x0 + (σ/α)·ε ("sigma"), or α + σ, so that z = (1 − t)·x0 + t·ε ("flow")."""
    return level.alpha if clock == "sigma" else level.alpha + level.sigma


def reading(level: Level, clock: str) -> float:
    """c: σ/α, or rectified flow's t = σ/(α + σ). Pure noise is at inf in the one and at 1 in the other."""
    return level.ratio if clock == "sigma" else level.sigma / (level.alpha + level.sigma)


def ratio_at(value: float, clock: str) -> float:
    """σ/α where the clock shows `value`."""
    return value if clock == "sigma" else math.inf if value >= 1 else value / (1 - value)


def level_at(levels: NoiseLevels, value: float, clock: str) -> Level:
    """The process' level where the clock shows `value`."""
    return levels.process.level(ratio_at(value, clock))
