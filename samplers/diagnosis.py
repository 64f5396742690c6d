"""What a plan's coefficients say by themselves, step by step: `python -m samplers.show unipc --diagnose`.

A step misses part of every solution that is no polynomial of a low degree (its order conditions), and it enlarges or
damps what the denoiser's answers are wrong by. What a model makes of both is measured by `python -m harness.diagnose`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from samplers.conditions import boundaries, residuals
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan


def of_plan(levels: NoiseLevels, plan: Plan) -> list[dict[str, Any]]:
    """A step each, plain values.

    `calls` [first, after the last]; `from` and `to`, σ/α; `h`, its length in λ = log(α/σ) (None at an end without
    noise or signal); `misses`, for z = x/α the Chebyshev polynomials of degree 1, 2, … in λ between both ends of the
    run, what the step misses when all it reads is exact (None where λ is infinite, or for what reaches back beyond);
    `amplifies`, the sum of the weights' sizes of all answers so far in its result: 1 for a weighted mean, and the
    largest factor by which independent errors of the answers grow.

    >>> from samplers import registry, schedules
    >>> from samplers.core.levels import DiscreteVP
    >>> levels = schedules.build("karras", DiscreteVP.scaled_linear(), 4)
    >>> first = of_plan(levels, registry.build_plan({"solver": "ddim"}, levels))[0]
    >>> first["calls"], round(first["h"], 2), [round(missed, 4) for missed in first["misses"][:2]]
    ([0, 1], 1.53, [0.2399, 0.4756])
    """
    starts = boundaries(levels, plan)
    missed = residuals(levels, plan) if not plan.draws else np.full((len(starts) - 1, 1), np.nan)
    answers = np.abs(plan.influence()[:, 1 : 1 + plan.nfe]).sum(1)
    out = []
    for (first, stop), row in zip(itertools.pairwise(starts), missed, strict=True):
        above, below = plan.stages[first].level, plan.stages[stop - 1].result
        h = below.lam - above.lam
        out.append(
            {
                "calls": [first, stop],
                "from": _finite(above.ratio),
                "to": _finite(below.ratio),
                "h": _finite(h),
                "misses": row.tolist() if np.isfinite(row).all() else None,
                "amplifies": float(answers[stop] / below.alpha),
            }
        )
    return out


def table(steps: list[dict[str, Any]], degrees: int = 4) -> str:
    """The steps as text."""
    lines = [f"{'calls':>7} {'sigma/alpha':>19} {'h':>6}  misses of degree 1 to {degrees:<16} amplifies"]
    for one in steps:
        first, stop = one["calls"]
        calls = f"{first}" if stop == first + 1 else f"{first}-{stop - 1}"
        way = f"{_said(one['from'])} to {_said(one['to'])}"
        missed = [f"{value:9.1e}" for value in (one["misses"] or [])[:degrees]] or ["        -"] * degrees
        h = "-" if one["h"] is None else f"{one['h']:.2f}"
        lines.append(f"{calls:>7} {way:>19} {h:>6} {' '.join(missed)} {one['amplifies']:9.3g}")
    return "\n".join(lines)


def _said(number: float | None) -> str:
    return "inf" if number is None else f"{number:.4g}"


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
