"""The plots and the page of a sweep that ended, and which to open."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from harness.cell import Cell
from harness.errors import one_line
from harness.paths import ROOT
from harness.store import layout

# Which figure (reports/figures) shows an axis; where several vary, the first.
FIGURES = (("strength", "strength"), ("cfg", "cfg"), ("precision", "precision"), ("steps", "steps"))
MANY_SAMPLERS = 5  # from which on a table of them says more than their curves


def draw(results: Path, cells: list[Cell], ran: int) -> str:
    """Draw all that is recorded, where something is new; one line that names the picture to open.

    By a process of its own: a sweep knows nothing of reports, and whatever happens to them is no fault of its cells.
    """
    plots = layout.plots(results)
    again = by_hand(results)
    if not ran and any(plots.glob("*.png")):
        return f"nothing new to draw: plots are in {plots}; again: {again}"
    print(f"drawing plots into {plots}", flush=True)
    began = time.time()
    command = [sys.executable, str(ROOT / "reports" / "plot.py"), "--results", str(results)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"warning: no plots were drawn ({error}); the records are whole; try: {again}"
    drawn = [line.removeprefix("drawn: ").split(" (")[0] for line in done.stdout.splitlines() if line[:7] == "drawn: "]
    new = [path for path in (plots / f"{name}.png" for name in drawn) if _newer(path, began)]
    if not new:
        reason = one_line((done.stderr.strip().splitlines() or ["nothing to compare yet"])[-1])[:300]
        return f"warning: no plots were drawn ({reason}); the records are whole; try: {again}"
    return f"plots: open {_first(new, cells)}" + (f" ({len(new) - 1} more beside it)" if len(new) > 1 else "")


def page(results: Path, ran: int) -> str:
    """Build the page of all that is recorded, where something is new; one line that names it.

    By a process of its own, as the plots.
    """
    out = layout.page(results)
    again = by_hand(results, "page")
    if not ran and out.exists():
        return f"page: {out} holds all of it already; again: {again}"
    command = [sys.executable, str(ROOT / "reports" / "page.py"), "--results", str(results)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"warning: no page was written ({error}); the records are whole; try: {again}"
    if done.returncode:
        reason = one_line((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])[:300]
        return f"warning: no page was written ({reason}); the records are whole; try: {again}"
    return f"page: open {out} in a browser"


def _first(drawn: list[Path], cells: list[Cell]) -> Path:
    """The picture that answers what this sweep asked: of its own task and model, over the axis that varies."""
    several = [figure for axis, figure in FIGURES if len({str(getattr(cell, axis)) for cell in cells}) > 1]
    if len({cell.sampler.name for cell in cells}) > MANY_SAMPLERS:
        several.insert(0, "samplers")
    ends = {f"{cell.task.name}-{cell.model.name}".lower() for cell in cells}
    own = [path for path in drawn if any(path.stem.endswith(end) for end in ends)]
    wanted = [path for figure in several for path in own if path.stem.startswith(f"{figure}-")]
    return next(iter([*wanted, *own, *drawn]))


def by_hand(results: Path, report: str = "plot") -> str:
    return f"python reports/{report}.py" + ("" if str(results) == "results" else f" --results {results}")


def _newer(path: Path, began: float) -> bool:
    try:
        return path.stat().st_mtime >= began - 2  # some file systems keep whole seconds
    except OSError:
        return False
