"""Care of the records, which `python -m harness.store` calls for. Imports no torch.

compact   puts the files of many cells into one a table: thousands of small files are slow to read
repair    reads everything, sets damaged files aside, restores what can be restored, says which cells must run again
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from harness.store import layout, numbers, parquet_files
from harness.store.layout import CELL_ID
from harness.store.parquet_files import copied_row, joined
from harness.store.records import GROUP_ROWS, Store
from harness.store.schema import TABLES

LARGE = 1000  # files of cells, from which on a sweep compacts: while it runs, and when it ends
FEW = 10_000  # cells: a sweep puts files of fewer together, and leaves a larger one as it is
# Files that it puts together at one time while it runs: half a second, for which all writers wait. Workers that end
# their cells meanwhile begin the next ones at one moment, and end them so as well: longer waits make them a crowd.
SLICE = 25


# ------------------------------------------------------------------------------------------------------- compaction


def compact(store: Store, few: int | None = None, least: int = 0, most: int | None = None) -> int:
    """Put all records into one file a table, or with `few` those of files of fewer cells; how many were in own files.

    Nothing is done where there are fewer than `least` files of cells. `most`: so many files at most, of one size.

    Safe to kill at any moment. Before the new `cells` file is renamed into place, nothing points to the new `images`
    and `timings` files. After that, a cell's own file still takes precedence, and both hold the same rows. Writers wait
    while it runs, readers do not.
    """
    try:
        with store.place.locked(alone=True):
            if len(store.files("cells")) < least:  # another did it while we waited
                return 0
            return _compact(store, few, most)
    except OSError as error:
        raise store.unwritable(error) from error


def compact_if_large(store: Store, most: int | None = None) -> int:
    """Put files of few cells together where there are many files and the place can be locked; else nothing is done.

    Larger files stay as they are: neither memory nor time grow with what was recorded long ago.
    """
    done, before = 0, -1
    while store.place.lockable and (count := len(store.files("cells"))) >= LARGE and count != before:
        done, before = done + compact(store, FEW, LARGE, most), count  # `most` at a time: others get their turn between
    return done


def _compact(store: Store, few: int | None, most: int | None) -> int:
    # A cell that a larger file has as well, left out here, is in two files then as before: the later record counts.
    file_of, shared = store.files_of_cells(few)
    together = _of_one_size({stem: len(shared.get(stem, ())) for stem in {*file_of.values(), *shared}}, most)
    loose = len(together - shared.keys())
    keep = {layout.stem_of(file) for file in store.files("cells")}
    if loose or len(together) > 1:
        made = numbers.reserve(store.place)  # no file has it, not even one that was set aside
        chosen = {cell_id: stem for cell_id, stem in file_of.items() if stem in together}
        for name in ("images", "timings", "cells"):  # the cells' file comes last: it makes the others count
            _write_compacted(store, name, numbers.stem(made), list(store.tables_of(name, None, chosen, shared)))
        numbers.compacted(store.place, made)
        keep = {numbers.stem(made), *(keep - together)}
    _remove_all_but(store, keep)
    return loose


def _of_one_size(cells: Mapping[str, int], most: int | None) -> set[str]:
    """All of these files, or `most` of those of which there are most: of as many digits of `cells`.

    So a cell is written again each time that its file grows by `most`, however long the sweep is.
    """
    if most is None:
        return set(cells)
    by_digits: dict[int, list[str]] = {}
    for stem, count in sorted(cells.items()):
        by_digits.setdefault(len(str(count)), []).append(stem)
    return set(max(by_digits.values(), key=len, default=[])[:most])


def _write_compacted(store: Store, name: str, stem: str, tables: list[pa.Table]) -> None:
    table = joined(name, tables)
    order = [("cell_id", "ascending")] + [(c, "ascending") for c in ("image_index", "run") if c in table.column_names]
    table = table.sort_by(order).replace_schema_metadata(joined(name, []).schema.metadata)
    with store.place.writing(layout.record(name, stem)) as sink:
        parquet_files.write(table, sink, rows=GROUP_ROWS[name])
        _check_complete(sink, table.num_rows, f"{name}/{stem}")
    store.place.settle(layout.records(name))


def _check_complete(sink: BinaryIO, rows: int, what: str) -> None:
    """OSError where the file, read back before it gets its name, does not have all rows."""
    sink.flush()
    sink.seek(0)
    if pq.read_metadata(sink).num_rows != rows:
        raise OSError(f"{what} came out incomplete")


def _remove_all_but(store: Store, keep: set[str]) -> None:
    """Remove the other files, those that make others count first. A damaged record may need its images: they stay."""
    set_aside = map(layout.stem_of, store.place.names(f"{layout.QUARANTINE}cells-"))
    damaged = {stem.partition("-")[2] for stem in set_aside}
    for name in ("cells", "images", "timings"):
        for file in store.files(name):
            stem = layout.stem_of(file)
            if stem not in keep and (name == "cells" or stem not in damaged):
                store.place.delete(file)
        store.place.settle(layout.records(name))


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
        for file in store.files(name):
            with suppress(FileNotFoundError):
                store.read(file)
    found = Repaired()
    try:
        for file in store.place.names(layout.QUARANTINE):
            named = layout.stem_of(file).partition("-")[0]
            if named not in TABLES or not layout.is_record(file):  # named by others: no guide to where it goes
                continue
            found.damaged += 1
            _repair_one(store, file, found)
        _mark(store, found)
    except OSError as error:
        raise store.unwritable(error) from error
    return found


def _repair_one(store: Store, damaged: str, found: Repaired) -> None:
    name, _, stem = layout.stem_of(damaged).partition("-")
    target = layout.record(name, stem)
    if not store.place.exists(target):  # else the cell has run again since
        tables = list(_salvaged(store, damaged, name)) or (_from_copy(store, damaged, stem) if name == "cells" else [])
        if tables:
            with store.place.locked(), store.place.writing(target) as sink:
                parquet_files.write(joined(name, tables), sink, rows=GROUP_ROWS[name])
            found.restored.append(f"{store.place}/{target} ({sum(len(table) for table in tables)} rows)")
        else:
            found.lost.append(damaged.removeprefix(layout.QUARANTINE))
        if name == "cells":
            saved = {cell_id for table in tables for cell_id in table["cell_id"].to_pylist()}
            found.rerun |= dict.fromkeys(_members(store, stem) - saved, "its record is lost")
        elif name == "images":
            found.rerun |= dict.fromkeys(_members(store, stem), "rows of its images are lost")
    store.place.move(damaged, layout.examined(damaged))


def _members(store: Store, stem: str) -> set[str]:
    """Ids of the cells in the files named `stem`: the name itself, or what those of many cells say that can be read."""
    if CELL_ID.fullmatch(stem):
        return {stem}
    files = [layout.record(name, stem) for name in TABLES]
    tables = [store.read(file, ["cell_id"]) for file in files if store.place.exists(file)]
    return {cell_id for table in tables if table is not None for cell_id in table["cell_id"].to_pylist()}


def _salvaged(store: Store, damaged: str, name: str) -> Iterator[pa.Table]:
    """The parts of a damaged file that read well, whole rows only."""
    with store.place.open(damaged) as source:
        try:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            parquet_files.checked_columns(name, file.schema_arrow, None)
        except (pa.ArrowException, OSError):  # cut off: parquet keeps what it needs to be read at its end
            return
        for group in range(file.num_row_groups):
            with suppress(pa.ArrowException, OSError):
                yield file.read_row_group(group, use_threads=False)


def _from_copy(store: Store, damaged: str, cell_id: str) -> list[pa.Table]:
    """The cell's row as the damaged file's own metadata or its images' file remembers it."""
    row = copied_row(store.place, damaged)
    if row is None and CELL_ID.fullmatch(cell_id):
        row = copied_row(store.place, layout.record("images", cell_id))
    if row is None or row.get("cell_id") != cell_id:
        return []
    table = parquet_files.table_of_copy(row)
    return [] if table is None else [table]


def _mark(store: Store, found: Repaired) -> None:
    """Cells with fewer rows of images than they had become failed cells, which the same sweep runs again."""
    counts: dict[str, int] = {}
    for table in store.tables("images", ["cell_id"], list(found.rerun)):
        for item in table["cell_id"].value_counts().to_pylist():
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
