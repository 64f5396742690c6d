"""The record of one cell, looked up without listing the folder: what a sweep asks before each cell. No torch.

A folder of 50,000 files takes a tenth of a second to list. A cell is in its own file, whose name is known, or in one of
many cells. The latter are known from the last listing until a compaction makes another, whose name is known beforehand.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from harness.errors import InputError
from harness.store import layout
from harness.store.layout import checked_cell_id
from harness.store.records import READ_ATTEMPTS, Store
from harness.store.upkeep import compaction, last_compaction

Version = tuple[str, Any]  # status and when it ended


class Lookup:
    """`Store.versions` of single cells, for as long as one process asks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shared: dict[str, Version] = {}  # of the cells that were in files of many when those were last listed
        self.coming: list[str] | None = None  # the files of many that may come next; None: nothing was listed yet

    def __call__(self, cell_id: str) -> Version | None:
        """(status, when it ended) of the cell's record; None where there is none."""
        own = layout.record("cells", checked_cell_id(cell_id))
        for _ in range(READ_ATTEMPTS):
            with suppress(FileNotFoundError):  # compacted while we were looking: look again
                if self.store.place.exists(own):
                    return self._of(own, cell_id)
                if self.coming is None or any(map(self.store.place.exists, self.coming)):
                    self._list()
                return self.shared.get(cell_id)
        raise InputError(f"the records in {self.store.place} change faster than they can be read; try again")

    def _of(self, own: str, cell_id: str) -> Version | None:
        table = self.store.read(own, ["cell_id", "status", "ended_at"])
        rows = [] if table is None else table.to_pylist()
        if len(rows) == 1 and rows[0]["cell_id"] == cell_id:
            return rows[0]["status"], rows[0].get("ended_at")
        return self.store.versions([cell_id]).get(cell_id)  # damaged, or another cell's: that one knows what to do

    def _list(self) -> None:
        # Before the listing, so that a compaction that ends meanwhile is seen. One that is under way has made its files
        # of images, and its file of cells is still to come; one killed there has left a number that is skipped.
        first, last = last_compaction(self.store, ["cells"]), last_compaction(self.store)
        coming = [layout.record("cells", compaction(number)) for number in range(first + 1, last + 2)]
        file_of, shared = self.store.files_of_cells()
        self.shared = self.store.versions([cell_id for cell_id, its in file_of.items() if its in shared])
        self.coming = coming
