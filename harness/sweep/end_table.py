"""What a person sees after a sweep: its table, and what failed and why."""

from __future__ import annotations

from rich.console import Console

from harness.cell import Cell
from harness.errors import one_line
from harness.executors.base import Record
from harness.store.records import Store


def summary(store: Store, cells: list[Cell], *, ran: int, missing: int, debug: bool, failures: list[Record]) -> None:
    """The table of this sweep's cells, what failed and why, how many are `missing`, and where the records are."""
    from harness.verdict import table  # pandas and scipy take a second: after the work, not before its first line
    from harness.verdict.paired import read_cells

    console = Console()
    if not console.is_terminal:
        console = Console(width=table.NARROW)
    if missing < len(cells):
        table.show(table.end_table(read_cells(store, [cell.cell_id for cell in cells]), store), console)
    for failure in failures:
        row = failure.cell
        what = f"failed {row['cell_id']} ({row['task']} {row['sampler']} {row['steps']} steps): {row['error']}"
        console.print(one_line(what), style="red", markup=False, highlight=False, soft_wrap=True)
        if debug and failure.traceback:
            console.print(failure.traceback, markup=False, highlight=False)
    console.print(
        f"{ran} cells run, {len(cells) - ran - missing} already recorded, {len(failures)} failed"
        + (f", {missing} not recorded yet" if missing else "")
        + f"; records in {store.place}/cells",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
