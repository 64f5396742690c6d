"""Places by their address: a folder of this machine or one that machines share, a bucket. No torch."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.atomic import complete, made_anew, temporary, written_whole
from harness.errors import InputError
from harness.store import layout
from harness.store.place import Place, Seen

if TYPE_CHECKING:
    import pyarrow as pa


class Folder(Place):
    """A folder of this machine or of a file system that machines share. Making one touches nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def names(self, prefix: str) -> list[str]:
        folder, _, start = prefix.rpartition("/")
        try:
            with os.scandir(self.root / folder) as entries:
                found = [e.name for e in entries if e.name.startswith(start) and e.name[0] != "." and not e.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" if folder else name for name in found)

    def below(self, folder: str) -> list[str]:
        found: list[str] = []
        for path, folders, files in os.walk(self.root / folder):
            folders[:] = [name for name in folders if name[0] != "."]
            here = Path(path).relative_to(self.root)
            found += [str(here / name) for name in files if name[0] != "."]
        return sorted(found)

    def look(self, name: str) -> Seen:
        found = (self.root / name).stat()
        return Seen(found.st_size, found.st_mtime, f"{found.st_mtime_ns}-{found.st_size}")

    def there(self) -> bool:
        return self.root.is_dir()

    def open(self, name: str) -> pa.NativeFile:
        from pyarrow.fs import LocalFileSystem  # not at the top: a worker says that it is there before it loads this

        return LocalFileSystem().open_input_file(str(self.root / name))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def now(self) -> float:
        return self._now(self.root)

    def _now(self, folder: Path) -> float:
        """The file system's clock, which a shared one does not share with this machine: a new file tells it."""
        probe = temporary(folder / "clock", f".{uuid.uuid4().hex[:8]}")
        try:
            with made_anew(probe) as file:
                return os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        return written_whole(self.root / name)

    def put_all(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        """All contents are complete on the disk before the first name changes: a full disk changes nothing."""
        pending: dict[Path, Path] = {}
        try:
            for name, content in changes:
                path = self.root / name
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pending[path] = temporary(path)
                    with made_anew(pending[path]) as file:
                        file.write(content)
                        complete(file)
            for name, content in changes:
                path = self.root / name
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    os.replace(pending[path], path)
        finally:
            for unfinished in pending.values():
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)

    def create(self, name: str, content: bytes) -> None:
        path = self.root / name
        unfinished = temporary(path, f".{uuid.uuid4().hex[:8]}")  # threads of one process may race as well
        try:
            try:
                file = unfinished.open("xb")
            except FileNotFoundError:  # the first in its folder
                path.parent.mkdir(parents=True, exist_ok=True)
                file = unfinished.open("xb")
            with file:
                file.write(content)
            os.link(unfinished, path)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def renew(self, name: str, content: bytes) -> bool:
        path = self.root / name
        try:
            if path.read_bytes() != content:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str, content: bytes | None = None) -> None:
        path = self.root / name
        with suppress(FileNotFoundError):
            if content is None or path.read_bytes() == content:
                path.unlink()

    def move(self, name: str, to: str) -> None:
        (self.root / to).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.root / name, self.root / to)

    def prepare(self, folder: str, stale_s: float) -> None:
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        now = self._now(path)
        for left in path.rglob(".*.tmp"):
            with suppress(FileNotFoundError):
                if now - left.stat().st_mtime > stale_s:
                    left.unlink()

    @contextmanager
    def locked(self, alone: bool = False) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            except OSError:  # a file system without locks
                if alone:
                    raise
            yield
        finally:
            os.close(descriptor)

    def settle(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            descriptor = os.open(self.root / folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def at(address: Place | Path | str) -> Place:
    """The place of that address: a folder, or s3://BUCKET/RUN. A Place is itself. InputError for a bad address."""
    if isinstance(address, Place):
        return address
    if layout.is_remote(address):
        from harness.store.bucket import Bucket  # s3fs is an extra

        return Bucket(str(address))
    if layout.scheme(address):
        raise InputError(f"results_dir={address} is not valid: give a folder, or s3://BUCKET/RUN for object storage")
    return Folder(address)
