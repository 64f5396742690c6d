"""Can latencies of one sitting be trusted on a shared machine? The timing pass of a sweep, ten times over.

    python -m harness.bench.timing                                   # the README's first command
    python -m harness.bench.timing --repeats 5 sampler=unipc steps=10,40

Each repeat is the timing pass of a sweep, nothing else. A line each: the latencies, whether they rise with the steps,
the ratio of the last cell to the first with its interval, and whether the machine drifted. At the end: how often they
rose, and how often the interval holds the ratio of all repeats together.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.cell import Cell
from harness.errors import InputError, interruptible, one_line
from harness.measure.rounds import Timed
from harness.measure.session import Session
from harness.store.timings import Ratio, paired_ratio, paired_seconds, ratio_of
from harness.sweep.enumerate import enumerate_cells

DEFAULT = ("sampler=dpmpp", "steps=20,30,50")


def asked(words: Sequence[str]) -> list[Cell]:
    """The cells of a sweep's command line, cheapest first; InputError where they cannot be timed in one block."""
    cells = sorted(enumerate_cells(list(words)).cells.values(), key=lambda cell: cell.steps)
    if len(cells) < 2 or len({cell.model_key for cell in cells}) > 1 or "off" in {cell.timing for cell in cells}:
        raise InputError(
            "give at least two cells of one model with timing=quick or full, as in sampler=dpmpp steps=20,50"
        )
    return cells


def sitting(session: Session, cells: Sequence[Cell]) -> list[Timed]:
    """One timing pass, cell by cell as given; InputError where one block has no room for all."""
    session.time_together(cells, lambda what, images: None)
    missing = [cell.label for cell in cells if cell.cell_id not in session.timed]
    if missing:
        session.timed.clear()
        raise InputError(f"one block has no room for {', '.join(missing)}: give fewer or shorter cells")
    return [session.timed.pop(cell.cell_id) for cell in cells]


def repeat(session: Session, cells: Sequence[Cell]) -> tuple[list[Timed], Ratio, tuple[np.ndarray, np.ndarray]]:
    made = sitting(session, cells)
    first, last = (pd.DataFrame(timed.rows) for timed in (made[0], made[-1]))
    return made, paired_ratio(first, last), paired_seconds(first, last)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("words", nargs="*", help="as for harness.sweep")
    args = parser.parse_args()
    try:
        return measure(args.repeats, args.words or DEFAULT)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def measure(repeats: int, words: Sequence[str]) -> int:
    cells = asked(words)
    ratios: list[Ratio] = []
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    rose = 0
    heads = "  ".join(f"{cell.steps:>4} steps" for cell in cells)
    print(f"{'':10} {heads}   rises  {cells[-1].steps} : {cells[0].steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder)
        for k in range(repeats):
            made, ratio, seconds = repeat(session, cells)
            latencies = [timed.columns["latency_s"] for timed in made]
            rises = bool((np.diff(latencies) > 0).all())
            rose += rises
            ratios.append(ratio)
            pairs.append(seconds)
            drift = ", drifted" if made[0].columns["timing_drift"] else ""
            times = "  ".join(f"{latency:>8.3f} s" for latency in latencies)
            said = f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), load {os.getloadavg()[0]:.0f}{drift}"
            print(f"repeat {k + 1:<3} {times}   {'yes' if rises else 'NO':>5}  {said}", flush=True)
    whole = ratio_of(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
    holds = sum(ratio.low <= whole.ratio <= ratio.high for ratio in ratios)
    print(
        f"latency rises in {rose} of {repeats}; the ratio of all repeats, {whole.ratio:.2f} ({whole.low:.2f} to "
        f"{whole.high:.2f}), lies in the interval in {holds} of {repeats}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
