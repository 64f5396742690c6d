"""Explicit Runge–Kutta methods by tableau: `sampler=rk sampler.tableau=rk4`, names by `python -m samplers.tableaux`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities
from samplers.solvers.parts import runge_kutta
from samplers.tableaux import catalogue
from samplers.tableaux.butcher import Tableau, called


def capabilities(
    steps: int,
    *,
    tableau: str = "ralston3",
    clock: str = "sigma",
    eta: float = 0.0,
    s_noise: float = 1.0,
    sha256: str | None = None,
) -> Capabilities:
    method = _method(tableau, catalogue.pinned(tableau, sha256))
    return Capabilities(method.order, nfe=method.stages * steps, stochastic=eta > 0 and s_noise > 0)


def plan(
    levels: NoiseLevels,
    *,
    tableau: str = "ralston3",
    clock: str = "sigma",
    eta: float = 0.0,
    s_noise: float = 1.0,
    sha256: str | None = None,
) -> Plan:
    """A call a stage that the step needs: a stage that only an error estimate would read is not called.

    `tableau`: a name, or the path of a JSON file {order, source, a, b}, whose `sha256` may be asked for. `clock`: what
    the method steps in, sigma (σ/α, as k-diffusion and EDM), t (σ/(α+σ), rectified flow's) or lambda (log(α/σ), with
    the linear part −x/α integrated by the method too). `eta`: the step goes down and is noised up again, as ancestral
    samplers do. A step to σ = 0, and in σ/α or λ one from pure noise, is Euler's and one call.
    """
    runge_kutta.check("rk", clock, eta, s_noise)
    method = _method(tableau, catalogue.pinned(tableau, sha256))
    runge_kutta.inside(method.c, clock, method.name)
    along = runge_kutta.along_clock(method.a, method.b, clock)
    found = runge_kutta.stages(levels, method.c, along, clock, eta, s_noise)
    declared = capabilities(levels.steps, tableau=tableau, clock=clock, eta=eta, s_noise=s_noise, sha256=sha256)
    return Plan(levels[0], found, declared)


def settle(*, tableau: str = "ralston3", sha256: str | None = None, **knobs: Any) -> dict[str, Any]:
    return catalogue.settled(tableau, sha256)


@lru_cache(maxsize=64)
def _method(tableau: str, sha256: str | None) -> Tableau:
    return called(catalogue.explicit(tableau, sha256))
