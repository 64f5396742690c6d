"""Records on disk: three folders of parquet files, a file a cell, each written whole or not at all. Imports no torch.

    results/cells/<cell_id>.parquet      one row; its presence says that the cell is recorded (the commit point)
    results/images/<cell_id>.parquet     a row an image
    results/timings/<cell_id>.parquet    a row a timed run
    results/quarantine/                  damaged files, set aside and never read again

A file may hold the rows of many cells (compaction); readers rely on columns, not on file names.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import InputError
from harness.schema import SCHEMA_VERSION, STATUSES, TABLES, arrow_schema, to_arrow

if TYPE_CHECKING:
    import pandas as pd

CELL_ID = re.compile(r"[0-9a-f]{16}")
STALE_TEMPORARY_S = 3600.0  # no write takes an hour: an older temporary was left by a process that died
log = logging.getLogger(__name__)


class Store:
    """The records under `root`. Making one touches nothing; `check_writable` before a sweep, then `write`."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    # ---- writing

    def check_writable(self) -> None:
        """Make the folders, clear what dead processes left, try a write: InputError where that fails."""
        try:
            for table in TABLES:
                folder = self.root / table
                folder.mkdir(parents=True, exist_ok=True)
                for temporary in folder.glob(".*.tmp"):
                    if time.time() - temporary.stat().st_mtime > STALE_TEMPORARY_S:
                        temporary.unlink(missing_ok=True)
            probe = self.root / "cells" / f".probe-{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def write(
        self,
        cell: Mapping[str, Any],
        images: Sequence[Mapping[str, Any]] = (),
        timings: Sequence[Mapping[str, Any]] = (),
    ) -> Path:
        """Record one cell; an earlier record of it is replaced. Rows of images and timings need no cell_id.

        All three files are complete on disk before the first gets its name; the cell's own comes last.
        """
        cell_id = checked_cell_id(cell.get("cell_id"))
        if cell.get("status") not in STATUSES:
            raise ValueError(f"status={cell.get('status')!r} is not valid; valid: {', '.join(STATUSES)}")
        rows = {"images": images, "timings": timings, "cells": [cell]}
        tables = {
            name: to_arrow(name, [{**row, "cell_id": cell_id, "schema_version": SCHEMA_VERSION} for row in rows[name]])
            for name in rows
        }
        final = {name: self.root / name / f"{cell_id}.parquet" for name in rows}
        pending: dict[str, Path] = {}
        try:
            for name, table in tables.items():
                if table.num_rows:
                    final[name].parent.mkdir(parents=True, exist_ok=True)
                    pending[name] = final[name].with_name(f".{cell_id}.{os.getpid()}.tmp")
                    write_complete(table, pending[name])
            for name, path in final.items():
                if name in pending:
                    os.replace(pending[name], path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            for temporary in pending.values():
                temporary.unlink(missing_ok=True)
        return final["cells"]

    def grid_path(self, cell_id: str) -> Path:
        """Where the cell's grid of images belongs (harness/grid.py writes it)."""
        return self.root / "grids" / f"{checked_cell_id(cell_id)}.png"

    # ---- reading

    def recorded(self) -> dict[str, str]:
        """cell_id → status of every recorded cell."""
        found: dict[str, str] = {}
        for table in self._tables("cells", ["cell_id", "status"]):
            found.update(zip(table["cell_id"].to_pylist(), table["status"].to_pylist(), strict=True))
        return found

    def rows(self, cell_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The cell rows of those `cell_ids` that are recorded, in the order asked for."""
        found: dict[str, dict[str, Any]] = {}
        for table in self._tables_of("cells", cell_ids):
            found |= {row["cell_id"]: row for row in table.to_pylist()}
        return [found[cell_id] for cell_id in cell_ids if cell_id in found]

    def cells(self) -> pd.DataFrame:
        return self._frame("cells", None, self._tables("cells"))

    def images(self, columns: Sequence[str] | None = None, cell_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of images: of all cells or of some. Columns that old files lack are null; newer files' come last."""
        return self._frame("images", columns, self._some("images", cell_ids, columns))

    def timings(self, columns: Sequence[str] | None = None, cell_ids: Sequence[str] | None = None) -> pd.DataFrame:
        return self._frame("timings", columns, self._some("timings", cell_ids, columns))

    @staticmethod
    def _frame(name: str, columns: Sequence[str] | None, tables: Iterable[pa.Table]) -> pd.DataFrame:
        schema = arrow_schema(name)
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        tables = [schema.empty_table(), *tables]
        same = all(table.schema.equals(schema) for table in tables)
        return pa.concat_tables(tables, promote_options="none" if same else "permissive").to_pandas()

    def _some(
        self, name: str, cell_ids: Sequence[str] | None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        return self._tables(name, columns) if cell_ids is None else self._tables_of(name, cell_ids, columns)

    def _tables_of(
        self, name: str, cell_ids: Sequence[str], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of some cells: from their own files, then from files of many cells what is still missing."""
        own = {cell_id: self.root / name / f"{checked_cell_id(cell_id)}.parquet" for cell_id in cell_ids}
        missing = [cell_id for cell_id, path in own.items() if not path.exists()]
        yield from self._tables(name, columns, [path for path in own.values() if path.exists()])
        if missing:
            shared = [path for path in self._paths(name) if not CELL_ID.fullmatch(path.stem)]
            for table in self._tables(name, None if columns is None else list({*columns, "cell_id"}), shared):
                rows = table.filter(pc.is_in(table["cell_id"], pa.array(missing)))
                yield rows if columns is None else rows.select([c for c in columns if c in rows.column_names])

    def _paths(self, name: str) -> list[Path]:
        return sorted((self.root / name).glob("[!._]*.parquet"))

    def _tables(
        self, name: str, columns: Sequence[str] | None = None, paths: Sequence[Path] | None = None
    ) -> Iterator[pa.Table]:
        """The readable files of one table; a damaged one is set aside with one line of warning."""
        for path in self._paths(name) if paths is None else paths:
            try:
                with pq.ParquetFile(path) as file:
                    wanted = checked_columns(name, file.schema_arrow, columns)
                    table = file.read(wanted, use_threads=False)
            except FileNotFoundError:
                continue  # not recorded, or compacted while we were reading
            except PermissionError as error:
                raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
            except (pa.ArrowException, OSError) as error:
                if getattr(error, "errno", None):  # the disk's trouble, not the file's
                    raise
                self._set_aside(path, error)
                continue
            yield table

    def _set_aside(self, path: Path, error: Exception) -> None:
        target = self.root / "quarantine" / f"{path.parent.name}-{path.name}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            outcome = f"set aside as {target}"
        except OSError as trouble:
            outcome = f"ignored, could not be set aside ({trouble.strerror})"
        log.warning("damaged record %s: %s (%s)", path, outcome, " ".join(str(error).split())[:120])

    def _unwritable(self, error: OSError) -> InputError:
        reason = error.strerror or str(error)
        return InputError(f"cannot write to results_dir={self.root}: {reason}; free it or give another results_dir")


def checked_cell_id(cell_id: Any) -> str:
    """`cell_id` where it is one: a file name that cannot leave its folder."""
    if not isinstance(cell_id, str) or not CELL_ID.fullmatch(cell_id):
        raise ValueError(f"cell_id={cell_id!r} is not valid: 16 hexadecimal digits")
    return cell_id


def checked_columns(name: str, found: pa.Schema, columns: Sequence[str] | None) -> list[str] | None:
    """Which columns of a file to read (None: all); ArrowInvalid where its rows are not rows of this table."""
    ours = arrow_schema(name)
    if "cell_id" not in found.names:
        raise pa.ArrowInvalid("it has no column cell_id")
    if not found.equals(ours):
        pa.unify_schemas([ours, found.remove_metadata()], promote_options="permissive")
    return None if columns is None else [column for column in columns if column in found.names]


def write_complete(table: pa.Table, path: Path) -> None:
    """Write `table` to `path` and wait until it is on the disk."""
    # Statistics, dictionaries, compression and a second copy of the schema would be most of a one-row file.
    many = table.num_rows > 1
    with (
        open(path, "wb") as sink,
        pq.ParquetWriter(
            sink,
            table.schema,
            compression="snappy" if many else "none",
            use_dictionary=many,
            write_statistics=False,
            store_schema=False,
        ) as writer,
    ):
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)
        writer.close()
        sink.flush()
        os.fsync(sink.fileno())
