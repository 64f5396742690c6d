"""How much of a step's noise is fresh: ancestral steps go further down and up again, SDE solvers fade the old noise."""

from __future__ import annotations

import math

from samplers.core.levels import Level
from samplers.solvers.parts.clock import ratio_at, reading


def split(now: Level, then: Level, eta: float, clock: str = "sigma") -> tuple[Level, float]:
    """(the level r↓ with the signal of `then`, α'·r↑) of an ancestral step."""
    if eta == 0:
        return then, 0.0
    if clock == "sigma":
        share = min(1.0, eta * math.sqrt(1 - (then.ratio / now.ratio) ** 2))  # the fresh share of the new noise
        return Level(then.alpha, then.sigma * math.sqrt(1 - share**2), then.time), share * then.sigma
    t = reading(then, clock)
    ratio = ratio_at(t * max(0.0, 1 - eta * (1 - t / reading(now, clock))), clock)
    return Level(then.alpha, then.alpha * ratio, then.time), then.alpha * math.sqrt(max(0.0, then.ratio**2 - ratio**2))


def sde_step(now: Level, then: Level, eta: float) -> tuple[float, float]:
    """(what is left of x, standard deviation of the fresh noise) after the SDE's exact step with x0 held."""
    kept = (then.ratio / now.ratio) ** eta  # e^{−ηh}, 0 from pure noise
    return then.sigma / now.sigma * kept, then.sigma * math.sqrt(1 - kept**2)
