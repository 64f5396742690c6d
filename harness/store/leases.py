"""Who is running which cell: lease files, so that sweeps on one results folder share the work. Imports no torch.

    results/leases/<cell_id>.<generation>.json      host, process and when it took the cell

A lease is taken by linking a finished file to its name, which one process alone can do. Its owner touches it every
BEAT_S; it is stale after STALE_S without a touch, or at once where its owner was a process of this machine that is
gone. A stale lease is not removed but outbid: whoever links the next generation has it, again one process alone, and
an owner that was merely asleep finds that it is no longer the highest.

A lease says who runs a cell, not whether it still has to run: look at the records again once it is taken.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from harness.errors import InputError

STALE_S = 120.0
BEAT_S = 20.0
NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.json")


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease. `machine` tells processes apart that share a host name, `born` those of a pid."""

    host: str
    machine: str
    pid: int
    born: float
    started: float

    @classmethod
    def me(cls) -> Owner:
        return cls(platform.node(), _machine(), os.getpid(), psutil.Process().create_time(), time.time())

    @property
    def gone(self) -> bool:
        """True where that is certain: a process of this machine that lives no more."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.create_time() != self.born or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class Leases:
    """The leases that this process holds on cells of `root`. A context: leaving it gives all of them back."""

    def __init__(self, root: Path | str, stale_s: float = STALE_S, beat_s: float = BEAT_S) -> None:
        self.folder = Path(root) / "leases"
        self.stale_s, self.beat_s = stale_s, beat_s
        self.held: dict[str, Path] = {}
        self.owner = Owner.me()
        self.ended = threading.Event()

    def __enter__(self) -> Leases:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
        except OSError as error:
            raise self._unwritable(error) from error
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for cell_id in list(self.held):
            self.release(cell_id)

    def take(self, cell_id: str) -> bool:
        """Take the cell; False where another process holds it. InputError where the folder cannot be written."""
        temporary = self.folder / f".{cell_id}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            temporary.write_text(json.dumps({**asdict(self.owner), "started": time.time()}))
            found = self._found(cell_id)
            if found and not self._stale(found[-1], now=temporary.stat().st_mtime):  # by the folder's own clock
                return False
            path = self.folder / f"{cell_id}.{_generation(found[-1]) + 1 if found else 0}.json"
            os.link(temporary, path)
        except FileExistsError:  # another was faster
            return False
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        for older in found:
            older.unlink(missing_ok=True)
        if self._found(cell_id)[-1:] != [path]:  # a folder listed while it changes may have hidden a higher one
            path.unlink(missing_ok=True)
            return False
        self.held[cell_id] = path
        return True

    def holds(self, cell_id: str) -> bool:
        """Whether the cell is still ours: False where we slept so long that another process took it over."""
        found = self._found(cell_id)
        return bool(found) and found[-1] == self.held.get(cell_id)

    def release(self, cell_id: str) -> None:
        path = self.held.pop(cell_id, None)
        if path is not None:
            with suppress(OSError):  # a disk in trouble: it goes stale
                path.unlink(missing_ok=True)

    def other(self, cell_id: str) -> Owner | None:
        """Who else runs the cell now."""
        found = self._found(cell_id)
        if not found or found[-1] == self.held.get(cell_id):
            return None
        return _read(found[-1])

    def _found(self, cell_id: str) -> list[Path]:
        """The cell's leases, the valid one last."""
        return sorted(self.folder.glob(f"{cell_id}.*.json"), key=_generation)

    def _stale(self, path: Path, now: float) -> bool:
        try:
            if now - path.stat().st_mtime > self.stale_s:
                return True
        except FileNotFoundError:  # given back this moment; the next look will see it
            return False
        owner = _read(path)
        return owner is not None and owner.gone

    def _beat(self) -> None:
        while not self.ended.wait(self.beat_s):
            for path in list(self.held.values()):
                with suppress(OSError):  # given back meanwhile, or outbid
                    os.utime(path)

    def _clear(self) -> None:
        """Remove what dead processes left, so that the folder does not fill up."""
        for path in list(self.folder.iterdir()):
            with suppress(FileNotFoundError):
                match = NAME.fullmatch(path.name)
                if match and self.take(match[1]):  # it was stale: nobody else can be taking it over
                    self.release(match[1])
                elif path.suffix == ".tmp" and self._stale(path, time.time()):
                    path.unlink()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write to {self.folder}: {error.strerror or error}; free it or give another results_dir"
        )


def _generation(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    return int(match[2]) if match else -1


def _read(path: Path) -> Owner | None:
    try:
        owner = Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):  # gone, or of another version: its age alone decides
        return None
    texts, numbers = (owner.host, owner.machine), (owner.born, owner.started)
    valid = isinstance(owner.pid, int) and 0 < owner.pid < 2**31 and all(isinstance(text, str) for text in texts)
    return owner if valid and all(isinstance(number, (int, float)) for number in numbers) else None


@cache
def _machine() -> str:
    """This boot of this machine and its space of process ids: two containers may share a host name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
