"""Latencies beside one another: the ratio to the fastest cell that was timed in the same rounds (store/timings.py)."""

from __future__ import annotations

import pandas as pd

from harness.store.records import Store
from harness.store.timings import Ratio, paired_ratio

COLUMNS = ("cell_id", "block", "round", "kind", "total_s")


def timings(store: Store, cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """cell_id → the rows of its timed runs; empty where it has none."""
    rows = store.timings(COLUMNS, list(cells["cell_id"]))
    found = dict(list(rows.groupby("cell_id", sort=False)))
    return {cell_id: found.get(cell_id, rows.iloc[:0]) for cell_id in cells["cell_id"]}


def to_fastest(cells: pd.DataFrame, store: Store) -> dict[object, Ratio | None]:
    """Label → ratio to the fastest cell of its block, None for that cell itself.

    Cells without one are left out: those timed alone, in too few rounds, or by a version that had no rounds.
    """
    timed = cells[cells["latency_s"].notna()]
    if len(timed) < 2:
        return {}
    rows = timings(store, timed)
    blocks = pd.Series({place: _block(rows[cell_id]) for place, cell_id in timed["cell_id"].items()}, dtype=object)
    out: dict[object, Ratio | None] = {}
    for _, places in blocks.dropna().groupby(blocks.dropna()).groups.items():
        fastest = timed.loc[places, "latency_s"].astype(float).idxmin()
        ratios = {
            place: paired_ratio(rows[timed.loc[fastest, "cell_id"]], rows[timed.loc[place, "cell_id"]])
            for place in places
            if place != fastest
        }
        known = {place: ratio for place, ratio in ratios.items() if ratio is not None}
        out |= {fastest: None, **known} if known else {}
    return out


def _block(rows: pd.DataFrame) -> str | None:
    """The last sitting that the cell was timed in."""
    blocks = rows["block"].dropna()
    return blocks.iloc[-1] if len(blocks) else None
