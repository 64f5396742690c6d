"""What the samplers by tableau share: the stages of one step, written from rows of coefficients.

A step goes from `now` down to a level with the signal of `then` and, with η, up again by noise (ancestral.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order
from samplers.solvers.parts import clock as clocks
from samplers.solvers.parts.noise_split import split
from samplers.tableaux import catalogue
from samplers.tableaux.butcher import Tableau
from samplers.tableaux.exponential import ExponentialTableau

CLOCKS = ("sigma", "lambda", "t")
# (states, x0) newest call first, of a state at a level, from weights of the calls, oldest first
Combine = Callable[[Level, Sequence[float], Sequence[Level]], tuple[tuple[float, ...], tuple[float, ...]]]
# For a step from one level to another: the rows of weights a_2 … a_s and b, and how they are combined.
Method = Callable[[Level, Level], tuple[Sequence[Sequence[float]], Combine]]


@dataclass(frozen=True)
class ByTableau(Solver):
    """The knobs of every solver by tableau. `sha256` is the digest that a tableau from a file must have."""

    tableau: str
    eta: float = 0.0
    s_noise: float = 1.0
    sha256: str | None = None

    def __post_init__(self) -> None:
        self._not_negative("eta", "s_noise")

    def method(self) -> Tableau | ExponentialTableau:
        """The tableau of what runs, an explicit one. ValueError for one that is unknown or not good."""
        raise NotImplementedError

    def declares(self, steps: int) -> Capabilities:
        method = self.method()
        return Capabilities(method.order, nfe=method.stages * steps, stochastic=self.eta > 0 and self.s_noise > 0)

    def settle(self) -> Mapping[str, Any]:
        return catalogue.settled(self.tableau, self.sha256)


def reading(level: Level, clock: str) -> float:
    """σ/α, λ = log(α/σ) or t = σ/(α + σ)."""
    return level.lam if clock == "lambda" else clocks.reading(level, "flow" if clock == "t" else clock)


def level_at(process: Process, value: float, clock: str) -> Level:
    ratio = math.exp(-value) if clock == "lambda" else clocks.ratio_at(value, "flow" if clock == "t" else clock)
    return process.level(ratio)


def stages(
    levels: NoiseLevels, c: np.ndarray, method: Method, clock: str, eta: float, s_noise: float
) -> tuple[Stage, ...]:
    """The stages of a whole run. A step that ends at σ = 0, or begins where the clock is infinite (pure noise in σ/α
    and λ), makes one call and is first order."""
    found: list[Stage] = []
    for k in range(levels.steps):
        now, then = levels[k], levels[k + 1]
        down, up = split(now, then, eta, "flow" if clock == "t" else "sigma")
        if down.sigma == 0 or math.isinf(reading(now, clock)):
            a, b = first_order(now, down)
            found.append(Stage(now, then, (a,), (b,), up * s_noise))
            continue
        nodes = _nodes(levels.process, now, down, then, c, clock)
        rows, combine = method(now, down)
        ends = [*nodes[1:], then]
        for i, row in enumerate(rows):
            last = i == len(rows) - 1
            states, x0 = combine(down if last else nodes[i + 1], row, nodes[: i + 1])
            noise = up * s_noise if last else 0.0
            found.append(Stage(nodes[i], ends[i], states, x0, noise, since=now if noise and i else None))
    return tuple(found)


def _nodes(process: Process, now: Level, down: Level, then: Level, c: np.ndarray, clock: str) -> list[Level]:
    start, way = reading(now, clock), reading(down, clock) - reading(now, clock)
    ends = {0.0: now, 1.0: then} if down == then else {0.0: now}
    return [ends[x] if x in ends else level_at(process, start + x * way, clock) for x in c.tolist()]


def along_clock(a: np.ndarray, b: np.ndarray, clock: str) -> Method:
    """A Runge–Kutta method on z = x/s in the clock: dz/dσ = ε (σ here σ/α), dz/dt = ε − x0, dz/dλ = x0 − z.

    In σ/α and t the path of a denoiser that never changes its mind is a straight line, and is followed exactly.
    """
    rows = [*(a[i, :i].tolist() for i in range(1, len(b))), b.tolist()]

    def method(now: Level, down: Level) -> tuple[list[list[float]], Combine]:
        h = reading(down, clock) - reading(now, clock)

        def combine(end: Level, row: Sequence[float], calls: Sequence[Level]):
            to = _scale(end, clock)
            slopes = [_slope(call, clock) for call in calls]
            states = [to * h * w * p for w, (p, _) in zip(row, slopes, strict=True)]
            states[0] += to / _scale(calls[0], clock)
            x0 = [to * h * w * q for w, (_, q) in zip(row, slopes, strict=True)]
            return tuple(reversed(states)), tuple(reversed(x0))

        return rows, combine

    return method


def along_lambda(coefficients: Callable[[float], tuple[np.ndarray, np.ndarray]]) -> Method:
    """An exponential method on z = x/α: dz/dλ = −z + x0, its linear part solved exactly."""

    def method(now: Level, down: Level) -> tuple[list[list[float]], Combine]:
        h = down.lam - now.lam
        a, b = coefficients(-h)

        def combine(end: Level, row: Sequence[float], calls: Sequence[Level]):
            states = (*(0.0 for _ in calls[1:]), end.sigma / calls[0].sigma)
            return states, tuple(end.alpha * h * w for w in reversed(row))

        return [*(a[i, :i].tolist() for i in range(1, len(b))), b.tolist()], combine

    return method


def inside(c: np.ndarray, clock: str, name: str) -> None:
    """Nodes beyond the step are levels of λ, but may be below σ = 0 in σ/α and t."""
    if clock != "lambda" and (c.min() < 0 or c.max() > 1):
        raise ValueError(
            f"tableau {name} has nodes from {c.min():.3g} to {c.max():.3g}, beyond the step: it runs with clock=lambda"
        )


def _scale(level: Level, clock: str) -> float:
    return clocks.scale(level, "flow" if clock == "t" else "sigma")


def _slope(level: Level, clock: str) -> tuple[float, float]:
    """(p, q) of the slope p·x + q·x0 at a level."""
    if clock == "lambda":
        return -1 / level.alpha, 1.0
    at = reading(level, clock)
    return 1 / (_scale(level, clock) * at), -1 / at
