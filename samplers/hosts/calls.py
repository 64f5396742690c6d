"""Where the steps of a plan begin among its calls: hosts speak of steps, a plan has calls. No torch."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from samplers import registry
from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.stage import Stage, first_order


def first_calls(plan: Plan, levels: NoiseLevels) -> list[int]:
    """The call that each step begins with: the first after the state has come to the step's level for good."""
    last_at = {stage.result: i for i, stage in enumerate(plan.stages)}
    first = [0]
    for k in range(1, levels.steps):
        if levels[k] not in last_at:  # the plan has steps of its own
            break
        first.append(last_at[levels[k]] + 1)
    return first


def calls_a_step(first_calls: list[int], calls: int, steps: int) -> int:
    """How many calls most of the steps make; 1 where the plan's steps are not those between the levels.

    >>> calls_a_step([0, 2, 4], calls=5, steps=3)  # Heun's method, whose last step is Euler's
    2
    """
    if len(first_calls) != steps:
        return 1
    sizes = [b - a for a, b in zip(first_calls, [*first_calls[1:], calls], strict=True)]
    return Counter(sizes).most_common(1)[0][0]


def by_euler(levels: list[Level]) -> list[Stage] | None:
    """One call and one Euler step from each level to the next; None where the next level has more noise."""
    stages = []
    for now, then in pairwise(levels):
        if near(now) == near(then):  # the second call of Heun's method looks where its step ends
            stages.append(Stage(now, then, (1.0,), ()))
        elif then.ratio < now.ratio:
            a, b = first_order(now, then)
            stages.append(Stage(now, then, (a,), (b,)))
        else:
            return None
    return stages


def near(level: Level) -> tuple[float, float, float]:
    """The level's numbers, rounded: equal for levels that differ by rounding alone."""
    return round(level.alpha, 9), round(level.sigma, 9), round(level.time, 6)


def planned(sampler: dict, host: str) -> dict:
    """The whole sampler of a name and knobs; a ValueError where it has no plan that a host could call through."""
    full = sampler if "solver" in sampler else {**registry.load(sampler["name"]), **sampler}
    if registry.is_adaptive(full):
        raise ValueError(
            f"sampler {full['name']} chooses its steps while it runs, but {host} wants to know them before: take "
            "another sampler"
        )
    registry.knobs(full)
    return full
