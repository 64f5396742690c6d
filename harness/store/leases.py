"""Who is running which cell: lease files, so that sweeps on one results folder share the work. Imports no torch.

    results/leases/<2 digits>/<cell_id>.<generation>.json      host, process and when it took the cell

A lease is taken by creating its file, which of many processes one alone can do. Its owner renews it every BEAT_S; it
is stale when it was not renewed for STALE_S, or at once where its owner was a process of this machine that is gone. A
stale lease is not removed but outbid: whoever creates the next generation has it, again one process alone, and an owner
that was merely asleep finds that the highest lease is another's.

A lease says who runs a cell, not whether it still has to run: look at the records again once it is taken.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from harness.errors import InputError
from harness.store import layout, places
from harness.store.place import Place

STALE_S = 120.0
BEAT_S = 20.0


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


@dataclass(frozen=True)
class Held:
    """A lease of ours: its name and the content that makes it ours, for another may get the same name later."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Running:
    """A cell that a lease says is being run. `owner`: None where the lease cannot be read."""

    cell_id: str
    owner: Owner | None
    age: float  # seconds since the owner was last heard of, by the place's clock

    @property
    def lost(self) -> bool:
        """Whether its owner is gone or silent for so long that anyone may take the cell over."""
        return self.age > STALE_S or (self.owner is not None and self.owner.gone)


def running(place: Place) -> list[Running]:
    """What is being run now, by the valid lease of each cell; sorted by cell."""
    valid: dict[str, str] = {}
    for name in place.below(layout.LEASES):
        match = layout.LEASE.fullmatch(name)
        if match and _generation(name) >= _generation(valid.get(match[1], "")):
            valid[match[1]] = name
    try:
        now = place.now()
    except OSError:  # one that may only be read from: then this machine's clock has to do
        now = time.time()
    found = []
    for cell_id, name in sorted(valid.items()):
        with suppress(FileNotFoundError):  # given back this moment
            found.append(Running(cell_id, owner_in(place.read(name)), max(0.0, now - place.look(name).changed)))
    return found


class Leases:
    """The leases that this process holds on cells of `place`. A context: leaving it gives all of them back."""

    def __init__(self, place: Place | Path | str, stale_s: float = STALE_S, beat_s: float = BEAT_S) -> None:
        self.place = places.at(place)
        self.stale_s, self.beat_s = stale_s, beat_s
        self.held: dict[str, Held] = {}
        self.owner = Owner.me()
        self.ended = threading.Event()

    def __enter__(self) -> Leases:
        try:
            self.place.prepare(layout.LEASES, self.stale_s)
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
        """Take the cell; False where another process holds it. InputError where the place cannot be written."""
        content = json.dumps({**vars(self.owner), "started": time.time()}).encode()
        try:
            found = self._found(cell_id)
            if found and not self._stale(found[-1]):
                return False
            name = layout.lease(cell_id, _generation(found[-1]) + 1 if found else 0)
            self.place.create(name, content)
        except FileExistsError:  # another was faster
            return False
        except OSError as error:
            raise self._unwritable(error) from error
        for older in found:
            self.place.delete(older)
        if self._found(cell_id)[-1:] != [name]:  # a folder listed while it changes may have hidden a higher one
            self.place.delete(name, content)
            return False
        self.held[cell_id] = Held(name, content)
        return True

    def holds(self, cell_id: str) -> bool:
        """Whether the cell is still ours: False where we slept so long that another process took it over.

        Whoever outbids a lease creates the next generation first and deletes ours then.
        """
        ours = self.held.get(cell_id)
        if ours is None or self.place.exists(layout.lease(cell_id, _generation(ours.name) + 1)):
            return False
        try:
            return self.place.read(ours.name) == ours.content
        except FileNotFoundError:
            return False

    def release(self, cell_id: str) -> None:
        """Give the cell back, if it is still ours."""
        ours = self.held.pop(cell_id, None)
        if ours is not None:
            with suppress(OSError):  # a disk in trouble: it goes stale
                self.place.delete(ours.name, ours.content)

    def other(self, cell_id: str) -> Owner | None:
        """Who else runs the cell now."""
        found = self._found(cell_id)
        return None if not found or self.holds(cell_id) else self._owner_of(found[-1])

    def _found(self, cell_id: str) -> list[str]:
        """The cell's leases, the valid one last."""
        names = self.place.names(layout.leases(cell_id))
        return sorted((name for name in names if layout.LEASE.fullmatch(name)), key=_generation)

    def _stale(self, name: str) -> bool:
        now = self.place.now()  # first: if we sleep after it, the lease looks younger than it is, and stays its owner's
        try:
            if now - self.place.look(name).changed > self.stale_s:
                return True
        except FileNotFoundError:  # given back this moment; the next look will see it
            return False
        owner = self._owner_of(name)
        return owner is not None and owner.gone

    def _beat(self) -> None:
        while not self.ended.wait(self.beat_s):
            for ours in list(self.held.values()):
                with suppress(OSError):  # the next beat may succeed
                    self.place.renew(ours.name, ours.content)

    def _clear(self) -> None:
        """Remove what dead processes left, so that the folder does not fill up."""
        for name in self.place.below(layout.LEASES):
            match = layout.LEASE.fullmatch(name)
            if match and self.take(match[1]):  # it was stale: nobody else can be taking it over
                self.release(match[1])

    def _owner_of(self, name: str) -> Owner | None:
        try:
            return owner_in(self.place.read(name))
        except OSError:  # gone
            return None

    def _unwritable(self, error: OSError) -> InputError:
        where = f"{self.place}/{layout.LEASES}".rstrip("/")
        return InputError(f"cannot write to {where}: {error.strerror or error}; free it or give another results_dir")


def _generation(name: str) -> int:
    match = layout.LEASE.fullmatch(name)
    return int(match[2]) if match else -1


def owner_in(content: bytes) -> Owner | None:
    """The owner that a lease names; None where it is damaged or of another version: its age alone decides then."""
    try:
        owner = Owner(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
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
