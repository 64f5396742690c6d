"""Records on disk: three folders of parquet files, each written whole or not at all. Imports no torch.

    results/cells/<cell_id>.parquet      one row; its presence says that the cell is recorded (the commit point)
    results/images/<cell_id>.parquet     a row an image
    results/timings/<cell_id>.parquet    a row a timed run
    results/*/compacted-<n>.parquet      the same of many cells, once they were put together (harness/store/upkeep.py)
    results/quarantine/                  damaged files, set aside and never read again

A cell belongs to one file of `cells`: its own, else the newest of many that has it. Its rows of images and timings are
those of the file with the same name. So a cell's rows are never mixed from two files nor counted twice, at whatever
moment a write or a compaction was killed; what such a moment leaves over is not read.

A cell's own files of `cells` and `images` carry its row as JSON in their metadata as well: that is read four times as
fast as two hundred columns of one row each, and restores a record whose own file was damaged.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.atomic import made_anew, mark
from harness.errors import InputError, one_line
from harness.store.schema import SCHEMA_VERSION, STATUSES, TABLES, arrow_schema, to_arrow

if TYPE_CHECKING:
    import pandas as pd

CELL_ID = re.compile(r"[0-9a-f]{16}")
STALE_TEMPORARY_S = 3600.0  # no write takes an hour: an older temporary was left by a process that died
READ_ATTEMPTS = 10  # of a reader that meets a compaction
COPY_KEY = "cell_row"  # in the metadata
log = logging.getLogger(__name__)


class Store:
    """The records under `root`. Making one touches nothing; `check_writable` before a sweep, then `write`."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._known: dict[tuple[str, int, int], dict[str, int]] = {}  # a file of many cells never changes: ids, ended
        self._noted: set[str] = set()  # what was said once

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
            probe = self.root / "cells" / f".probe-{mark()}.tmp"
            made_anew(probe).close()
            probe.unlink()
        except OSError as error:
            raise self.unwritable(error) from error

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
        copy = {COPY_KEY: _as_json(tables["cells"])}
        final = {name: self.root / name / f"{cell_id}.parquet" for name in rows}
        pending: dict[str, Path] = {}
        try:
            for name, table in tables.items():
                if table.num_rows:
                    final[name].parent.mkdir(parents=True, exist_ok=True)
                    pending[name] = final[name].with_name(f".{cell_id}.{mark()}.tmp")
                    write_complete(table, pending[name], {} if name == "timings" else copy)
            with self.locked():
                final["cells"].unlink(missing_ok=True)  # killed between two names, the cell is not recorded
                for name, path in final.items():
                    if name in pending:
                        os.replace(pending[name], path)
                    else:
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error
        finally:
            for temporary in pending.values():
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        return final["cells"]

    @contextmanager
    def locked(self, alone: bool = False) -> Iterator[None]:
        """While names change: writers share the lock, a compaction has it alone. The system frees a dead one's."""
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            except OSError:  # a file system without locks: writers are fine, a compaction is not
                if alone:
                    raise
            yield
        finally:
            os.close(descriptor)

    def grid_path(self, cell_id: str) -> Path:
        """Where the cell's grid of images belongs (harness/store/tiles.py writes it)."""
        return self.root / "grids" / f"{checked_cell_id(cell_id)}.png"

    # ---- reading

    def recorded(self) -> dict[str, str]:
        """cell_id → status of every recorded cell."""
        return {cell_id: status for cell_id, (status, _) in self.versions().items()}

    def versions(self, cell_ids: Sequence[str] | None = None) -> dict[str, tuple[str, Any]]:
        """cell_id → (status, when it ended): it changes where a cell is recorded again."""
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
        raise InputError(f"the records in {self.root} change faster than they can be read; try again")

    def _tables(self, name: str, columns: Sequence[str] | None, cell_ids: Sequence[str] | None) -> Iterator[pa.Table]:
        home, shared = self.homes()
        if cell_ids is not None:
            home = {cell_id: home[cell_id] for cell_id in map(checked_cell_id, cell_ids) if cell_id in home}
        members: dict[str, set[str]] = {}
        for cell_id, stem in home.items():
            members.setdefault(stem, set()).add(cell_id)
        quick: list[dict[str, Any]] = []
        for stem, wanted in members.items():
            path = self.root / name / f"{stem}.parquet"
            if not path.exists():
                if not (self.root / "cells" / path.name).exists():
                    raise FileNotFoundError(path)
                continue  # a cell without images or timings
            row = copied_row(path) if name == "cells" and columns is None and stem not in shared else None
            if row is not None and row.get("cell_id") == stem:
                quick.append(row)
                continue
            only = None if stem not in shared or wanted == shared[stem].keys() else wanted
            table = self.read(path, columns, only)
            if table is not None and (stem in shared or self._is_of(table, path)):
                yield table
        yield from self._from_copies(quick)

    def _is_of(self, table: pa.Table, path: Path) -> bool:
        """Whether the rows of a cell's own file are that cell's; else they pass for another's, and it is set aside."""
        if "cell_id" not in table.column_names:
            return True
        own = pc.all(pc.equal(table["cell_id"], path.stem), skip_nulls=False).as_py()
        if own is not True:
            self._set_aside(path, ValueError("its rows are of another cell"))
        return own is True

    def _from_copies(self, rows: Sequence[dict[str, Any]]) -> Iterator[pa.Table]:
        """The rows as a table; where the copy of one is of wrong types, what that cell's file itself says."""
        if not rows:
            return
        try:
            tables = [to_arrow("cells", rows)]
        except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
            half = len(rows) // 2
            if half:
                yield from self._from_copies(rows[:half])
                yield from self._from_copies(rows[half:])
                return
            path = self.root / "cells" / f"{rows[0]['cell_id']}.parquet"
            table = self.read(path)
            tables = [table] if table is not None and self._is_of(table, path) else []
        yield from tables

    def homes(self) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        """cell_id → name of the file it belongs to; and for each file of many cells, when each of them ended."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.root / "cells"))
        except FileNotFoundError:
            return {}, {}
        stems = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet") and name[0] not in "._"]
        shared = {stem: self._members(stem) for stem in stems if not CELL_ID.fullmatch(stem)}
        newest: dict[str, tuple[int, str]] = {}
        for stem, ended in shared.items():
            for cell_id, when in ended.items():
                newest[cell_id] = max(newest.get(cell_id, (when, stem)), (when, stem))
        home = {cell_id: stem for cell_id, (_, stem) in newest.items()}
        home.update((stem, stem) for stem in stems if stem not in shared)
        return home, shared

    def _members(self, stem: str) -> dict[str, int]:
        """cell_id → when it ended (ms since 1970, 0: unknown) of a file of many cells."""
        path = self.root / "cells" / f"{stem}.parquet"
        found = path.stat()
        key = (path.name, found.st_mtime_ns, found.st_size)
        if key not in self._known:
            table = self.read(path, ["cell_id", "ended_at"])
            if table is None:
                return {}
            ended = table["ended_at"].cast(pa.int64()).fill_null(0) if "ended_at" in table.column_names else None
            whens = [0] * len(table) if ended is None else ended.to_pylist()
            ids = table["cell_id"].to_pylist()
            if not all(isinstance(cell_id, str) and CELL_ID.fullmatch(cell_id) for cell_id in ids):
                self._set_aside(path, ValueError("it has a cell_id that is none"))
                return {}
            self._known[key] = dict(zip(ids, whens, strict=True))
        return self._known[key]

    def read(
        self, path: Path, columns: Sequence[str] | None = None, cell_ids: Collection[str] | None = None
    ) -> pa.Table | None:
        """The rows of one file, those of `cell_ids` alone where given; None where it is damaged, and set aside."""
        name = path.parent.name
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                wanted = checked_columns(name, file.schema_arrow, columns)
                self._note_newer(path, file.schema_arrow)
                if cell_ids is None:
                    return file.read(wanted, use_threads=False)
                return _rows_of(file, wanted, cell_ids)
        except PermissionError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # gone, or the disk's trouble: not the file's
                raise
            if _version(path) > SCHEMA_VERSION:
                self._say(f"{path} was written by a newer version of the harness and is left out: {_short(error)}")
            else:
                self._set_aside(path, error)
            return None

    def _note_newer(self, path: Path, found: pa.Schema) -> None:
        """A word where a newer version wrote columns that this one does not know: they are kept, last."""
        version = (found.metadata or {}).get(b"schema_version", b"0")
        if version.isdigit() and int(version) > SCHEMA_VERSION:
            unknown = [column for column in found.names if column not in arrow_schema(path.parent.name).names]
            self._say(
                f"some records in {path.parent} have schema version {int(version)}, this is version {SCHEMA_VERSION}; "
                f"columns unknown here: {', '.join(unknown) or 'none'}"
            )

    def _say(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            log.warning(one_line(text))

    def _set_aside(self, path: Path, error: Exception) -> None:
        target = self.root / "quarantine" / f"{path.parent.name}-{path.name}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            outcome = f"set aside as {target}; `python -m harness.store repair {self.root}` says what can be saved"
        except OSError as trouble:
            outcome = f"ignored, could not be set aside ({trouble.strerror})"
        log.warning(one_line(f"damaged record {path}: {outcome} ({_short(error)})"))

    def unwritable(self, error: OSError) -> InputError:
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
    rows = table.filter(pc.is_in(table["cell_id"], pa.array(sorted(cell_ids), pa.string())))
    return rows if columns is None else rows.select(list(columns))


def copied_row(path: Path) -> dict[str, Any] | None:
    """The cell's row in a file's metadata; None where there is none or it is not of this version."""
    try:
        with pq.ParquetFile(path) as file:
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


def _version(path: Path) -> int:
    """The schema version in the file's metadata; 0 where that cannot be read."""
    try:
        return int((pq.read_schema(path).metadata or {}).get(b"schema_version", b"0"))
    except (pa.ArrowException, OSError, ValueError):
        return 0


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _as_json(row: pa.Table) -> str:
    """A table of one row as text that `to_arrow` takes again."""
    values = {name: value for name, value in row.to_pylist()[0].items() if value is not None}
    return json.dumps(values, ensure_ascii=False, default=lambda moment: moment.isoformat())


def write_complete(table: pa.Table, path: Path, more: Mapping[str, str] | None = None, rows: int | None = None) -> None:
    """Write `table` to `path`, `rows` a row group, with `more` metadata; wait until it is on the disk."""
    # Statistics, dictionaries, compression and a second copy of the schema would be most of a one-row file.
    many = table.num_rows > 1
    with (
        made_anew(path) as sink,
        pq.ParquetWriter(
            sink,
            table.schema,
            compression="snappy" if many else "none",
            use_dictionary=many,
            write_statistics=["cell_id"] if rows else False,
            write_page_checksum=True,
            store_schema=False,
        ) as writer,
    ):
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata({**(table.schema.metadata or {}), **(more or {})})
        writer.close()
        sink.flush()
        os.fsync(sink.fileno())
