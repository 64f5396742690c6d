"""Care of the records: `python -m harness.store list|compact|repair [RESULTS]`. Imports no torch.

compact   puts the files of many cells into one a table: thousands of small files are slow to read
repair    reads everything, sets damaged files aside, restores what can be restored, says which cells must run again
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.atomic import mark
from harness.errors import InputError, one_line
from harness.schema import STATUSES, TABLES, to_arrow
from harness.store import CELL_ID, Store, checked_columns, copied_row, joined, write_complete

LARGE = 1000  # files of one cell, from which on a sweep compacts when it ends
GROUP_ROWS = {"cells": 256, "images": 65_536, "timings": 65_536}  # rows that one damaged place may cost
STEM = re.compile(r"compacted-(\d+)")


# ------------------------------------------------------------------------------------------------------- compaction


def compact(store: Store) -> int:
    """Put all records into one file a table; how many files of one cell went into it.

    Whatever the moment of a kill: until the new file of `cells` has its name, nothing refers to the others; from then
    on a cell's own file still goes before it, and both say the same. Writers wait while it runs, readers do not.
    """
    try:
        for name in TABLES:
            (store.root / name).mkdir(parents=True, exist_ok=True)
        with store.locked(alone=True):
            return _compact(store)
    except OSError as error:
        raise store.unwritable(error) from error


def compact_if_large(store: Store) -> int:
    loose = sum(1 for path in (store.root / "cells").glob("[0-9a-f]*.parquet") if CELL_ID.fullmatch(path.stem))
    return compact(store) if loose >= LARGE else 0


def _compact(store: Store) -> int:
    home, shared = store.homes()
    loose = [cell_id for cell_id, stem in home.items() if cell_id == stem]
    if loose or len(shared) > 1:
        stem = _next_stem(store)
        for name in ("images", "timings", "cells"):  # the cells' file comes last: it makes the others count
            _write_compacted(store, name, stem)
        keep = {stem}
    else:
        keep = set(shared)
    _remove_all_but(store, keep)
    return len(loose)


def _next_stem(store: Store) -> str:
    """A name that no file has, nor had one that was set aside."""
    names = [path.stem for folder in (*TABLES, "quarantine") for path in (store.root / folder).rglob("*.parquet")]
    numbers = [int(match[1]) for match in map(STEM.search, names) if match]
    return f"compacted-{max(numbers, default=0) + 1:06d}"


def _write_compacted(store: Store, name: str, stem: str) -> None:
    table = joined(name, store.tables(name))
    order = [("cell_id", "ascending")] + [(c, "ascending") for c in ("image_index", "run") if c in table.column_names]
    table = table.sort_by(order).replace_schema_metadata(joined(name, []).schema.metadata)
    path = store.root / name / f"{stem}.parquet"
    temporary = path.with_name(f".{stem}.{mark()}.tmp")
    try:
        write_complete(table, temporary, rows=GROUP_ROWS[name])
        if pq.read_metadata(temporary).num_rows != table.num_rows:
            raise OSError(f"{temporary} came out incomplete")
        os.replace(temporary, path)
        _settle(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_all_but(store: Store, keep: set[str]) -> None:
    """First the files that make others count. Images of a damaged record stay: it may be restored from them."""
    damaged = {path.stem.partition("-")[2] for path in (store.root / "quarantine").glob("cells-*")}
    for name in ("cells", "images", "timings"):
        for path in _files(store, name):
            if path.stem not in keep and (name == "cells" or path.stem not in damaged):
                path.unlink(missing_ok=True)
        _settle(store.root / name)


def _files(store: Store, name: str) -> list[Path]:
    return sorted((store.root / name).glob("[!._]*.parquet"))


def _settle(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ----------------------------------------------------------------------------------------------------------- repair


@dataclass
class Repaired:
    """What a repair found. `lost`: files with nothing left to save; `rerun`: cells that must run again, and why."""

    damaged: int = 0
    restored: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    rerun: dict[str, str] = field(default_factory=dict)


def repair(store: Store) -> Repaired:
    """Read every record, restore what can be restored, and mark as failed what must run again."""
    for name in TABLES:
        for path in _files(store, name):
            with suppress(FileNotFoundError):
                store.read(path)
    found = Repaired()
    try:
        for path in sorted((store.root / "quarantine").glob("*.parquet")):
            if path.stem.partition("-")[0] not in TABLES:  # named by others: no guide to where it goes
                continue
            found.damaged += 1
            _repair_one(store, path, found)
        _mark(store, found)
    except OSError as error:
        raise store.unwritable(error) from error
    return found


def _repair_one(store: Store, path: Path, found: Repaired) -> None:
    name, _, stem = path.stem.partition("-")
    target = store.root / name / f"{stem}.parquet"
    if not target.exists():  # else the cell has run again since
        tables = list(_salvaged(path, name)) or (_from_copy(store, path, stem) if name == "cells" else [])
        if tables:
            temporary = target.with_name(f".{stem}.{mark()}.tmp")
            with store.locked():
                write_complete(joined(name, tables), temporary, rows=GROUP_ROWS[name])
                os.replace(temporary, target)
            found.restored.append(f"{target} ({sum(len(table) for table in tables)} rows)")
        else:
            found.lost.append(path.name)
        if name == "cells":
            saved = {cell_id for table in tables for cell_id in table["cell_id"].to_pylist()}
            found.rerun |= dict.fromkeys(_members(store, stem) - saved, "its record is lost")
        elif name == "images":
            found.rerun |= dict.fromkeys(_members(store, stem), "rows of its images are lost")
    examined = path.parent / "examined" / path.name
    examined.parent.mkdir(exist_ok=True)
    os.replace(path, examined)


def _members(store: Store, stem: str) -> set[str]:
    """The cells whose rows a file of that name has, as far as a readable one of the same name says."""
    if CELL_ID.fullmatch(stem):
        return {stem}
    paths = [store.root / name / f"{stem}.parquet" for name in TABLES]
    tables = [store.read(path, ["cell_id"]) for path in paths if path.exists()]
    return {cell_id for table in tables if table is not None for cell_id in table["cell_id"].to_pylist()}


def _salvaged(path: Path, name: str) -> Iterator[pa.Table]:
    """The parts of a damaged file that read well, whole rows only."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        checked_columns(name, file.schema_arrow, None)
    except (pa.ArrowException, OSError):  # cut off: parquet keeps what it needs to be read at its end
        return
    with file:
        for group in range(file.num_row_groups):
            with suppress(pa.ArrowException, OSError):
                yield file.read_row_group(group, use_threads=False)


def _from_copy(store: Store, path: Path, cell_id: str) -> list[pa.Table]:
    """The cell's row as the damaged file's own metadata or its images' file remembers it."""
    row = copied_row(path) or copied_row(store.root / "images" / f"{cell_id}.parquet")
    if row is None or row.get("cell_id") != cell_id:
        return []
    with suppress(pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):  # of wrong types
        return [to_arrow("cells", [row])]
    return []


def _mark(store: Store, found: Repaired) -> None:
    """Cells with fewer rows of images than they had become failed cells, which the same sweep runs again."""
    counts: dict[str, int] = {}
    for table in store.tables("images", ["cell_id"], list(found.rerun)):
        for item in pc.value_counts(table["cell_id"].combine_chunks()).to_pylist():
            counts[item["values"]] = item["counts"]
    for row in store.rows(list(found.rerun)):
        cell_id = row["cell_id"]
        if row["status"] != "ok" or counts.get(cell_id, 0) == row["n_images"]:
            del found.rerun[cell_id]
            continue
        images, timings = (_plain_rows(store, name, cell_id) for name in ("images", "timings"))
        known = {column.name for column in TABLES["cells"]}
        row = {key: value for key, value in row.items() if key in known}
        store.write({**row, "status": "failed", "error": f"repair: {found.rerun[cell_id]}"}, images, timings)


def _plain_rows(store: Store, name: str, cell_id: str) -> list[dict[str, object]]:
    known = {column.name for column in TABLES[name]}
    rows = [row for table in store.tables(name, None, [cell_id]) for row in table.to_pylist()]
    return [{key: value for key, value in row.items() if key in known} for row in rows]


# --------------------------------------------------------------------------------------------------------- commands


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.store", description="Look after recorded sweeps.")
    parser.add_argument("command", choices=("list", "compact", "repair"))
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder of records")
    asked = parser.parse_args(words)
    store = Store(asked.results)
    try:
        if not (store.root / "cells").is_dir():
            raise InputError(f"no records in {store.root}: give the results folder of a sweep")
        return {"list": _list, "compact": _say_compacted, "repair": _say_repaired}[asked.command](store)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _list(store: Store) -> int:
    recorded = list(store.recorded().values())
    print(f"{len(recorded)} cells: " + ", ".join(f"{recorded.count(status)} {status}" for status in STATUSES))
    for name in TABLES:
        files = _files(store, name)
        rows = sum(len(table) for table in store.tables(name, ["cell_id"]))
        many = sum(1 for path in files if not CELL_ID.fullmatch(path.stem))
        size = sum(path.stat().st_size for path in files) / 2**20
        print(f"{name}: {rows} rows in {len(files) - many} files of one cell and {many} of many, {size:.1f} MiB")
    running = len(list((store.root / "leases").glob("*.json")))
    damaged = len(list((store.root / "quarantine").glob("*.parquet")))
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
