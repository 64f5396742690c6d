"""One parquet file of records: how it is written and read, and the copy of a cell's row in it. Imports no torch.

A cell's own files of `cells` and `images` carry its row as JSON in their metadata: that is read four times as fast as
two hundred columns of one row each, and restores a record whose own file was damaged.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.store import layout
from harness.store.place import Place
from harness.store.schema import SCHEMA_VERSION, arrow_schema, to_arrow

COPY_KEY = "cell_row"  # in the metadata
# What `to_arrow` raises where values are of wrong types.
MISFITS = (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError)


# ---- writing


def write(table: pa.Table, sink: BinaryIO, more: Mapping[str, str] | None = None, rows: int | None = None) -> None:
    """Write `table` to `sink`, `rows` a row group, with `more` metadata."""
    # Statistics, dictionaries, compression and a second copy of the schema would be most of a one-row file.
    many = table.num_rows > 1
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="snappy" if many else "none",
        use_dictionary=many,
        write_statistics=["cell_id"] if rows else False,  # pyright: ignore[reportArgumentType]  (a list is taken)
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata({**(table.schema.metadata or {}), **(more or {})})


def as_parquet(table: pa.Table, more: Mapping[str, str] | None = None, rows: int | None = None) -> bytes:
    """The content of a file of `table`, `rows` a row group."""
    sink = BytesIO()
    write(table, sink, more, rows)
    return sink.getvalue()


def copy_of(row: pa.Table) -> dict[str, str]:
    """Metadata that remembers a cell's row, a table of one row, as text that `to_arrow` takes again."""
    values = {name: value for name, value in row.to_pylist()[0].items() if value is not None}
    return {COPY_KEY: json.dumps(values, ensure_ascii=False, default=lambda moment: moment.isoformat())}


# ---- reading


def read(
    place: Place, name: str, columns: Sequence[str] | None, cell_ids: Collection[str] | None
) -> tuple[pa.Table, pa.Schema]:
    """The rows of one file, those of `cell_ids` alone where given, and the schema that it was written with."""
    with place.open(name) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
        wanted = checked_columns(layout.table_of(name), file.schema_arrow, columns)
        if cell_ids is None:
            return file.read(wanted, use_threads=False), file.schema_arrow
        return _rows_of(file, wanted, cell_ids), file.schema_arrow


def checked_columns(name: str, found: pa.Schema, columns: Sequence[str] | None) -> list[str] | None:
    """Which columns of a file to read (None: all); ArrowInvalid where its rows are not rows of this table."""
    ours = arrow_schema(name)
    for needed in ("cell_id", "status") if name == "cells" else ("cell_id",):
        if needed not in found.names:
            raise pa.ArrowInvalid(f"it has no column {needed}")
    if not found.equals(ours):
        pa.unify_schemas([ours, found.remove_metadata()], promote_options="permissive")
    return None if columns is None else [column for column in columns if column in found.names]


def joined(name: str, tables: Iterable[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """The tables as one, with the columns of the schema (or `columns`) first and those it does not know after."""
    schema = arrow_schema(name)
    if columns is not None:
        schema = pa.schema([schema.field(column) for column in columns])
    tables = [schema.empty_table(), *tables]
    same = all(table.schema.equals(schema) for table in tables)
    return pa.concat_tables(tables, promote_options="none" if same else "permissive")


def _rows_of(file: pq.ParquetFile, columns: Sequence[str] | None, cell_ids: Collection[str]) -> pa.Table:
    """The rows of some cells; parts of a file (sorted by cell) that can hold none of them are not read."""
    least, most = min(cell_ids), max(cell_ids)
    place = file.schema_arrow.names.index("cell_id")
    groups = []
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(place).statistics
        if bounds is None or not bounds.has_min_max or (bounds.min <= most and bounds.max >= least):
            groups.append(group)
    table = file.read_row_groups(groups, None if columns is None else list({*columns, "cell_id"}), use_threads=False)
    wanted = pc.call_function("is_in", [table["cell_id"]], pc.SetLookupOptions(pa.array(sorted(cell_ids), pa.string())))
    rows = table.filter(wanted)
    return rows if columns is None else rows.select(list(columns))


def copied_row(place: Place, name: str) -> dict[str, Any] | None:
    """The cell's row in a file's metadata; None where there is none or it is not of this version."""
    try:
        with place.open(name) as source, pq.ParquetFile(source) as file:
            metadata = file.metadata.metadata or {}
        row = json.loads(metadata[COPY_KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    return row if row.get("schema_version") == SCHEMA_VERSION and row.keys() <= _names("cells") else None


@cache
def _names(table: str) -> frozenset[str]:
    return frozenset(arrow_schema(table).names)


def table_of_copy(row: dict[str, Any]) -> pa.Table | None:
    """A copied row as a table; None where its values are of wrong types."""
    try:
        return to_arrow("cells", [row])
    except MISFITS:
        return None


def rows(place: Place, name: str) -> int:
    """How many rows the file has; 0 where that cannot be read."""
    try:
        with place.open(name) as source:
            return pq.read_metadata(source).num_rows
    except pa.ArrowException:
        return 0


def version(place: Place, name: str) -> int:
    """The schema version in the file's metadata; 0 where that cannot be read."""
    try:
        with place.open(name) as source:
            return int((pq.read_schema(source).metadata or {}).get(b"schema_version", b"0"))
    except (pa.ArrowException, OSError, ValueError):
        return 0
