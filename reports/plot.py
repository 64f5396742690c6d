"""Draw what a sweep recorded.

    python reports/plot.py [--results DIR] [--out DIR] [--format png,svg] [--where sampler=unipc,steps=10..20]
                           [--table FILE.csv|.tex|.md]

Reads results/cells, images, grids and plans; writes results/plots. Needs neither torch nor Hydra.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from rich.console import Console

from harness.errors import InputError, interruptible, one_line
from harness.store import layout
from harness.store.records import Store
from harness.verdict.table import NARROW
from reports import options
from reports.apart import Evidence
from reports.figures import (
    coefficients,
    convergence,
    discretisation,
    fid_clip,
    guidance,
    latency,
    law,
    pareto,
    precision,
    samplers,
    sheet,
    steps,
    strength,
)
from reports.records import Group, groups
from reports.style import Drawing, Looks, save, settings
from reports.summary import show

CHARTS: dict[str, Callable[..., Drawing]] = {
    "table of samplers": samplers.draw,
    "quality against latency": pareto.draw,
    "quality against energy": partial(pareto.draw, cost="energy_j_per_image"),
    "quality against cost": partial(pareto.draw, cost="cost_per_1000"),
    "quality against steps": steps.draw,
    "discretisation error": discretisation.draw,
    "error to the exact solution": convergence.draw,
    "distance to the true law": law.draw,
    "CFG curve": guidance.draw,
    "FID against CLIP score": fid_clip.draw,
    "strength curves": strength.draw,
    "precision": precision.draw,
    "latency against steps": latency.draw,
}
SHEET = "image sheet"
COMPARING = ("table of samplers", "quality against", "CFG curve")  # they show differences between cells
# The picture that says most, by the names of files: the first that was drawn is the one to open.
FIRST = ("samplers", "convergence", "cfg", "steps", "pareto", "strength", "law", "precision", "discretisation", "sheet")


def main(words: Sequence[str] | None = None) -> int:
    asked = _arguments(words)
    console = Console(width=None if sys.stdout.isatty() else NARROW)

    def work() -> int:
        cells = options.read(asked)
        written = report(
            asked.results, asked.out or layout.plots(asked.results), asked.format, console, cells, asked.table
        )
        return 0 if written else 2

    return options.guarded(work)


def report(
    results: Path,
    out: Path,
    formats: Sequence[str],
    console: Console,
    cells: pd.DataFrame | None = None,
    table: Path | None = None,
) -> list[Path]:
    """Draw everything that `cells` (default: all that `results` holds) are good for; the paths written."""
    cells = options.cells_of(results) if cells is None else cells
    found = groups(cells)
    if not found:
        raise InputError(f"no cell in {results} ended well ({len(cells)} failed or skipped): nothing to draw")
    looks = Looks(sorted(cells["label"].unique()))
    written: list[Path] = []
    pictures: list[Path] = []  # one a figure
    try:
        out.mkdir(parents=True, exist_ok=True)
        with settings(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a prompt may hold any letter
            for title, drawings in _all(found, looks, Store(results)):
                drawn = [drawing for drawing in drawings if drawing.figure is not None]
                for drawing in drawn:
                    written += save(drawing, out, formats)
                    pictures.append(written[-len(formats)])
                _tell(console, title, drawings, found)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}; free it or give --out DIR") from error
    written += options.write_table(show(cells, console, Store(results)), table)
    console.print(f"{len(written)} files written to {out}", markup=False, highlight=False, soft_wrap=True)
    if pictures:
        console.print(f"open first: {first(pictures)}", markup=False, highlight=False, soft_wrap=True)
    return written


def first(pictures: Sequence[Path]) -> Path:
    """The picture to open: of the kinds in FIRST the foremost, of several of a kind the group with the most cells."""
    kinds = [next((k for k, kind in enumerate(FIRST) if path.stem.startswith(kind)), len(FIRST)) for path in pictures]
    return pictures[kinds.index(min(kinds))]


def _all(found: list[Group], looks: Looks, store: Store) -> Iterator[tuple[str, list[Drawing]]]:
    evidence = Evidence(store)
    for title, chart in CHARTS.items():
        more = (evidence,) if title.startswith(COMPARING) else ()
        yield title, [chart(group, looks, *more) for group in found]
    yield "coefficients of the plans", [coefficients.draw(group, store) for group in found]
    yield SHEET, [drawing for group in found for drawing in sheet.draw(group, store)]


def _tell(console: Console, title: str, drawings: list[Drawing], found: list[Group]) -> None:
    """One line a figure drawn; where a kind of figure was drawn for no group, one line that says why."""
    drawn = [drawing for drawing in drawings if drawing.figure is not None]
    for drawing in drawn:
        note = f" ({drawing.note})" if drawing.note else ""
        console.print(one_line(f"drawn: {drawing.name}{note}"), markup=False, highlight=False, soft_wrap=True)
    reasons = list(dict.fromkeys(drawing.note for drawing in drawings if drawing.note))
    if not drawn and reasons:
        reason = reasons[-1] if len(found) > 1 and len(reasons) > 1 else reasons[0]
        console.print(one_line(f"not drawn: {title} ({reason})"), markup=False, highlight=False, soft_wrap=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw what a sweep recorded.")
    options.add(parser)
    parser.add_argument("--out", type=Path, help="folder for the figures (default: plots in the folder of records)")
    options.add_format(parser)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(interruptible(main))
