"""What figures and tables know of differences between cells: `differences` and the Pareto `front`.

    from reports.paired import differences, front, read_images

    images = read_images(Store("results"), cells, ["fid"])      # once for all metrics that are asked for
    differences(cells, images, "fid")                           # to the best cell of each comparable group
    differences(cells, images, "fid", to=converged_cell_id)     # to one cell
    front(cells, images, "fid", cost="latency_s")               # who leads at its price

Both give a frame with the index of `cells`; columns and statistics are told in harness/verdict/paired.py and below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.verdict.measures import measure
from harness.verdict.paired import ALPHA, BEST, Images, compared, differences, groups_of, read_images

__all__ = ["ALPHA", "BEST", "differences", "front", "read_images"]


def front(
    cells: pd.DataFrame, images: pd.DataFrame | Images | None, metric: str, cost: str = "latency_s"
) -> pd.DataFrame:
    """Which cells are worth their cost: a row a cell that has both, with the index of `cells`, the cheapest first.

    A cell is on the front only where it is significantly better than every cell that costs as much or less; of cells
    that cannot be told apart the cheapest leads, at one cost the best. Each comparable group has a front of its own.
    Corrected for all pairs of a group (Bonferroni).

        cell_id, group, cost, value
        front       whether the cell is on the front
        leader      cell_id of the cell that is preferred to it (null on the front): the front's at its cost, or the
                    cheaper cell that keeps it from the front
        tied        whether it cannot be told from its leader; False on the front
    """
    what, price = measure(metric), measure(cost)
    good = cells[(cells["status"] == "ok") & cells[what.column].notna() & cells[price.column].notna()]
    found = pd.DataFrame(
        {
            "cell_id": good["cell_id"],
            "group": groups_of(good, what),
            "cost": good[price.column].astype(float) * (-1 if price.higher_is_better else 1),
            "value": good[what.column].astype(float),
            "front": False,
            "leader": pd.Series(None, good.index, dtype=object),
            "tied": False,
        }
    )
    found["loss"] = -found["value"] if what.higher_is_better else found["value"]
    found = found.sort_values(["group", "cost", "loss"], kind="stable")
    values = images if isinstance(images, Images) else Images(good, images, what)
    for _, rows in found.groupby("group", sort=False):
        _lead(found, rows, values)
    found["cost"] = good[price.column].astype(float).reindex(found.index)
    return found.drop(columns="loss").sort_values(["group", "cost"], kind="stable")


def _lead(found: pd.DataFrame, rows: pd.DataFrame, values: Images) -> None:
    """Fill in one group, whose rows come from cheap to dear."""
    alpha = ALPHA / max(1, len(rows) * (len(rows) - 1) // 2)
    column, loss = values.places(rows["cell_id"]), rows["loss"].to_numpy()

    def p(k: int, rivals: Sequence[int] | np.ndarray) -> np.ndarray:
        """Of the comparison of row k with each rival, not corrected."""
        return compared(values, int(column[k]), column[rivals]).p

    front, tied = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    led_by = np.zeros(len(rows), np.int64)
    leader = best = 0
    front[0] = True
    for k in range(1, len(rows)):
        led_by[k] = leader
        if loss[k] >= loss[best]:
            continue
        # The best so far first: where a cell is tied with any, it mostly is with that one.
        keeper, hardest = best, p(k, [best])
        if hardest[0] < alpha:
            hardest = p(k, np.arange(k))
            keeper = int(hardest.argmax())
        best = k
        if hardest.max() < alpha:
            front[k], leader = True, k
        elif p(k, [leader])[0] < alpha:
            led_by[k], tied[k] = keeper, True
    # Whoever is led by the front's own cell is asked about it at once with the others.
    asked = np.flatnonzero(~front & ~tied)
    tied[asked] = compared(values, column[led_by[asked]], column[asked]).p >= alpha
    found.loc[rows.index, "front"], found.loc[rows.index, "tied"] = front, tied
    found.loc[rows.index, "leader"] = np.where(front, np.nan, rows["cell_id"].to_numpy(object)[led_by])
