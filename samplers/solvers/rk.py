"""Explicit Runge–Kutta methods by tableau: `sampler=rk sampler.tableau=rk4`, names by `python -m samplers.tableaux`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan
from samplers.solvers.parts import runge_kutta
from samplers.tableaux import catalogue
from samplers.tableaux.butcher import Tableau, called


@dataclass(frozen=True)
class RK(runge_kutta.ByTableau):
    """One call for each stage that the step needs; a stage that only an error estimate would read is not called.

    `tableau`: a name, or the path of a JSON file {order, source, a, b}, whose `sha256` may be asked for. `clock`: what
    the method steps in, sigma (σ/α, as k-diffusion and EDM), t (σ/(α+σ), rectified flow's) or lambda (log(α/σ), with
    the linear part −x/α integrated by the method too). `eta`: the step goes down and is noised up again, as ancestral
    samplers do. A step to σ = 0, and in σ/α or λ one from pure noise, is Euler's and one call.
    """

    tableau: str = "ralston3"
    clock: str = "sigma"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("clock", runge_kutta.CLOCKS)

    def method(self) -> Tableau:
        return _method(self.tableau, catalogue.pinned(self.tableau, self.sha256))

    def plan(self, levels: NoiseLevels) -> Plan:
        method = self.method()
        runge_kutta.inside(method.c, self.clock, method.name)
        along = runge_kutta.along_clock(method.a, method.b, self.clock)
        found = runge_kutta.stages(levels, method.c, along, self.clock, self.eta, self.s_noise)
        return Plan(levels[0], found, self.declares(levels.steps))


@lru_cache(maxsize=64)
def _method(tableau: str, sha256: str | None) -> Tableau:
    return called(catalogue.explicit(tableau, sha256))


SOLVER = RK
