"""DPM-Solver multistep on ε: Lu et al. 2022 (2206.00927), in the multistep form of 2211.01095, appendix B.

The exact solution in λ = log(α/σ) is x' = (α'/α)x − α' ∫ e^{−λ} ε(λ) dλ; ε is extrapolated from the calls before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from samplers.solvers.parts.coefficients import EPS
from samplers.solvers.parts.multistep import Multistep


@dataclass(frozen=True)
class DPMMultistep(Multistep):
    """ε is extrapolated."""

    extrapolated: ClassVar[int] = EPS


SOLVER = DPMMultistep
