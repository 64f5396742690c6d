"""The record of one cell, looked up without listing the folder: what a sweep asks before each cell. No torch.

A folder of 50,000 files takes a tenth of a second to list. A cell is in its own file, whose name is known, or in one of
many cells. Those are known from the last listing until there is another, whose number (harness/store/numbers.py) is
known beforehand.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from harness.errors import InputError
from harness.store import layout, numbers
from harness.store.layout import checked_cell_id
from harness.store.records import READ_ATTEMPTS, Store

Version = tuple[str, Any]  # status and when it ended
SHARE = 0.05  # of the time may go into listing the folder anew


class Lookup:
    """`Store.versions` of single cells, for as long as one process asks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shared: dict[str, Version] = {}  # of the cells that were in files of many when those were last listed
        self.loose: set[str] = set()  # the cells that had files of their own then
        self.read: set[str] = set()  # the files of many that were read
        self.again = 0.0  # when the folder may be listed anew, on the monotonic clock
        self.next = 0  # the number that the next file of many will have
        self.coming: list[str] = []  # numbers that were given out already
        self.compacted = "never"  # the stamp of the last compaction

    def __call__(self, cell_id: str) -> Version | None:
        """(status, when it ended) of the cell's record; None where there is none."""
        own = layout.record("cells", checked_cell_id(cell_id))
        for _ in range(READ_ATTEMPTS):
            with suppress(FileNotFoundError):  # compacted while we were looking: look again
                if self.store.place.exists(own):
                    return self._of(own, cell_id)
                if self._stamp() != self.compacted or any(map(self.store.place.exists, self._coming())):
                    self._list()
                return self.shared.get(cell_id)
        raise InputError(f"the records in {self.store.place} change faster than they can be read; try again")

    def seen(self, cell_id: str) -> bool:
        """Whether the last listing had a record of the cell: costs no look at the place, and may be outdated."""
        return cell_id in self.loose or cell_id in self.shared

    def outdated(self) -> None:
        """`seen` did not know what others have recorded: list the folder anew, unless that was done just now."""
        if time.monotonic() >= self.again:
            with suppress(FileNotFoundError):  # compacted while we were looking
                self._list()

    def wrote(self, number: int) -> None:
        """That number is of our own file, of cells that nobody will ask for."""
        if number == self.next:
            self.next += 1

    def _coming(self) -> list[str]:
        return [layout.number(self.next), *self.coming]

    def _stamp(self) -> str:
        """Another text after another compaction."""
        try:
            return self.store.place.look(layout.COMPACTED).stamp
        except FileNotFoundError:
            return ""

    def _of(self, own: str, cell_id: str) -> Version | None:
        table = self.store.read(own, ["cell_id", "status", "ended_at"])
        rows = [] if table is None else table.to_pylist()
        if len(rows) == 1 and rows[0]["cell_id"] == cell_id:
            return rows[0]["status"], rows[0].get("ended_at")
        return self.store.versions([cell_id]).get(cell_id)  # damaged, or another cell's: that one knows what to do

    def _list(self) -> None:
        # What may come is found before the listing, so that what ends meanwhile is seen. A number that was given out
        # and has no file of cells is under way, or was killed there.
        began = time.monotonic()
        self.compacted, given = self._stamp(), numbers.given(self.store.place)
        self.next = numbers.last(self.store.place) + 1
        stems = {layout.stem_of(name) for name in self.store.files("cells")}
        self.loose = {stem for stem in stems if layout.CELL_ID.fullmatch(stem)}
        self.coming = [layout.record("cells", stem) for stem in map(numbers.stem, given) if stem not in stems]
        for stem in sorted(stems - self.read - self.loose):
            table = self.store.read(layout.record("cells", stem), ["cell_id", "status", "ended_at"])
            for row in [] if table is None else table.to_pylist():
                known, ended = self.shared.get(row["cell_id"]), row.get("ended_at")
                if known is None or known[1] is None or (ended is not None and ended >= known[1]):
                    self.shared[row["cell_id"]] = row["status"], ended
            self.read.add(stem)
        now = time.monotonic()
        self.again = now + (now - began) / SHARE
