"""Care of the records, which `python -m harness.store` calls for. Imports no torch.

compact   puts the files of many cells into one a table: thousands of small files are slow to read
repair    reads everything, sets damaged files aside, restores what can be restored, says which cells must run again
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.atomic import mark
from harness.store.records import CELL_ID, Store, checked_columns, copied_row, joined, write_complete
from harness.store.schema import TABLES, to_arrow

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
        for path in files(store, name):
            if path.stem not in keep and (name == "cells" or path.stem not in damaged):
                path.unlink(missing_ok=True)
        _settle(store.root / name)


def files(store: Store, name: str) -> list[Path]:
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
        for path in files(store, name):
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
