"""A sweep in rounds of more and more images, in which cells that are beaten stop: `python -m harness.race WORDS`.

    python -m harness.race sampler=euler,ddim,dpmpp,unipc schedule=karras,gits nfe=5,6,8,10 n_images=64

WORDS are those of `harness.sweep`; n_images is what a cell that never stops is measured on. Of this command itself are
race=discretisation_error (the column of the images table to race by), race.cost=nfe (a column of the cells: a cell is
compared with those that cost no more), race.alpha=0.05 and race.first=8 (images of the first round; each next one has
twice as many). With race.orders=25 nothing stops: every cell is run to the end, and what is told is how so many races
over these images in random orders would have ended.

After a round the cell with the best mean among those that cost no more is compared with each, image by image: a paired
one-sided t test on the metric's own quantity (squares, where the metric is a root mean square), whose level is alpha
divided by all tests that can come, rounds times cells. What is promised: with probability 1 − alpha no cell is stopped
that is not worse than one that costs no more. What is not: the very same front as without a race. Cells that run to
the end and are not on the front are undecided, and listed so. A stopped cell's record is that of its last round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr

from harness.atomic import written_whole
from harness.cell import Cell
from harness.errors import InputError, nearest
from harness.specs import MetricSpec, Settings
from harness.store import layout
from harness.store.records import Store
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.run import guarded, run

# The columns of the images table that can be raced by: the metric that fills each, and what is averaged.
QUANTITIES = {
    "discretisation_error": ("discretisation", np.square),
    "exact_distance": ("exact", np.square),
    "clip_score": ("clip_score", np.negative),
    "attributes_all": ("attributes", np.negative),
    "lpips": ("similarity", np.asarray),
}
FIRST, LEAST = 8, 4


@dataclass(frozen=True)
class Asked:
    """What the race's own words say."""

    column: str = "discretisation_error"
    cost: str = "nfe"
    alpha: float = 0.05
    first: int = FIRST
    orders: int = 0  # of the images that races are rehearsed in, after every cell has run to the end

    @classmethod
    def read(cls, words: Sequence[str]) -> tuple[Asked, list[str]]:
        """The race's words, and those of the sweep."""
        own = {"race": "column", "race.cost": "cost", "race.alpha": "alpha", "race.first": "first"}
        own["race.orders"] = "orders"
        given: dict[str, Any] = {}
        rest = []
        for word in words:
            key, _, text = word.partition("=")
            if key in own:
                given[own[key]] = text
            elif key.startswith("race"):
                raise InputError(f"unknown setting {key!r}; {nearest(key, own)}")
            else:
                rest.append(word)
        for name, kind in (("alpha", float), ("first", int), ("orders", int)):
            try:
                given |= {name: kind(given[name])} if name in given else {}
            except ValueError as error:
                raise InputError(f"race.{name}={given[name]} is not valid: give a number") from error
        made = cls(**given)
        if made.column not in QUANTITIES:
            raise InputError(f"race={made.column!r} is not valid; {nearest(made.column, QUANTITIES)}")
        if not 0 < made.alpha < 1:
            raise InputError(f"race.alpha={made.alpha:g} is not valid: give a probability, as 0.05")
        if made.first < LEAST:
            raise InputError(f"race.first={made.first} is not valid: a test needs at least {LEAST} images")
        if made.orders < 0:
            raise InputError(f"race.orders={made.orders} is not valid: give how many orders of the images to try")
        return made, rest


@dataclass(frozen=True)
class Stop:
    """A cell that was stopped: after so many images, beaten by which, and with which p (uncorrected)."""

    cell: int
    images: int
    by: int
    p: float


def looks(first: int, images: int) -> list[int]:
    """Images of each round: doubled until all are in.

    >>> looks(8, 50)
    [8, 16, 32, 50]
    """
    out = []
    while first < images:
        out.append(first)
        first *= 2
    return [*out, images]


def beaten(values: np.ndarray, cost: np.ndarray, alive: Sequence[int], level: float) -> dict[int, tuple[int, float]]:
    """Which of the cells `alive` are worse than the best that costs no more, as {cell: (by which, p)}.

    `values` (cells, images so far) are smaller where better; `cost` (cells,). A cell without a value in each image is
    neither stopped nor compared with.
    """
    fine = [k for k in alive if np.isfinite(values[k]).all()]
    means = values.mean(1)
    found = {}
    for k in fine:
        rival = min((j for j in fine if cost[j] <= cost[k]), key=lambda j: (means[j], cost[j], j))
        if rival != k:
            p = _one_sided(values[k] - values[rival])
            if p < level:
                found[k] = (rival, p)
    return found


def _one_sided(differences: np.ndarray) -> float:
    """P of a mean as large as theirs if it were 0 in truth, by Student's t."""
    n, spread = len(differences), differences.std(ddof=1)
    if not spread:
        return 0.0 if differences.mean() > 0 else 1.0
    return float(stdtr(n - 1, -differences.mean() / spread * np.sqrt(n)))


def front(values: np.ndarray, cost: np.ndarray, alive: Sequence[int]) -> list[int]:
    """The cells that none of no more cost has a better mean than."""
    means = values.mean(1)
    return [
        k
        for k in alive
        if np.isfinite(means[k])
        and all(means[k] < means[j] or j == k or cost[j] > cost[k] for j in alive if np.isfinite(means[j]))
    ]


def main(words: Sequence[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(__doc__)
        return 0

    def work() -> int:
        asked, rest = Asked.read(words)
        found = enumerate_cells(rest)
        for note in found.notes:
            print(f"note: {note}")
        how = rehearse if asked.orders else race
        return how(asked, list(found.cells.values()), found.settings)

    return guarded(work, debug="debug=true" in words)


def race(asked: Asked, cells: Sequence[Cell], settings: Settings) -> int:
    """Run the race and say how it ended: 0, or the exit code of the sweep that failed."""
    images = min(cell.n_images for cell in cells)
    rounds, store, code = looks(asked.first, images), Store(Path(settings.results_dir)), 0
    level = asked.alpha / (len(rounds) * len(cells))
    alive, stops = list(range(len(cells))), list[Stop]()
    spent = 0
    values, cost = np.empty((len(cells), 0)), np.full(len(cells), np.nan)
    for number, count in enumerate(rounds, 1):
        now = {k: _with_images(cells[k], asked, count) for k in alive}
        code = max(code, run(list(now.values()), settings).code)
        values, cost = _measured(asked, store, now, len(cells), count)
        lost = beaten(values, cost, alive, level)
        stops += [Stop(k, count, by, p) for k, (by, p) in lost.items()]
        spent += count * len(alive)
        alive = [k for k in alive if k not in lost]
        print(f"race, round {number} of {len(rounds)}: {count} images, {len(lost)} cells stopped, {len(alive)} go on")
        if len(alive) == 1 and number < len(rounds):
            rounds_left = rounds[number:]
            print(f"race: one cell is left, rounds of {', '.join(map(str, rounds_left))} images are not run")
            break
    ahead = front(values, cost, alive)
    told = _told(asked, cells, now, values, cost, alive, ahead, stops, spent, images * len(cells))
    path = layout.races(Path(settings.results_dir)) / f"{_name(cells)}.json"
    with written_whole(path) as file:
        file.write(json.dumps(told, indent=1).encode())
    _say(told)
    print(f"written: {path}")
    return code


# ------------------------------------------------------------------------------------------------------- rehearsals


@dataclass(frozen=True)
class Rehearsal:
    """How one race over recorded values ended."""

    alive: list[int]
    images: np.ndarray  # (cells,): images that each cell was measured on
    made: int  # images that the command would have made: those of all rounds, each made anew


def rehearsed(values: np.ndarray, cost: np.ndarray, alpha: float, first: int) -> Rehearsal:
    """The race on values (cells, images), smaller where better, in the order in which they stand."""
    count, total = values.shape
    rounds, alive, made = looks(first, total), list(range(count)), 0
    images = np.zeros(count, int)
    for now in rounds:
        images[alive] = now
        made += now * len(alive)
        lost = beaten(values[:, :now], cost, alive, alpha / (len(rounds) * count))
        alive = [k for k in alive if k not in lost]
        if len(alive) == 1:
            break
    return Rehearsal(alive, images, made)


def loss(values: np.ndarray, cost: np.ndarray, alive: Sequence[int], root: bool) -> float:
    """How much worse the front of the cells `alive` is than that of all, at its worst point: a ratio of means, 1 or
    more, or of their roots; inf where no cell of that cost is left."""
    means = values.mean(1)
    ratios = []
    for k in front(values, cost, range(len(values))):
        left = [means[j] for j in alive if cost[j] <= cost[k]]
        ratios.append(min(left, default=np.inf) / means[k])
    worst = float(max(ratios))
    return worst**0.5 if root else worst


def rehearsals(values: np.ndarray, cost: np.ndarray, asked: Asked) -> dict[str, Any]:
    """What races over random orders of the images (the same ones each time) find, beside what all images say."""
    count, total = values.shape
    rng, root = np.random.default_rng(0), QUANTITIES[asked.column][1] is np.square
    whole, winner = set(front(values, cost, range(count))), int(np.argmin(values.mean(1)))
    found = []
    for _ in range(asked.orders):
        one = rehearsed(values[:, rng.permutation(total)], cost, asked.alpha, asked.first)
        ahead = set(front(values, cost, one.alive))
        found.append(
            {
                "images": float(one.images.sum() / (count * total)),
                "made": one.made / (count * total),
                "cost": float((one.images * cost).sum() / (total * cost.sum())),
                "stopped": count - len(one.alive),
                "winner": winner in one.alive,
                "front_kept": len(whole & set(one.alive)) / len(whole),
                "same_front": ahead == whole,
                "loss": loss(values, cost, one.alive, root),
            }
        )
    return {"cells": count, "images": total, "front": sorted(whole), "winner": winner, "orders": found}


def rehearse(asked: Asked, cells: Sequence[Cell], settings: Settings) -> int:
    """Run every cell to the end, and say how races over their images would have gone."""
    images, store = min(cell.n_images for cell in cells), Store(Path(settings.results_dir))
    now = {k: _with_images(cell, asked, images) for k, cell in enumerate(cells)}
    code = run(list(now.values()), settings).code
    values, cost = _measured(asked, store, now, len(cells), images)
    whole = np.isfinite(values).all(1) & np.isfinite(cost)
    if whole.sum() < 2:
        raise InputError(f"race={asked.column} has a value for {int(whole.sum())} of {len(cells)} cells: nothing races")
    told = rehearsals(values[whole], cost[whole], asked)
    labels = [cell.label for cell, kept in zip(cells, whole, strict=True) if kept]
    told |= {"rule": _rule(asked), "front": [labels[k] for k in told["front"]], "winner": labels[told["winner"]]}
    path = layout.races(Path(settings.results_dir)) / f"{_name(cells)}.rehearsals.json"
    with written_whole(path) as file:
        file.write(json.dumps(told, indent=1).encode())
    _say_rehearsals(told)
    print(f"written: {path}")
    return code


def _say_rehearsals(told: Mapping[str, Any]) -> None:
    orders = told["orders"]
    by = {name: np.array([one[name] for one in orders], float) for name in orders[0]}
    print(
        f"race: {told['cells']} cells of {told['images']} images in {len(orders)} random orders; of the whole grid's "
        f"images {100 * by['images'].mean():.0f} % were needed ({100 * by['made'].mean():.0f} % made, rounds anew), of "
        f"its {told['rule']['cost']} {100 * by['cost'].mean():.0f} %"
    )
    print(
        f"  the best, {told['winner']}, never stopped in {100 * by['winner'].mean():.0f} % of the orders; of the "
        f"front {100 * by['front_kept'].mean():.0f} % kept, the same front in {100 * by['same_front'].mean():.0f} %; "
        f"loss at its worst point {np.median(by['loss']):.3g} in the median, {by['loss'].max():.3g} at worst"
    )


# ------------------------------------------------------------------------------------------------------------ records


def _with_images(cell: Cell, asked: Asked, count: int) -> Cell:
    """The cell on so many images, all of which the metric raced by is measured on."""
    name = QUANTITIES[asked.column][0]
    others = [one for one in cell.metrics if (one if isinstance(one, str) else one["name"]) != name]
    own: Any = MetricSpec({"name": name, "n": count}) if name in ("discretisation", "exact") else name
    return replace(cell, n_images=count, metrics=(*others, own))


def _measured(
    asked: Asked, store: Store, now: Mapping[int, Cell], count: int, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values (cells, images) of what is averaged, smaller where better, and costs (cells,); NaN where there is none."""
    values, cost = np.full((count, images), np.nan), np.full(count, np.nan)
    ids = {cell.cell_id: k for k, cell in now.items()}
    rows = store.images(["cell_id", "image_index", asked.column], list(ids))
    for cell_id, index, value in rows[["cell_id", "image_index", asked.column]].itertuples(index=False):
        values[ids[cell_id], int(index)] = QUANTITIES[asked.column][1](float(value))
    for row in store.rows(list(ids)):
        if asked.cost not in row:
            raise InputError(f"race.cost={asked.cost!r} is no column of the records; {nearest(asked.cost, row)}")
        if row["status"] == "ok" and row[asked.cost] is not None:
            cost[ids[row["cell_id"]]] = float(row[asked.cost])
    return values, cost


def _told(
    asked: Asked,
    cells: Sequence[Cell],
    now: Mapping[int, Cell],
    values: np.ndarray,
    cost: np.ndarray,
    alive: Sequence[int],
    ahead: Sequence[int],
    stops: Sequence[Stop],
    spent: int,
    without: int,
) -> dict[str, Any]:
    ended = {stop.cell: stop for stop in stops}
    out = []
    for k, cell in enumerate(cells):
        one: dict[str, Any] = {"cell": cell.label, "schedule": cell.schedule.name}
        if k in ended:
            stop = ended[k]
            last = _with_images(cell, asked, stop.images)
            one |= {"state": "stopped", "images": stop.images, "by": cells[stop.by].label, "p": stop.p}
        else:
            last = now[k]
            mean = values[k].mean()
            state = "front" if k in ahead else "undecided" if np.isfinite(mean) else "no value"
            one |= {"state": state, "images": last.n_images, "mean": float(mean) if np.isfinite(mean) else None}
            one |= {asked.cost: float(cost[k]) if np.isfinite(cost[k]) else None}
        out.append({**one, "cell_id": last.cell_id})
    return {"rule": _rule(asked), "images_run": spent, "images_without_a_race": without, "cells": out}


def _rule(asked: Asked) -> dict[str, Any]:
    return {"column": asked.column, "cost": asked.cost, "alpha": asked.alpha, "first": asked.first}


def _say(told: Mapping[str, Any]) -> None:
    cells = told["cells"]
    share = told["images_run"] / told["images_without_a_race"]
    print(
        f"race: {len(cells)} cells, {told['images_run']} images in all rounds ({100 * share:.0f} % of a sweep without "
        f"one); {sum(one['state'] == 'stopped' for one in cells)} stopped, "
        f"{sum(one['state'] == 'undecided' for one in cells)} undecided"
    )
    cost = told["rule"]["cost"]
    ahead = sorted((one for one in cells if one["state"] == "front"), key=lambda one: one[cost])
    for one in ahead:
        print(f"  front: {cost} {one[cost]:g}: {one['cell']}, {one['schedule']}; mean {one['mean']:.4g}")


def _name(cells: Sequence[Cell]) -> str:
    import hashlib

    return hashlib.sha256(" ".join(sorted(cell.cell_id for cell in cells)).encode()).hexdigest()[:16]
