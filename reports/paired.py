"""What figures and tables know of differences between cells: `differences` and the Pareto `front`.

    from reports.paired import differences, front, read_images

    images = read_images(Store("results"), cells, ["fid"])      # once for all metrics that are asked for
    differences(cells, images, "fid")                           # to the best cell of each comparable group
    differences(cells, images, "fid", to=converged_cell_id)     # to one cell
    front(cells, images, "fid", cost="latency_s")               # who leads at its price

Both give a frame with the index of `cells`; columns and statistics are told in harness/verdict/paired.py and below.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.verdict.measures import measure
from harness.verdict.paired import ALPHA, BEST, Images, compared, differences, groups_of, p_below, read_images

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

    def apart(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of these rows differs from the other one, beyond chance."""
        return p_below(values, column[ones], column[others], alpha) < alpha

    # Only a row better than all the cheaper ones can be on the front. Where it is tied with any of them, it mostly is
    # with the best so far; so that one is asked first.
    better = np.concatenate([[0], 1 + np.flatnonzero(loss[1:] < np.minimum.accumulate(loss)[:-1])])
    front, tied = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    front[0], keeper = True, np.zeros(len(rows), np.int64)
    keeper[better[1:]] = better[:-1]
    for k in better[1:][apart(better[1:], better[:-1])]:
        close = np.flatnonzero(~apart(np.full(k, k), np.arange(k)))
        front[k] = len(close) == 0
        if len(close):
            keeper[k] = close[compared(values, int(column[k]), column[close]).p.argmax()]
    led_by = np.concatenate([[0], np.maximum.accumulate(np.where(front, np.arange(len(rows)), 0))[:-1]])
    # Better than the front beyond chance, but for a cheaper cell that it is tied with.
    kept = better[~front[better]]
    kept = kept[apart(kept, led_by[kept])]
    led_by[kept], tied[kept] = keeper[kept], True
    asked = np.flatnonzero(~front & ~tied)
    tied[asked] = ~apart(led_by[asked], asked)
    found.loc[rows.index, "front"], found.loc[rows.index, "tied"] = front, tied
    found.loc[rows.index, "leader"] = np.where(front, np.nan, rows["cell_id"].to_numpy(object)[led_by])
