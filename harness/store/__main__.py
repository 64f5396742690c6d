"""Care of the records: `python -m harness.store list|compact|repair [RESULTS]`. Imports no torch.

compact   puts the files of many cells into one a table: thousands of small files are slow to read
repair    reads everything, sets damaged files aside, restores what can be restored, says which cells must run again
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import InputError, interruptible, one_line
from harness.store import layout
from harness.store.layout import CELL_ID
from harness.store.records import Store
from harness.store.schema import STATUSES, TABLES
from harness.store.upkeep import compact, repair


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.store", description="Look after recorded sweeps.")
    parser.add_argument("command", choices=("list", "compact", "repair"))
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder of records")
    asked = parser.parse_args(words)
    try:
        store = Store(asked.results)
        if not (store.files("cells") or store.place.names(layout.QUARANTINE)):
            raise InputError(f"no records in {store.place}: give the results folder of a sweep")
        return {"list": _list, "compact": _say_compacted, "repair": _say_repaired}[asked.command](store)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _list(store: Store) -> int:
    recorded = list(store.recorded().values())
    print(f"{len(recorded)} cells: " + ", ".join(f"{recorded.count(status)} {status}" for status in STATUSES))
    for name in TABLES:
        found = store.files(name)
        rows = sum(len(table) for table in store.tables(name, ["cell_id"]))
        many = sum(1 for file in found if not CELL_ID.fullmatch(layout.stem_of(file)))
        size = sum(store.place.look(file).size for file in found) / 2**20
        print(f"{name}: {rows} rows in {len(found) - many} files of one cell and {many} of many, {size:.1f} MiB")
    running = sum(1 for name in store.place.below(layout.LEASES) if layout.LEASE.fullmatch(name))
    damaged = sum(1 for name in store.place.names(layout.QUARANTINE) if layout.is_record(name))
    print(f"{running} cells being run, {damaged} damaged files set aside")
    return 0


def _say_compacted(store: Store) -> int:
    count = compact(store)
    print(f"{count} files of one cell put together" if count else "nothing to put together")
    return 0


def _say_repaired(store: Store) -> int:
    """0: nothing is missing now; 1: some cells must run again."""
    found = repair(store)
    print(f"{found.damaged} damaged files, {len(found.restored)} restored, {len(found.lost)} with nothing left to save")
    for line in found.restored:
        print(f"restored: {one_line(line)}")
    for line in found.lost:
        print(f"nothing left to save: {one_line(line)}")
    for cell_id, why in sorted(found.rerun.items()):
        print(f"must run again: {cell_id} ({why}); the sweep that recorded it runs it when started again")
    return 1 if found.rerun or any(not name.startswith("timings-") for name in found.lost) else 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
