"""Records in a place: three folders of parquet files, each written whole or not at all. Imports no torch.

    cells/<cell_id>.parquet      one row; its presence says that the cell is recorded (the commit point)
    images/<cell_id>.parquet     a row an image
    timings/<cell_id>.parquet    a row a timed run
    */compacted-<n>.parquet      the same of many cells: written at one time, or put together later (upkeep.py)
    quarantine/                  damaged files, set aside and never read again

A cell belongs to one file of `cells`: its own, else the newest of many that has it. Its rows of images and timings are
those of the file with the same name. A kill during a write or a compaction can therefore never mix or double-count a
cell's rows. Left-over files are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harness.errors import InputError, one_line
from harness.store import layout, numbers, parquet_files, places
from harness.store.layout import CELL_ID, checked_cell_id
from harness.store.parquet_files import joined
from harness.store.place import Place
from harness.store.schema import SCHEMA_VERSION, STATUSES, TABLES, arrow_schema, to_arrow

if TYPE_CHECKING:
    import pandas as pd

STALE_TEMPORARY_S = 3600.0  # no write takes an hour: an older temporary was left by a process that died
READ_ATTEMPTS = 10  # how often a reader that meets a compaction looks again
GROUP_ROWS = {"cells": 256, "images": 65_536, "timings": 65_536}  # rows that one damaged place may cost
Rows = Sequence[Mapping[str, Any]]
log = logging.getLogger(__name__)


class Store:
    """The records in `place`: a folder's path, or a Place.

    Making one touches nothing. Before a sweep call `check_writable`, then `write` for each cell.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store(folder.name)
    >>> store.check_writable()
    >>> store.write({"cell_id": "0123456789abcdef", "status": "ok", "fid": 2.5}, images=[{"image_index": 0}])
    >>> store.recorded()
    {'0123456789abcdef': 'ok'}
    >>> store.cells()[["cell_id", "fid"]].to_dict("list")
    {'cell_id': ['0123456789abcdef'], 'fid': [2.5]}
    >>> folder.cleanup()
    """

    def __init__(self, place: Place | Path | str) -> None:
        self.place = places.at(place)
        # By name and stamp of each file of many cells: their ids and when they ended. Such a file never changes.
        self._known: dict[tuple[str, str], dict[str, int]] = {}
        self._sizes: dict[tuple[str, str], int] = {}  # rows of such files of which no more had to be known
        self._noted: set[str] = set()  # what was said once
        self._number: int | None = None  # the last that was given to us

    # ---- writing

    def check_writable(self) -> None:
        """Make the folders, clear what dead processes left, try a write: InputError where that fails."""
        try:
            for table in TABLES:
                self.place.prepare(layout.records(table), STALE_TEMPORARY_S)
        except OSError as error:
            raise self.unwritable(error) from error

    def write(
        self,
        cell: Mapping[str, Any],
        images: Sequence[Mapping[str, Any]] = (),
        timings: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Record one cell; an earlier record of it is replaced. Rows of images and timings need no cell_id.

        The earlier record goes first and the cell's own file comes last: killed in between, the cell is not recorded.
        """
        cell_id = checked_cell_id(cell.get("cell_id"))
        tables = _tables([(cell, images, timings)])
        copy = parquet_files.copy_of(tables["cells"])
        changes: list[tuple[str, bytes | None]] = [(layout.record("cells", cell_id), None)]
        for name, table in tables.items():
            more = {} if name == "timings" else copy
            content = parquet_files.as_parquet(table, more) if table.num_rows else None
            changes.append((layout.record(name, cell_id), content))
        self._put_all(changes)

    def write_new(self, records: Sequence[tuple[Mapping[str, Any], Rows, Rows]]) -> int:
        """Record cells that have no record yet, each with its rows of images and timings: in one file a table.

        All of them are recorded or none; what was recorded before would still count where its `ended_at` is later.
        The number of the file, by which others find that there is another (harness/store/numbers.py).
        """
        tables = _tables(records)
        try:
            with self.place.locked():
                self._number = numbers.reserve(self.place, self._number)
                stem = numbers.stem(self._number)
                self.place.put_all(
                    [
                        (layout.record(name, stem), parquet_files.as_parquet(table, rows=GROUP_ROWS[name]))
                        for name, table in tables.items()
                        if table.num_rows
                    ]
                )
        except OSError as error:
            raise self.unwritable(error) from error
        return self._number

    def _put_all(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        try:
            with self.place.locked():
                self.place.put_all(changes)
        except OSError as error:
            raise self.unwritable(error) from error

    # ---- reading

    def recorded(self) -> dict[str, str]:
        """cell_id → status of every recorded cell."""
        return {cell_id: status for cell_id, (status, _) in self.versions().items()}

    def versions(self, cell_ids: Sequence[str] | None = None) -> dict[str, tuple[str, Any]]:
        """cell_id → (status, when it ended). A cell that is recorded again has another time."""
        found: dict[str, tuple[str, Any]] = {}
        for table in self.tables("cells", ["cell_id", "status", "ended_at"], cell_ids):
            ended = table["ended_at"].to_pylist() if "ended_at" in table.column_names else [None] * len(table)
            values = zip(table["status"].to_pylist(), ended, strict=True)
            found.update(zip(table["cell_id"].to_pylist(), values, strict=True))
        return found

    def rows(self, cell_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The cell rows of those `cell_ids` that are recorded, in the order asked for."""
        found: dict[str, dict[str, Any]] = {}
        for table in self.tables("cells", None, cell_ids):
            found |= {row["cell_id"]: row for row in table.to_pylist()}
        return [found[cell_id] for cell_id in cell_ids if cell_id in found]

    def cells(self) -> pd.DataFrame:
        """A row a cell. Columns that old files lack are null; those that only newer versions know come last."""
        return self._frame("cells", None, None)

    def images(self, columns: Sequence[str] | None = None, cell_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of images: of all cells or of some."""
        return self._frame("images", columns, cell_ids)

    def timings(self, columns: Sequence[str] | None = None, cell_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of timed runs: of all cells or of some."""
        return self._frame("timings", columns, cell_ids)

    def _frame(self, name: str, columns: Sequence[str] | None, cell_ids: Sequence[str] | None) -> pd.DataFrame:
        return joined(name, self.tables(name, columns, cell_ids), columns).to_pandas()

    def tables(
        self, name: str, columns: Sequence[str] | None = None, cell_ids: Sequence[str] | None = None
    ) -> list[pa.Table]:
        """What the readable files of one table have of all cells or of some; a damaged file is set aside."""
        for _ in range(READ_ATTEMPTS):
            with suppress(FileNotFoundError):  # compacted while we were reading: look again
                return list(self._tables(name, columns, cell_ids))
        raise InputError(f"the records in {self.place} change faster than they can be read; try again")

    def _tables(self, name: str, columns: Sequence[str] | None, cell_ids: Sequence[str] | None) -> Iterator[pa.Table]:
        file_of, shared = self.files_of_cells()
        if cell_ids is not None:
            file_of = {cell_id: file_of[cell_id] for cell_id in map(checked_cell_id, cell_ids) if cell_id in file_of}
        yield from self.tables_of(name, columns, file_of, shared)

    def tables_of(
        self,
        name: str,
        columns: Sequence[str] | None,
        file_of: Mapping[str, str],
        shared: Mapping[str, Mapping[str, int]],
    ) -> Iterator[pa.Table]:
        """What one table's files have of the cells of `file_of`; both mappings as `files_of_cells` gives them."""
        members: dict[str, set[str]] = {}
        for cell_id, stem in file_of.items():
            members.setdefault(stem, set()).add(cell_id)
        quick: list[dict[str, Any]] = []
        for stem, wanted in members.items():
            file = layout.record(name, stem)
            if not self.place.exists(file):
                if not self.place.exists(layout.record("cells", stem)):
                    raise FileNotFoundError(file)
                continue  # a cell without images or timings
            whole_row = name == "cells" and columns is None and stem not in shared
            row = parquet_files.copied_row(self.place, file) if whole_row else None
            if row is not None and row.get("cell_id") == stem:
                quick.append(row)
                continue
            only = None if stem not in shared or wanted == shared[stem].keys() else wanted
            table = self.read(file, columns, only)
            if table is not None and (stem in shared or self._is_of(table, file)):
                yield table
        yield from self._from_copies(quick)

    def _is_of(self, table: pa.Table, file: str) -> bool:
        """Whether the rows of a cell's own file are that cell's; else they pass for another's, and it is set aside."""
        if "cell_id" not in table.column_names:
            return True
        own = table["cell_id"].null_count == 0 and set(table["cell_id"].unique().to_pylist()) <= {layout.stem_of(file)}
        if own is not True:
            self._set_aside(file, ValueError("its rows are of another cell"))
        return own is True

    def _from_copies(self, rows: Sequence[dict[str, Any]]) -> Iterator[pa.Table]:
        """The rows as a table; where the copy of one is of wrong types, what that cell's file itself says."""
        if not rows:
            return
        try:
            tables = [to_arrow("cells", rows)]
        except parquet_files.MISFITS:
            half = len(rows) // 2
            if half:
                yield from self._from_copies(rows[:half])
                yield from self._from_copies(rows[half:])
                return
            file = layout.record("cells", rows[0]["cell_id"])
            table = self.read(file)
            tables = [table] if table is not None and self._is_of(table, file) else []
        yield from tables

    def files(self, table: str) -> list[str]:
        """Names of the files of one table, sorted."""
        return [name for name in self.place.names(layout.records(table)) if layout.is_record(name)]

    def files_of_cells(self, few: int | None = None) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        """cell_id → stem of the files it belongs to; and for each file of many cells, when each of them ended.

        With `few`, files of so many cells or more are left out: nothing but their size is read and remembered.
        """
        stems = [layout.stem_of(name) for name in self.files("cells")]
        many = [stem for stem in stems if not CELL_ID.fullmatch(stem)]
        shared = {stem: self._members(stem) for stem in many if few is None or self._size(stem) < few}
        self._known = {key: ended for key, ended in self._known.items() if layout.stem_of(key[0]) in shared}
        newest: dict[str, tuple[int, str]] = {}
        for stem, ended in shared.items():
            for cell_id, when in ended.items():
                newest[cell_id] = max(newest.get(cell_id, (when, stem)), (when, stem))
        file_of = {cell_id: stem for cell_id, (_, stem) in newest.items()}
        file_of.update((stem, stem) for stem in stems if CELL_ID.fullmatch(stem))
        return file_of, shared

    def _size(self, stem: str) -> int:
        """How many rows a file of many cells has; 0 where it is damaged."""
        file = layout.record("cells", stem)
        key = (file, self.place.look(file).stamp)
        if key in self._known:
            return len(self._known[key])
        if key not in self._sizes:
            self._sizes[key] = parquet_files.rows(self.place, file)
        return self._sizes[key]

    def _members(self, stem: str) -> dict[str, int]:
        """cell_id → when it ended (ms since 1970, 0: unknown) of a file of many cells."""
        file = layout.record("cells", stem)
        key = (file, self.place.look(file).stamp)
        if key not in self._known:
            table = self.read(file, ["cell_id", "ended_at"])
            if table is None:
                return {}
            ended = table["ended_at"].cast(pa.int64()).fill_null(0) if "ended_at" in table.column_names else None
            whens = [0] * len(table) if ended is None else ended.to_pylist()
            ids = table["cell_id"].to_pylist()
            if not all(isinstance(cell_id, str) and CELL_ID.fullmatch(cell_id) for cell_id in ids):
                self._set_aside(file, ValueError("it has a cell_id that is not valid"))
                return {}
            self._known[key] = dict(zip(ids, whens, strict=True))
        return self._known[key]

    def read(
        self, file: str, columns: Sequence[str] | None = None, cell_ids: Collection[str] | None = None
    ) -> pa.Table | None:
        """The rows of one file, those of `cell_ids` alone where given; None where it is damaged, and set aside."""
        try:
            table, schema = parquet_files.read(self.place, file, columns, cell_ids)
        except PermissionError as error:
            raise InputError(f"cannot read {self.place}/{file}: {error.strerror}; make it readable") from error
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # gone, or the disk's trouble: not the file's
                raise
            if parquet_files.version(self.place, file) > SCHEMA_VERSION:
                what = f"{self.place}/{file} was written by a newer version of the harness and is left out"
                self._say(f"{what}: {_short(error)}")
            else:
                self._set_aside(file, error)
            return None
        self._note_newer(file, schema)
        return table

    def _note_newer(self, file: str, found: pa.Schema) -> None:
        """A word where a newer version wrote columns that this one does not know: they are kept, last."""
        version = (found.metadata or {}).get(b"schema_version", b"0")
        if version.isdigit() and int(version) > SCHEMA_VERSION:
            table = layout.table_of(file)
            unknown = [column for column in found.names if column not in arrow_schema(table).names]
            self._say(
                f"some records in {self.place}/{table} have schema version {int(version)}, this is version "
                f"{SCHEMA_VERSION}; columns unknown here: {', '.join(unknown) or 'none'}"
            )

    def _say(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            log.warning(one_line(text))

    def _set_aside(self, file: str, error: Exception) -> None:
        target = layout.set_aside(file)
        try:
            self.place.move(file, target)
            repair = f"`python -m harness.store repair {self.place}` says what can be saved"
            outcome = f"set aside as {self.place}/{target}; {repair}"
        except OSError as trouble:
            outcome = f"ignored, could not be set aside ({trouble.strerror})"
        log.warning(one_line(f"damaged record {self.place}/{file}: {outcome} ({_short(error)})"))

    def unwritable(self, error: OSError) -> InputError:
        """What a user is told where the place cannot be written."""
        reason = error.strerror or str(error)
        return InputError(f"cannot write to results_dir={self.place}: {reason}; free it or give another results_dir")


def _tables(records: Sequence[tuple[Mapping[str, Any], Rows, Rows]]) -> dict[str, pa.Table]:
    """The rows of some cells by table, `cells` last: that file makes the others count."""
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "timings": [], "cells": []}
    for cell, images, timings in records:
        cell_id = checked_cell_id(cell.get("cell_id"))
        if cell.get("status") not in STATUSES:
            raise ValueError(f"status={cell.get('status')!r} is not valid; valid: {', '.join(STATUSES)}")
        for name, own in (("images", images), ("timings", timings), ("cells", [cell])):
            rows[name] += [{**row, "cell_id": cell_id, "schema_version": SCHEMA_VERSION} for row in own]
    return {name: to_arrow(name, found) for name, found in rows.items()}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
