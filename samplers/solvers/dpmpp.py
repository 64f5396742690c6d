"""DPM-Solver++ multistep: Lu et al. 2022 (2211.01095), algorithm 2 (2M) and its third-order relative (3M).

The exact solution in λ = log(α/σ) is x' = (σ'/σ)x + σ' ∫ e^λ x0(λ) dλ; x0 is extrapolated from the calls before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from samplers.solvers.parts.coefficients import X0
from samplers.solvers.parts.multistep import Multistep


@dataclass(frozen=True)
class DPMpp(Multistep):
    """x0 is extrapolated: 2M at order 2, 3M at order 3."""

    extrapolated: ClassVar[int] = X0


SOLVER = DPMpp
