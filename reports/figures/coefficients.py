"""What samplers do, call by call: the coefficients of their plans, several samplers side by side.

Read from results/plans/*.json. A column of panels a sampler: above, the weights of states; in the middle, the weights
of the denoiser's outputs, a line for each number of calls ago that they were made; below, how much of the new state's
noise is fresh. States are taken over their α, so that samplers of any scaling compare: the weights then add up to 1. In
a method of several calls a step, the call that ends the step has filled markers and the calls inside it hollow ones.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.store import layout
from harness.store.place import Place
from harness.store.records import Store
from reports.records import QUALITY_AXES, Group
from reports.style import COLOURS, MARKERS, Drawing, titled

MOST_PLANS = 4
WITHOUT_EFFECT = [
    a for a in QUALITY_AXES if a not in ("task", "task_knobs", "model", "steps", "strength", "keep_steps")
]
MOST_BYTES = 64 << 20  # of a plan's file
MOST_BACK = 6  # outputs older than that are not told apart


class Weights(NamedTuple):
    """Of every call: weights of `states` and `x0` (calls, how many calls ago), 0 where they are not used."""

    states: np.ndarray
    x0: np.ndarray
    noise: np.ndarray  # (calls,) fresh noise over the σ of the new state
    ends: np.ndarray  # (calls,) whether the call ends a step


def draw(group: Group, store: Store) -> Drawing:
    """The plans of the group's samplers at the number of steps that most of them have."""
    name = f"coefficients-{group.slug}"
    cells = group.cells[group.cells["plan_id"].notna()] if "plan_id" in group.cells else group.cells[:0]
    if cells.empty:
        return Drawing(name, None, "no cell has a plan in results/plans")
    # A plan follows from the sampler, its levels and how many of them run: nothing of the rest need be the same.
    selection = Group(group.task, group.model, cells).select(
        "label", needs=["plan_id"], free=WITHOUT_EFFECT, lines=False
    )
    chosen = selection.cells.drop_duplicates("label").sort_values("label")
    plans = {}
    for label, plan_id in zip(chosen["label"], chosen["plan_id"], strict=True):
        weights = _read(store.place, str(plan_id))
        if weights is not None:
            plans[str(label)] = weights
    if not plans:
        return Drawing(name, None, f"the plans of {len(chosen)} cells are missing or damaged")
    shown = dict(list(plans.items())[:MOST_PLANS])
    left = f"{len(plans) - len(shown)} of {len(plans)} samplers not shown" if len(shown) < len(plans) else ""
    return Drawing(name, _figure(shown, f"{group.task}, {group.model}, {_steps(chosen.iloc[0])}", left), left)


def _steps(row: pd.Series) -> str:
    """Steps and, where only a part of the schedule runs, its strength: no figure has two of them."""
    said = f"{row['steps']:g} steps"
    if pd.isna(row["strength"]):
        return said
    ran = "" if pd.isna(row["steps_run"]) else f" ({row['steps_run']:g} ran)"
    return f"{said} at strength {row['strength']:g}{ran}"


def _read(place: Place, plan_id: str) -> Weights | None:
    try:
        name = layout.plan(plan_id)
        if place.look(name).size > MOST_BYTES:
            return None
        return parsed(json.loads(place.read(name)))
    except (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return None


def parsed(plan: dict[str, Any]) -> Weights:
    """A plan file's numbers, of states over their α. Those older than MOST_BACK calls join the oldest."""
    stages = plan["stages"]
    n = len(stages)
    back = min(MOST_BACK, max(max(len(s["states"]), len(s["x0"])) for s in stages))
    states, x0, noise = np.zeros((n, back)), np.zeros((n, back)), np.zeros(n)
    alphas = [stage["level"][0] for stage in stages]
    for i, stage in enumerate(stages):
        scale = 1 / stage["result"][0]
        for j, a in enumerate(stage["states"]):
            states[i, min(j, back - 1)] += a * scale * alphas[i - j]
        for j, b in enumerate(stage["x0"]):
            x0[i, min(j, back - 1)] += b * scale
        noise[i] = stage["noise"] / stage["result"][1] if stage["noise"] else 0.0
    levels = {tuple(level) for level in zip(*(plan["levels"][key] for key in ("alpha", "sigma", "time")), strict=True)}
    last = {tuple(stage["result"]): i for i, stage in enumerate(stages)}
    ends = np.array([tuple(s["result"]) in levels and last[tuple(s["result"])] == i for i, s in enumerate(stages)])
    return Weights(states, x0, noise, ends)


def _figure(plans: dict[str, Weights], what: str, left: str) -> Figure:
    noisy = any(weights.noise.any() for weights in plans.values())
    inner = any(not weights.ends.all() for weights in plans.values())
    notes = [
        "new state/α' = Σ weight · state/α + Σ weight · denoiser output + noise, for each denoiser call",
        "filled: the call that ends a step; hollow: a call inside a step" if inner else "",
        left,
    ]
    rows = 2 + noisy
    figure = titled(f"Coefficients of the plans: {what}", notes, 1.75 * rows + 0.6, max(7.2, 2.4 * len(plans)))
    grid = figure.subplots(rows, len(plans), sharex="col", sharey="row", squeeze=False)
    for column, (label, weights) in zip(grid.T, plans.items(), strict=True):
        column[0].set_title(label, loc="left")
        _lines(column[0], weights.states, weights.ends)
        _lines(column[1], weights.x0, weights.ends)
        if noisy:
            _noise(column[2], weights)
        column[-1].set_xlabel("denoiser call")
        column[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes, name in zip(
        grid[:, 0], ("weights of states", "weights of outputs", "share of noise\nthat is fresh"), strict=False
    ):
        axes.set_ylabel(name)
    back = max(max(_used(w.states), _used(w.x0)) for w in plans.values())
    handles = [Line2D([], [], color=COLOURS[j], marker=MARKERS[j], label=_ago(j)) for j in range(back)]
    figure.legend(handles=handles, loc="outside lower center", ncols=back)
    return figure


def _ago(j: int) -> str:
    return "this call" if j == 0 else f"{j} call{'s' if j > 1 else ''} ago" + (" or more" if j == MOST_BACK - 1 else "")


def _used(values: np.ndarray) -> int:
    return int(np.flatnonzero(np.abs(values).sum(0))[-1]) + 1 if values.any() else 0


def _lines(axes: Axes, values: np.ndarray, ends: np.ndarray) -> None:
    """A line for each number of calls ago; the calls that end steps and those inside them are joined apart."""
    axes.axhline(0, color="#888888", linewidth=0.8)
    calls = np.arange(len(values))
    for j in range(_used(values)):
        for chosen, filled in ((ends, True), (~ends, False)):
            here = chosen & (values[:, j] != 0)
            axes.plot(
                calls[here], values[here, j], color=COLOURS[j], marker=MARKERS[j], markersize=3.5,
                markerfacecolor=COLOURS[j] if filled else "white", linestyle="-" if filled else ":", linewidth=1,
            )  # fmt: skip


def _noise(axes: Axes, weights: Weights) -> None:
    axes.bar(range(len(weights.noise)), weights.noise, 0.8, color="#555555")
    axes.set_ylim(0, max(1.05, 1.05 * weights.noise.max()))
    if not weights.noise.any():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", fontsize=8, color="#444444")
