"""DEIS multistep: Zhang & Chen 2022 (2204.13902), eq. 14 and 15, on ε.

x'/α' = x/α + Σ_j ε_j ∫ L_j dρ with ρ = σ/α: the polynomials L_j through the last ε run in log ρ, in ρ or in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import EPS, adams, combined, exponential, lagrange

MODES = ("logrho", "rhoab", "tab")
MAX_ORDER = 4
_T_MIN = 1e-3  # where a continuous variance-preserving model's time begins (2011.13456)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)  # the quadrature of a step in log ρ, on [−1, 1]


@dataclass(frozen=True)
class DEIS(Solver):
    """One call a step. deis_mode: logrho is diffusers' (an exponential Adams method on ε), rhoab is ρAB (LMS), tab is
    tAB in the time of the variance-preserving SDE with linear β that has the model's noise at t = 10⁻³ and t = 1.

    `lower_order_final` as in `is_lowered`; a step to σ = 0 is first order in any case.
    """

    order: int = 3
    deis_mode: str = "logrho"
    lower_order_final: bool | int | str = 15

    def __post_init__(self) -> None:
        self._one_of("order", range(1, MAX_ORDER + 1))
        self._one_of("deis_mode", MODES)

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order, nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        weights = {"logrho": _log_rho, "rhoab": _rho, "tab": _Time(levels.process)}[self.deis_mode]
        stages = []
        for k in range(levels.steps):
            then = levels[k + 1]
            p = min(self.order, k + 1, levels.steps - k if lowers else self.order, 1 if then.sigma == 0 else self.order)
            calls = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
            noise = dict(enumerate(weights(calls, then), 1)) if len(calls) > 1 else {}
            stages.append(Stage(calls[0], then, *combined(then, calls, noise=noise)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _log_rho(calls: Sequence[Level], then: Level) -> list[float]:
    """Weights of ε₁, ε₂, … beside the newest."""
    h = then.lam - calls[0].lam
    return [-then.sigma * w for w in exponential([(call.lam - calls[0].lam) / h for call in calls[1:]], h, EPS)]


def _rho(calls: Sequence[Level], then: Level) -> list[float]:
    ratios = [call.ratio for call in calls]
    return [then.alpha * weight for weight in adams(ratios, ratios[0], then.ratio)[1:]]


class _Time:
    """t of σ/α for the linear β(t) through the ends of the process, and the integrals of tAB in it."""

    def __init__(self, process: Process) -> None:
        low, high = math.log1p(process.ratio_min**2), math.log1p(process.ratio_max**2)
        self.growth = 2 * (low / _T_MIN - high) / (_T_MIN - 1)
        self.start = high - self.growth / 2

    def of(self, ratio: np.ndarray) -> np.ndarray:
        """Solves log(1 + ρ²) = β₀t + (β₁ − β₀)t²/2."""
        return (np.sqrt(self.start**2 + 2 * self.growth * np.log1p(np.square(ratio))) - self.start) / self.growth

    def __call__(self, calls: Sequence[Level], then: Level) -> list[float]:
        middle, half = -(calls[0].lam + then.lam) / 2, (calls[0].lam - then.lam) / 2
        ratios = np.exp(middle + half * _NODES)
        at, nodes = self.of(ratios), self.of(np.array([call.ratio for call in calls]))
        d_rho = _WEIGHTS * half * ratios * then.alpha  # dρ = ρ d log ρ; half < 0 runs from now to then
        return [float(np.dot(d_rho, values)) for values in lagrange(nodes, at)[1:]]


SOLVER = DEIS
