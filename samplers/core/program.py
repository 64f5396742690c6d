"""A plan compiled for the loop: what is kept where, and what is added up from which rows. Knows no tensor.

The loop has one buffer with a row a tensor. Row 0 and the last row take turns to hold the state, so that a combination
never reads the row it writes; the rows between hold what later stages need of the past:

* the state of a call, where later stages go on from it (the second stage of Heun's method);
* the denoiser's output;
* one row for both, output + r·state, where every later stage uses the two in the same ratio. That is what a method
  written in ε = (x − α·x0)/σ does: Adams–Bashforth on ε keeps one row a call in place of two.

An output that no later stage needs is added from where the denoiser left it, and is never copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from samplers.core.stage import Stage

SAME_RATIO = 1e-12  # relative; coefficients are float64
# A method in ε mixes at −1/α, 15 at most for Stable Diffusion. Far from 1 the smaller of the two drowns in the rounding
# of the larger, and a rounding residue in a coefficient would make the ratio anything.
MOST_RATIO = 64.0


class Step(NamedTuple):
    """One stage. Numbers of rows count from 0 in the whole buffer; `keep_state` or `keep_x0` of 0 means: keep none."""

    keep_state: int
    keep_x0: int
    mix: float  # keep_x0 gets x0 + mix·state
    first: int  # the combination reads rows first … last−1, the present state's among them where it is needed
    last: int
    weights: tuple[float, ...]  # one for each of these rows
    fresh: float  # the weight of the newest output, which is read where the denoiser left it
    scales: bool  # the new state is weights[0]·state + fresh·x0, in place: rows are not asked for
    target: int  # the row of the new state, 0 or the last


class Program(NamedTuple):
    """`rows` of the past lie between the two that hold the state: the buffer has rows + 2."""

    rows: int
    steps: tuple[Step, ...]


def compiled(stages: Sequence[Stage]) -> Program:
    """Give every past state and output that a later combination needs a row, for as long as it is needed."""
    mixes = _mixes(stages)
    uses = [_uses(i, stage, mixes) for i, stage in enumerate(stages)]
    last_use = {item: i for i, used in enumerate(uses) for item in used}
    row: dict[tuple[str, int], int] = {}
    ends: list[list[tuple[str, int]]] = [[] for _ in stages]  # for each stage, what it is the last to use
    for item, i in last_use.items():
        ends[i].append(item)
    free: list[int] = []
    rows = 0
    placed = []  # for each stage, (row, weight) of what it takes from the past, and the weights of the present
    for i, used in enumerate(uses):
        for item in (("state", i), ("x0", i)):
            if last_use.get(item, i) > i:
                rows += not free
                row[item] = free.pop() if free else rows
        past = [(row[item], weight) for item, weight in used.items() if item in row and item != ("state", i)]
        fresh = 0.0 if ("x0", i) in row else used.get(("x0", i), 0.0)
        placed.append((past, used.get(("state", i), 0.0), fresh))
        free += [row[item] for item in ends[i] if item in row]
    steps, at = [], 0
    for i, (past, own, fresh) in enumerate(placed):
        keep = (row.get(("state", i), 0), row.get(("x0", i), 0), mixes.get(i, 0.0))
        steps.append(Step(*keep, *_combination(past, own, fresh, at, rows + 1)))
        at = steps[-1].target
    return Program(rows, tuple(steps))


def _mixes(stages: Sequence[Stage]) -> dict[int, float]:
    """The calls whose state and output every later stage uses in one ratio state/x0, and that ratio."""
    ratios: dict[int, list[float]] = {}  # NaN where a stage uses one of the two alone
    for i, stage in enumerate(stages):
        for j in range(1, max(len(stage.states), len(stage.x0))):
            a = stage.states[j] if j < len(stage.states) else 0.0
            b = stage.x0[j] if j < len(stage.x0) else 0.0
            if a or b:
                ratios.setdefault(i - j, []).append(a / b if a and b else math.nan)
    return {
        call: found[0]
        for call, found in ratios.items()
        if not any(map(math.isnan, found))
        and max(found) - min(found) <= SAME_RATIO * abs(found[0])
        and 1 / MOST_RATIO <= abs(found[0]) <= MOST_RATIO
    }


def _uses(i: int, stage: Stage, mixes: dict[int, float]) -> dict[tuple[str, int], float]:
    """What stage i adds up: the weight of each item of the buffer by name. A mixed call's output holds its state."""
    used = {("x0", i - j): b for j, b in enumerate(stage.x0) if b}
    states = {i - j: a for j, a in enumerate(stage.states) if a and (j == 0 or i - j not in mixes)}
    if i in mixes and ("x0", i) in used:  # the row of this call holds output + r·state by the time it is read
        states[i] = states.get(i, 0.0) - mixes[i] * used["x0", i]
    return used | {("state", call): a for call, a in states.items() if a}


def _combination(
    past: list[tuple[int, float]], own: float, fresh: float, at: int, end: int
) -> tuple[int, int, tuple[float, ...], float, bool, int]:
    if not past:
        return at, at + 1, (own,), fresh, True, at
    if own:
        past = [*past, (at, own)]
    first, last = min(place for place, _ in past), max(place for place, _ in past) + 1
    weights = [0.0] * (last - first)
    for place, weight in past:
        weights[place - first] += weight
    return first, last, tuple(weights), fresh, False, 0 if at else end
