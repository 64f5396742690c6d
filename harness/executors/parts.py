"""Parts of cells that several processes make, in a folder that they share. Imports no torch.

    <folder>/<cell_id>.<first image>        what was made, until the cell is recorded
    <folder>/leases/                        who is making which part (harness/store/leases.py)

A part's file is a line of JSON and then its content, which nobody here looks into.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.cell import Cell
from harness.executors.base import Part
from harness.executors.queue import cuts
from harness.store.leases import Leases
from harness.store.places import Folder


class SharedParts:
    """Takes parts, keeps what was made of them, and says what is there. In use inside `open`."""

    def __init__(self, place: Folder, shard_images: int | None) -> None:
        self.place, self.shard_images = place, shard_images
        self.leases = Leases(self.place)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Leaving it gives back the parts that were not made."""
        with self.leases:
            yield

    def cuts(self, cell: Cell) -> Sequence[range]:
        return cuts(cell, self.shard_images)

    def take(self, cell: Cell, images: range) -> bool:
        """Whether the part is ours to make; False where it is there or another makes it."""
        part = part_id(cell.cell_id, images.start)
        if self._is_made(cell, images) or not self.leases.take(part):
            return False
        if self._is_made(cell, images):  # between the two looks
            self.leases.release(part)
            return False
        return True

    def put(self, part: Part) -> None:
        """Where others find it; one that was made twice is the same."""
        self.place.put(_name(part.cell_id, part.start), _written(part))
        self.leases.release(part_id(part.cell_id, part.start))

    def is_whole(self, cell: Cell) -> bool:
        """Whether every part is there."""
        return all(self._is_made(cell, images) for images in self.cuts(cell))

    def all(self, cell: Cell) -> tuple[Part, ...]:
        """Every part of a cell that is whole."""
        return tuple(_part(self.place.read(_name(cell.cell_id, one.start))) for one in self.cuts(cell))

    def is_waiting(self, cell: Cell) -> bool:
        """Whether a part is missing that nobody makes, as far as can be told at once."""
        for images in self.cuts(cell):
            owner = self.leases.other(part_id(cell.cell_id, images.start))
            if (owner is None or owner.gone) and not self._is_made(cell, images):
                return True
        return False

    def clear(self, cell_id: str) -> None:
        """The cell is recorded: its parts are of no more use."""
        for name in self.place.names(f"{cell_id}."):
            self.place.delete(name)

    def _is_made(self, cell: Cell, images: range) -> bool:
        return self.place.exists(_name(cell.cell_id, images.start))


def _written(part: Part) -> bytes:
    head = {"cell_id": part.cell_id, "start": part.start, "hardware": part.hardware}
    return json.dumps(head).encode() + b"\n" + part.content


def _part(written: bytes) -> Part:
    head, _, content = written.partition(b"\n")
    return Part(**json.loads(head), content=content)


def part_id(cell_id: str, start: int) -> str:
    """What a part's lease is called: it has the form of a cell's id, and is none."""
    return hashlib.sha256(f"{cell_id} from image {start}".encode()).hexdigest()[:16]


def _name(cell_id: str, start: int) -> str:
    return f"{cell_id}.{start}"
