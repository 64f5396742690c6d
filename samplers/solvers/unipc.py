"""UniPC: Zhao et al. 2023 (2302.04867), in x0-prediction.

Predictor and corrector of one step start from the same state, so the corrected state differs from the predicted one by
denoiser outputs alone. This step's corrector and the next step's predictor therefore fold into one combination of the
predicted state and the history: one call and one stage a step, and a state that was blended on the way stays blended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, first_order, is_lowered
from samplers.solvers.parts.coefficients import X0, combined, exponential

VARIANTS = ("bh1", "bh2", "vary_coeff")
MAX_ORDER = 5


@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC-`order`: UniP-p with UniC-p behind it, of order p+1.

    `variant`: B(h) = h (bh1) or e^h − 1 (bh2) where the paper fixes a coefficient at 1/2 (second-order predictor,
    first-order corrector), or the exact coefficient there (vary_coeff, "UniPC_v"; the authors' code leaves out terms
    of this corrector above order 1). Higher orders solve for the coefficients, and there the three agree.
    `disable_corrector`: so many first steps go uncorrected. `lower_order_final` as in `is_lowered`. A level of pure
    noise drops out of the history (its λ is −∞).
    """

    order: int = 2
    variant: str = "bh2"
    corrector: bool = True
    disable_corrector: int = 0
    lower_order_final: bool | int | str = "zero"

    def __post_init__(self) -> None:
        self._one_of("order", range(1, MAX_ORDER + 1))
        self._one_of("variant", VARIANTS)
        first = self.disable_corrector
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            raise ValueError(f"disable_corrector={first!r} of unipc must be a number of first steps")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order + bool(self.corrector), nfe=steps)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        _check_end(levels, self.order, lowers)
        stages, correction = [], (0.0,)  # what corrects the present state: weights of the outputs, newest first
        for k in range(levels.steps):
            p = min(self.order, k + 1, levels.steps - k if lowers else self.order)
            past = [levels[k - j] for j in range(p) if j == 0 or levels.alpha[k - j] > 0]
            now, then = levels[k], levels[k + 1]
            a, _ = first_order(now, then)
            predictor = _predictor(past, then, self.variant)
            stages.append(Stage(now, then, (a,), _add(predictor, tuple(a * c for c in correction))))
            corrected = self.corrector and k >= self.disable_corrector and k + 1 < levels.steps
            behind = _corrector(past, then, self.variant) if corrected else (0.0, *predictor)
            correction = _add(behind, (0.0, *(-b for b in predictor)))
        return Plan(levels[0], tuple(stages), self.declares(levels.steps))


def _check_end(levels: NoiseLevels, order: int, lowers: bool) -> None:
    if levels.sigma[-1] == 0 and min(order, levels.steps) > 1 and not lowers:
        raise ValueError(
            f"unipc of order {order} cannot step to sigma 0 without a lower final order (its coefficients are infinite "
            f"there, {levels.steps} steps): set lower_order_final=true or let the schedule end at sigma_min"
        )


def _predictor(past: list[Level], then: Level, variant: str) -> tuple[float, ...]:
    """UniP (eq. 3): what D_1, … add to a first-order step, as weights of D_0, D_1, … in the predicted state."""
    h = then.lam - past[0].lam
    r = [(level.lam - past[0].lam) / h for level in past[1:]]
    older = _differences(then, r, h, variant)
    return combined(then, past, x0=dict(enumerate(older, 1)))[1]


def _corrector(past: list[Level], then: Level, variant: str) -> tuple[float, ...]:
    """UniC (eq. 5): weights of the output at the new level and of D_0, D_1, … in the corrected state."""
    h = then.lam - past[0].lam
    r = [*((level.lam - past[0].lam) / h for level in past[1:]), 1.0]
    *older, new = _differences(then, r, h, variant)
    return (new, first_order(past[0], then)[1] - new - sum(older), *older)


def _differences(then: Level, r: list[float], h: float, variant: str) -> list[float]:
    """Weights of D_m − D_0: α'·B(h)/(2r) where the paper fixes a coefficient, else the exact integral, without B(h)."""
    if len(r) == 1 and variant != "vary_coeff":
        scale = h if variant == "bh1" else -math.expm1(-h)  # −B(−h) of the paper in x0-prediction
        return [then.alpha * scale / 2 / r[0]]
    return [then.alpha * weight for weight in exponential(r, h, X0)]


def _add(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return tuple(v + (shorter[j] if j < len(shorter) else 0.0) for j, v in enumerate(longer))


SOLVER = UniPC
