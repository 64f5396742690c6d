"""A baseline that is kept in git: the records of a run in two files, without what concerns nobody else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import InputError
from harness.store import layout
from harness.store.parquet_files import as_parquet, joined
from harness.store.records import Store
from harness.store.schema import TABLES

NAME = "baseline"  # of its files; a cell's own file would be named by its id
NOT_KEPT = ("hostname", "platform")  # whose machine it was


def update(folder: Path, candidate: Path) -> tuple[int, int]:
    """Replace the baseline in `folder` by the candidate's cells that are ok; (cells, bytes) written."""
    store = Store(candidate)
    cells = joined("cells", store.tables("cells"))
    cells = cells.filter(pc.equal(cells["status"], "ok")).sort_by("cell_id")
    if not cells.num_rows:
        raise InputError(f"no cell in {candidate} is ok: there is nothing to make a baseline of")
    ids = cells["cell_id"].to_pylist()
    images = joined("images", store.tables("images", None, ids)).sort_by(
        [("cell_id", "ascending"), ("image_index", "ascending")]
    )
    for name in NOT_KEPT:
        cells = cells.set_column(cells.schema.get_field_index(name), name, pa.nulls(cells.num_rows, pa.string()))
    kept = Store(folder)
    try:
        # Images first: a cell counts as recorded from the moment its row is there.
        contents = {
            layout.record(name, NAME): as_parquet(rows) for name, rows in (("images", images), ("cells", cells))
        }
        kept.place.put_all(list(contents.items()))
        for file in (file for table in TABLES for file in kept.files(table)):
            if layout.stem_of(file) != NAME:
                kept.place.delete(file)
    except OSError as error:
        raise InputError(f"cannot write the baseline to {folder}: {error.strerror or error}") from error
    return cells.num_rows, sum(map(len, contents.values()))
