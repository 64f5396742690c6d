"""What records, leases and grids ask of the place they are kept in: a folder today, a bucket as well. No torch.

A `Place` holds files under names such as `cells/<cell_id>.parquet` (harness/store/layout.py makes them all). It
promises four things, which a file system and object storage can both keep:

* A file appears whole or not at all, under its name, to every reader (`put`, `writing`).
* Of many who create a name at once, one succeeds (`create`: link on a disk, a put with `If-None-Match: *` in a bucket).
* A file can be renewed or deleted on condition that it still holds what its owner wrote (`renew`, `delete`: a put or
  delete with `If-Match` in a bucket).
* Names are listed by prefix, and a file says when it last changed on the place's own clock, so that no two machines'
  clocks are ever compared (`names`, `look`, `now`).

Whatever else a place does (temporaries, fsync, locks) is its own affair. Another kind of place is one more class;
harness/store/places.py picks it by its address.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from harness.store import layout

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Seen:
    """What a place knows of a file without reading it."""

    size: int  # bytes
    changed: float  # seconds on the place's clock (`Place.now`)
    stamp: str  # differs where the content does: mtime and size, an ETag


class Keeps(Protocol):
    """What takes a file whole: a place, or what carries it there."""

    def put(self, name: str, content: bytes) -> None: ...

    def exists(self, name: str) -> bool: ...


class Outbox:
    """A worker's files on their way to the place: they travel with its record, and whoever writes that puts them.

    >>> box = Outbox()
    >>> box.put("plans/0123456789abcdef.json", b"{}")
    >>> box.taken(), box.taken(), box.exists("plans/0123456789abcdef.json")
    ({'plans/0123456789abcdef.json': b'{}'}, {}, False)
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def exists(self, name: str) -> bool:
        return name in self.files

    def taken(self) -> dict[str, bytes]:
        """Everything put since the last time."""
        files, self.files = self.files, {}
        return files


class Place(ABC):
    """Files under names with `/` between their parts; a part that begins with a dot is the place's own and not listed.

    A missing file raises FileNotFoundError, any other trouble of the place an OSError. Subclasses write the abstract
    methods; the others follow from them and may be done better.
    """

    lockable = True  # whether `locked(alone=True)` can hold writers off, as a compaction needs

    @abstractmethod
    def __str__(self) -> str:
        """The address: what a user gave as `results_dir`, and what `at` takes."""

    # ---- reading

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`, sorted, without those of folders deeper than it; [] where there are none.

        `names("cells/")` lists a folder, `names("leases/0a/0a1b")` a part of one.
        """

    @abstractmethod
    def below(self, folder: str) -> list[str]:
        """Every name that begins with `folder`, sorted, those of deeper folders as well."""

    @abstractmethod
    def look(self, name: str) -> Seen:
        """Size, time of last change and stamp of a file."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """The file for pyarrow to read from, at any position; close it."""

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def exists(self, name: str) -> bool:
        try:
            self.look(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def there(self) -> bool:
        """Whether anything was ever recorded here."""
        return bool(self.names(layout.records("cells")))

    @abstractmethod
    def now(self) -> float:
        """The place's clock in seconds: the one that `Seen.changed` is read from. OSError where nothing can be written.

        Read it before `look`: a pause between the two then makes a file look younger, never stale.
        """

    # ---- writing

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to write to, and to read back; it takes its name, durably, when the block ends without an error."""

    def put(self, name: str, content: bytes) -> None:
        """Put a file whole and durably, in the place of an earlier one."""
        with self.writing(name) as file:
            file.write(content)

    def put_all(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        """Put (or with None delete) files one after the other: whoever sees a change finds all those before it made.

        A place that can run full holds all contents before it makes the first change.
        """
        for name, content in changes:
            if content is None:
                self.delete(name)
            else:
                self.put(name, content)

    @abstractmethod
    def create(self, name: str, content: bytes) -> None:
        """Put a file that is not there; FileExistsError where it is. Of many at once, one succeeds.

        A power cut may lose or empty it, unlike one that was `put`: a lease need not survive its owner.
        """

    @abstractmethod
    def renew(self, name: str, content: bytes) -> bool:
        """Make now the time of last change, if the file still holds `content`; False where it does not or is gone."""

    @abstractmethod
    def delete(self, name: str, content: bytes | None = None) -> None:
        """Delete the file if it is there and, where `content` is given, still holds that."""

    def move(self, name: str, to: str) -> None:
        """Give the file another name, in the place of an earlier one."""
        self.put(to, self.read(name))
        self.delete(name)

    # ---- housekeeping

    def prepare(self, folder: str, stale_s: float) -> None:
        """Make `folder` ready to be written to, or raise OSError.

        Removes what writers left half-written, where it is older than `stale_s` seconds.
        """
        self.now()

    @abstractmethod
    def locked(self, alone: bool = False) -> AbstractContextManager[None]:
        """Hold the place's lock: writers share it, a compaction has it alone. That of a dead process is freed.

        A place without locks lets writers pass and raises OSError for `alone`: records are right without compaction.
        """

    def settle(self, folder: str) -> None:  # noqa: B027 (nothing to do where a change that was made is durable)
        """Wait until the names in `folder` are durable."""
