"""Explicit exponential Runge–Kutta methods by tableau, on x0 in λ: Hochbruck & Ostermann 2005 (SINUM 43), as
DPM-Solver++ (2211.01095) and the residual solvers (2308.02157) use them.

With z = x/α the ODE is dz/dλ = −z + x0: the linear part is known and solved exactly, and x0 is the nonlinearity.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.solvers.parts import runge_kutta
from samplers.tableaux import catalogue
from samplers.tableaux.exponential import ExponentialTableau


@dataclass(frozen=True)
class ExpRK(runge_kutta.ByTableau):
    """One call per stage. `tableau`: a name, lawson_NAME or generalised_lawson_NAME of an explicit one, or the path of
    a JSON file {order, source, c, a, b} with coefficients such as "phi1(1/2)/2", whose `sha256` may be asked for.

    A step to σ = 0 (λ = ∞) takes x0 after one call, one from pure noise (λ = −∞) is first order. `eta` as for `rk`.
    """

    tableau: str = "res_3s"

    def method(self) -> ExponentialTableau:
        return catalogue.exponential_tableau(self.tableau, self.sha256)

    def plan(self, levels: NoiseLevels) -> Plan:
        method = self.method()
        along = runge_kutta.along_lambda(method.coefficients)
        found = runge_kutta.stages(levels, method.c, along, "lambda", self.eta, self.s_noise)
        return Plan(levels[0], found, self.declares(levels.steps))


SOLVER = ExpRK
