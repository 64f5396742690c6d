"""Explicit exponential Runge–Kutta methods by tableau, on x0 in λ: Hochbruck & Ostermann 2005 (SINUM 43), as
DPM-Solver++ (2211.01095) and the residual solvers (2308.02157) use them.

With z = x/α the ODE is dz/dλ = −z + x0: the linear part is known and solved exactly, and x0 is the nonlinearity.
"""

from __future__ import annotations

from typing import Any

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities
from samplers.solvers.parts import runge_kutta
from samplers.tableaux import catalogue


def capabilities(
    steps: int, *, tableau: str = "res_3s", eta: float = 0.0, s_noise: float = 1.0, sha256: str | None = None
) -> Capabilities:
    method = catalogue.exponential_tableau(tableau, sha256)
    return Capabilities(method.order, nfe=method.stages * steps, stochastic=eta > 0 and s_noise > 0)


def plan(
    levels: NoiseLevels,
    *,
    tableau: str = "res_3s",
    eta: float = 0.0,
    s_noise: float = 1.0,
    sha256: str | None = None,
) -> Plan:
    """A call a stage. `tableau`: a name, lawson_NAME or generalised_lawson_NAME of an explicit one, or the path of a
    JSON file {order, source, c, a, b} with coefficients such as "phi1(1/2)/2", whose `sha256` may be asked for.

    A step to σ = 0 (λ = ∞) takes x0 after one call, one from pure noise (λ = −∞) is first order. `eta` as for `rk`.
    """
    runge_kutta.check("exp_rk", "lambda", eta, s_noise)
    method = catalogue.exponential_tableau(tableau, sha256)
    along = runge_kutta.along_lambda(method.coefficients)
    found = runge_kutta.stages(levels, method.c, along, "lambda", eta, s_noise)
    declared = capabilities(levels.steps, tableau=tableau, eta=eta, s_noise=s_noise, sha256=sha256)
    return Plan(levels[0], found, declared)


def settle(*, tableau: str = "res_3s", sha256: str | None = None, **knobs: Any) -> dict[str, Any]:
    return catalogue.settled(tableau, sha256)
