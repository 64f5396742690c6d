"""Implicit Runge–Kutta methods by tableau, solved by a given number of fixed-point sweeps, which makes them plans."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities
from samplers.solvers.parts import runge_kutta
from samplers.tableaux import catalogue
from samplers.tableaux.butcher import Tableau, iterated

MOST_SWEEPS = 12
MOST_CALLS = 100
UPDATES = ("jacobi", "seidel")


def capabilities(
    steps: int,
    *,
    tableau: str = "gauss_2",
    sweeps: int = 2,
    update: str = "jacobi",
    clock: str = "sigma",
    eta: float = 0.0,
    s_noise: float = 1.0,
    sha256: str | None = None,
) -> Capabilities:
    method = _swept(tableau, sweeps, update, sha256)
    return Capabilities(method.order, nfe=method.stages * steps, stochastic=eta > 0 and s_noise > 0)


def plan(
    levels: NoiseLevels,
    *,
    tableau: str = "gauss_2",
    sweeps: int = 2,
    update: str = "jacobi",
    clock: str = "sigma",
    eta: float = 0.0,
    s_noise: float = 1.0,
    sha256: str | None = None,
) -> Plan:
    """A call at the start of the step and `sweeps` of one call a stage, less those that repeat one or are not read.

    The first guess of every stage is the slope at the start. Each sweep adds an order up to the tableau's own; with
    `update="seidel"` a stage sees those that its sweep has done already. The rest as for `rk`; the order declared is
    that of what runs.
    """
    runge_kutta.check("irk", clock, eta, s_noise)
    method = _swept(tableau, sweeps, update, sha256)
    runge_kutta.inside(method.c, clock, method.name)
    along = runge_kutta.along_clock(method.a, method.b, clock)
    found = runge_kutta.stages(levels, method.c, along, clock, eta, s_noise)
    knobs = {"tableau": tableau, "sweeps": sweeps, "update": update, "clock": clock}
    declared = capabilities(levels.steps, eta=eta, s_noise=s_noise, sha256=sha256, **knobs)
    return Plan(levels[0], found, declared)


def settle(*, tableau: str = "gauss_2", sha256: str | None = None, **knobs: Any) -> dict[str, Any]:
    return catalogue.settled(tableau, sha256)


def _swept(tableau: str, sweeps: int, update: str, sha256: str | None) -> Tableau:
    if isinstance(sweeps, bool) or not isinstance(sweeps, int) or not 1 <= sweeps <= MOST_SWEEPS:
        raise ValueError(f"sweeps={sweeps!r} of irk must be a whole number from 1 to {MOST_SWEEPS}")
    if update not in UPDATES:
        raise ValueError(f"update={update!r} of irk is unknown; valid: {', '.join(UPDATES)}")
    return _method(tableau, sweeps, update, catalogue.pinned(tableau, sha256))


@lru_cache(maxsize=64)
def _method(tableau: str, sweeps: int, update: str, sha256: str | None) -> Tableau:
    whole = catalogue.implicit(tableau, sha256)
    if 1 + sweeps * whole.stages > MOST_CALLS:
        raise ValueError(f"{sweeps} sweeps of {tableau} are more than {MOST_CALLS} calls a step: take fewer sweeps")
    return iterated(whole, sweeps, update == "seidel")
