"""Implicit Runge–Kutta methods by tableau, solved by a given number of fixed-point sweeps, which makes them plans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from samplers.solvers.rk import RK
from samplers.tableaux import catalogue
from samplers.tableaux.butcher import Tableau, iterated

MOST_SWEEPS = 12
MOST_CALLS = 100
UPDATES = ("jacobi", "seidel")


@dataclass(frozen=True)
class IRK(RK):
    """One call at the start of the step, then `sweeps` sweeps of one call per stage; repeated and unread calls go.

    The first guess of every stage is the slope at the start. Each sweep adds an order up to the tableau's own; with
    `update="seidel"` a stage sees the stages that its sweep has done already. With its sweeps written out the method
    is explicit: everything else is as for `rk`, and the declared order is the order of the method that runs.
    """

    tableau: str = "gauss_2"
    sweeps: int = 2
    update: str = "jacobi"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.sweeps, bool) or not isinstance(self.sweeps, int) or not 1 <= self.sweeps <= MOST_SWEEPS:
            raise ValueError(f"sweeps={self.sweeps!r} of irk must be a whole number from 1 to {MOST_SWEEPS}")
        self._one_of("update", UPDATES)

    def method(self) -> Tableau:
        return _method(self.tableau, self.sweeps, self.update, catalogue.pinned(self.tableau, self.sha256))


@lru_cache(maxsize=64)
def _method(tableau: str, sweeps: int, update: str, sha256: str | None) -> Tableau:
    whole = catalogue.implicit(tableau, sha256)
    if 1 + sweeps * whole.stages > MOST_CALLS:
        raise ValueError(f"{sweeps} sweeps of {tableau} are more than {MOST_CALLS} calls a step: take fewer sweeps")
    return iterated(whole, sweeps, update == "seidel")


SOLVER = IRK
