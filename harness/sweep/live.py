"""`live=true`: the page of the sweep while it runs, served by a process of its own (`python -m harness.watch`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.cell import Cell
from harness.paths import ROOT
from harness.store import layout


@contextmanager
def served(results: Path, cells: Sequence[Cell], wanted: bool) -> Iterator[None]:
    """The server says its address itself; whatever happens to it is no fault of the sweep's. It ends with the sweep."""
    if not wanted:
        yield
        return
    from harness.store.records import Store  # pyarrow: not in a worker, which imports this module once more

    if not layout.is_remote(results):
        results.mkdir(parents=True, exist_ok=True)
        results = results.resolve()
    recorded = Store(results).recorded()
    until = len(recorded.keys() | {cell.cell_id for cell in cells})
    command = [sys.executable, "-m", "harness.watch", str(results), "--port", "0", "--until", str(until)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
