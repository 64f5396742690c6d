"""tracker=NAME: the file harness/trackers/kinds/NAME.py, checked before a sweep and fed while it runs.

A tracker works in a thread of its own and is told of cells that are recorded already: however long it takes, whatever
it raises, no cell waits for it or is lost.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from harness.errors import InputError, nearest, one_line
from harness.store.place import Place
from harness.store.tiles import Tiles, has_grid, load_grid
from harness.trackers import kinds
from harness.trackers.base import Tracker, ended

NONE = "none"
LAST_S = 60.0  # that a tracker has for what is left when the sweep has ended
STOPPED_S = 5.0  # the same where the sweep was interrupted


def names() -> list[str]:
    return [NONE, *sorted(module.name for module in iter_modules(kinds.__path__))]


def check(name: object) -> str:
    """`name`, of a tracker that is here; InputError where there is none such, or its library is not installed."""
    if name not in names():
        raise InputError(f"unknown tracker {str(name)!r}; {nearest(str(name), names())}")
    if name != NONE:
        kind = _kind(str(name))
        missing = [module for module in kind.requires if not _installed(module)]
        if missing:
            raise InputError(
                f"tracker={name} needs {' and '.join(missing)}, which is not installed: "
                f"pip install -e '.[{kind.extra}]' (or uv sync --extra {kind.extra}), or tracker=none"
            )
    return str(name)


def _installed(module: str) -> bool:
    """A folder of that name where the sweep was started (./wandb holds runs) is no library: it has no file to load."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _kind(name: str) -> type[Tracker]:
    return import_module(f"{kinds.__name__}.{name}").TRACKER


class Tracking:
    """A tracker at work, or none. `told` gives the lines that a reader should see, each once.

        with Tracking("wandb", store.place, folder, "results") as tracking:
            tracking.write(row, "dpmpp, 20 steps")
        print(*tracking.told())

    `place`: where the cells are recorded, their images among them; `folder`: where the tracker may write.
    """

    def __init__(self, name: str, place: Place, folder: Path, sweep: str, last_s: float = LAST_S) -> None:
        self.name, self.place, self.folder, self.sweep, self.last_s = name, place, folder, sweep, last_s
        self._cells: queue.SimpleQueue[tuple[Mapping[str, Any], str] | None] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = threading.Event()  # it has failed, or is too late: nothing more is written
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def __enter__(self) -> Tracking:
        if self.name != NONE:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.name == NONE:
            return
        self._cells.put(None)
        self._thread.join(self.last_s if kind is None else min(self.last_s, STOPPED_S))
        if self._thread.is_alive() and not self._over.is_set():
            self._over.set()
            self._lines.put(f"warning: {self.name} was not done in time and is left; the records are whole")

    def write(self, row: Mapping[str, Any], name: str) -> None:
        """A cell that has been recorded: its row, and what people call it."""
        if self.name != NONE and not self._over.is_set():
            self._cells.put((row, name))

    def told(self) -> list[str]:
        """What there is to say since the last call."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return lines

    def _work(self) -> None:
        try:
            tracker = _kind(self.name)(self.folder, self.sweep)
            while (given := self._cells.get()) is not None and not self._over.is_set():
                row, name = given
                tracker.write(ended(row, name, self._tiles(row["cell_id"])))
            line = tracker.close()
            if line and not self._over.is_set():
                self._lines.put(line)
        except (Exception, SystemExit) as error:  # whatever a library does: the cells are recorded
            if not self._over.is_set():
                reason = one_line(f"{type(error).__name__}: {error}")[:300]
                self._lines.put(f"warning: {self.name} failed and is told no more ({reason}); the records are whole")
            self._over.set()

    def _tiles(self, cell_id: str) -> Tiles | None:
        """None where there are none, or where they are damaged: the numbers are worth telling without."""
        try:
            return load_grid(self.place, cell_id) if has_grid(self.place, cell_id) else None
        except (OSError, ValueError):
            return None
