"""Two cells, or two values of an axis over a sweep, side by side: what changes, and whether that is more than chance.

    python reports/compare.py c0b8 79ad                           two cells, by the beginning of their ids
    python reports/compare.py sampler=dpmpp sampler=unipc         every cell of one with its counterpart of the other
    python reports/compare.py steps=20 steps=50 --where cfg=3     two step counts, at one cfg

    [--results DIR] [--out DIR] [--format png,svg] [--table FILE.csv|.tex|.md]

Differences are B − A over the images that both have, from the same prompts and noise, with 95 % intervals; p is
corrected (Holm) over everything that is shown. Writes results/plots/compare-….png. Needs neither torch nor Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import statistics
from harness.errors import InputError, interruptible, one_line
from harness.store import layout
from harness.store.records import Store
from harness.store.timings import paired_ratio
from harness.verdict import ratios, table, words
from harness.verdict.measures import BY_NAME, QUALITY, Measure, bounds, same
from harness.verdict.paired import ALPHA, differences, read_images
from reports import forest, matching, options, table_files
from reports.matching import Matched
from reports.style import save, settings

RATIOS = ("latency_s", "peak_memory_mib", "nfe", "energy_j_per_image", "cost_per_1000")
UNPAIRED = "latency: the ratio of two blocks of runs, not paired by round, so only as good as the machine was quiet"
# What may differ between the sides of a comparison although cells of one sweep's group agree in it.
FREE = ("model", "model_fingerprint", "strength", "negative_prompt", "n_images", "height", "width")
BETTER, WORSE, TIED, EQUAL, NOT = "better", "worse", "cannot be told apart", "equal", "not comparable"
OUTCOMES = {
    BETTER: "B is better in", WORSE: "B is worse in", TIED: "cannot be told apart in", EQUAL: "equal in",
    NOT: "not comparable in",
}  # fmt: skip


def compare(matched: Matched, store: Store) -> pd.DataFrame:
    """A row a pair and measure: pair, measure, a, b, difference, low, high, n, p (corrected), verdict, note.

    Ratios of costs stand in the same frame as `measure` latency_s, ... with difference = b/a.
    """
    cells = matched.cells
    filled = [what for what in QUALITY if cells[what.column].notna().any()]
    images = read_images(store, cells, [what.column for what in filled])
    rows = [
        _row(cells, images, what, k, pair) for k, pair in enumerate(matched.pairs) for what in filled
    ]  # fmt: skip
    found = pd.DataFrame([row for row in rows if row is not None])
    if found.empty:
        raise InputError("the two sides have no measured value in common; sweep both with the same metrics")
    found = judged(found)
    timed = ratios.timings(store, cells)
    told = cells.to_dict("index")
    costs = [
        ratio(BY_NAME[name], told[a], told[b], *(timed[told[place]["cell_id"]] for place in (a, b)))
        for name in RATIOS
        for a, b in matched.pairs
    ]
    rows = [{"pair": k % len(matched.pairs), **row} for k, row in enumerate(costs) if row is not None]
    return pd.concat([found, pd.DataFrame(rows)], ignore_index=True)


def judged(found: pd.DataFrame, together: np.ndarray | None = None) -> pd.DataFrame:
    """The rows that are shown together (measure, difference, low, high, p of each alone, paired, note), judged as one.

    p becomes that of Holm over all of them, or over those of one number in `together`; `verdict` is added.
    """
    found = found.copy()
    # Values that are all equal can raise no alarm, so they cost the others nothing.
    equal = (found["note"] == "") & (found[["difference", "low", "high"]] == 0).all(axis=1) & found["paired"]
    p = found["p"].to_numpy(float, copy=True)
    p[equal.to_numpy()] = np.nan
    asked = np.flatnonzero(~np.isnan(p))
    family = np.zeros(len(asked)) if together is None else together[asked]
    for rows in pd.Series(asked).groupby(family).indices.values():
        p[asked[rows]] = statistics.holm(p[asked[rows]])
    found["p"] = p
    found["verdict"] = [_verdict(row) for row in found.itertuples()]
    found.loc[equal, "verdict"] = EQUAL
    return found


def _row(cells: pd.DataFrame, images: pd.DataFrame, what: Measure, k: int, pair: tuple[object, object]) -> dict | None:
    """One measure of one pair; None where neither cell has it."""
    two = cells.loc[list(pair)]
    values = two[what.column].astype(float).to_numpy()
    row = {"pair": k, "measure": what.column, "a": values[0], "b": values[1], "note": "", "p": np.nan, "paired": False}
    if np.isnan(values).all():
        return None
    if np.isnan(values).any():
        return {**row, "note": "measured on one side only"}
    differ = [c for c in same(what) if c not in FREE and c in two and two[c].nunique(dropna=False) > 1]
    if differ:
        return {**row, "note": f"the two differ in {', '.join(differ)}"}
    found = differences(two, images, what.column, to=two["cell_id"].iloc[0], free=FREE).iloc[1]
    return {**row, **found[["difference", "low", "high", "n", "p", "effect", "paired"]].to_dict()}


def _verdict(row: object) -> str:
    if row.note:
        return NOT
    if not row.p < ALPHA:
        return TIED
    return BETTER if (row.difference > 0) == BY_NAME[row.measure].higher_is_better else WORSE


def ratio(
    what: Measure,
    one: Mapping[str, Any],
    two: Mapping[str, Any],
    timed_one: pd.DataFrame | pd.Series,
    timed_two: pd.DataFrame | pd.Series,
) -> dict[str, Any] | None:
    """Of two rows of the cells table B over A: of latency from the rounds in which both were timed (rows of the table
    `timings`, or what `by_round` makes of them), else from the two values' own intervals. None where one has no value.
    """
    a, b = (float(row[what.column]) if pd.notna(row[what.column]) else np.nan for row in (one, two))
    if not (a > 0 and b > 0):
        return None
    row = {"measure": what.column, "a": a, "b": b, "difference": b / a, "note": "ratio", "verdict": ""}
    row |= {"paired": False}
    found = paired_ratio(timed_one, timed_two) if what.column == "latency_s" else None
    if found is not None:
        return {
            **row,
            "difference": found.ratio,
            "low": found.low,
            "high": found.high,
            "n": found.rounds,
            "paired": True,
        }
    low, high = bounds(what.column)
    if all(pd.notna(cell.get(end)) for cell in (one, two) for end in (low, high)) and min(one[low], two[low]) > 0:
        half = float(np.hypot(*(np.log(float(cell[high]) / float(cell[low])) / 2 for cell in (one, two))))
        row |= {"low": b / a * np.exp(-half), "high": b / a * np.exp(half)}
    return row


def main(given: Sequence[str] | None = None) -> int:
    asked = _arguments(given)
    console = Console(width=None if sys.stdout.isatty() else table.NARROW)

    def work() -> int:
        cells = options.read(asked)
        matched = matching.match(cells, asked.a, asked.b)
        found = compare(matched, Store(asked.results))
        show(matched, found, console)
        written = [draw(matched, found, asked.out or layout.plots(asked.results), asked.format)]
        if asked.table is not None:
            texts, numbers = _texts(matched, found), _numbers(matched, found)
            written.append(table_files.write(asked.table, texts, numbers, said(matched, found)))
        for path in written:
            _line(console, f"written: {path}")
        return 0

    return options.guarded(work)


def show(matched: Matched, found: pd.DataFrame, console: Console) -> None:
    for letter, side in zip("AB", matched.sides, strict=True):
        _line(console, f"{letter}: {side}")
    if len(matched.pairs) == 1 and matched.titles[0]:
        _line(console, f"both: {matched.titles[0]}")
    texts = _texts(matched, found)
    shown = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in texts:
        shown.add_column(Text(heading), overflow="fold")
    for row in zip(*texts.values(), strict=True):
        shown.add_row(*(Text(one_line(text)) for text in row))
    console.print(shown)
    for sentence in said(matched, found):
        _line(console, sentence)


def _texts(matched: Matched, found: pd.DataFrame) -> dict[str, list[str]]:
    """Heading → texts. One pair: a row a measure; several: a row a pair and measure, the pair named first."""
    out: dict[str, list[str]] = {} if len(matched.pairs) == 1 else {"where both": []}
    out |= {heading: [] for heading in ("measure", "A", "B", "B − A", "n", "p", "B is")}
    order = found.assign(rank=found["measure"].map(list(BY_NAME).index)).sort_values(["rank", "pair"], kind="stable")
    for row in order.itertuples():
        what = BY_NAME[row.measure]
        if "where both" in out:
            out["where both"].append(matched.titles[row.pair])
        out["measure"].append(what.heading)
        for letter, value in (("A", row.a), ("B", row.b)):
            out[letter].append("–" if pd.isna(value) else what.form.format(value * what.scale))
        out["B − A"].append(_change(row, what))
        out["n"].append("" if pd.isna(row.n) or not row.n else f"{row.n:.0f}{' rounds' * (row.note == 'ratio')}")
        out["p"].append("" if pd.isna(row.p) else f"{row.p:.2g}")
        out["B is"].append(row.note if row.verdict == NOT else row.verdict)
    return out


def _change(row: object, what: Measure) -> str:
    if row.note == "ratio":
        interval = "" if pd.isna(row.low) else f" ({row.low:.3f} to {row.high:.3f})"
        return f"×{row.difference:.3f}{interval}"
    if pd.isna(getattr(row, "difference", np.nan)):
        return ""
    if row.verdict == EQUAL:
        return "0"
    text = words.difference(pd.Series(row._asdict()), what.scale)
    return text if row.paired else f"{text} *"


def said(matched: Matched, found: pd.DataFrame) -> list[str]:
    """The outcome in words, a line a verdict or, over several pairs, a line a measure."""
    quality, lines = found[found["verdict"] != ""], []
    if len(matched.pairs) == 1:
        for verdict, text in OUTCOMES.items():
            named = [BY_NAME[name].heading for name in quality.loc[quality["verdict"] == verdict, "measure"]]
            lines += [f"{text}: {', '.join(named)}"] if named else []
    else:
        told: dict[str, list[str]] = {}
        for name, rows in quality.groupby("measure", sort=False):
            counts = rows["verdict"].value_counts()
            parts = [f"{text} {counts[verdict]}" for verdict, text in OUTCOMES.items() if verdict in counts]
            told.setdefault(f"{', '.join(parts)} of {len(rows)} pairs", []).append(BY_NAME[name].heading)
        lines = [f"{', '.join(named)}: {text}" for text, named in told.items()]
    if (quality["verdict"].isin([BETTER, WORSE, TIED]) & ~quality["paired"].astype(bool)).any():
        lines.append(table.UNPAIRED)
    latency = found[found["measure"] == "latency_s"]
    if len(latency) and not latency["paired"].astype(bool).all():
        lines.append(UNPAIRED)
    return [*lines, *matched.notes]


def draw(matched: Matched, found: pd.DataFrame, folder: Path, kinds: Sequence[str]) -> Path:
    """The figure in every format; the first one's path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with settings():
            return save(forest.draw(matched, found[found["verdict"].isin([BETTER, WORSE, TIED])]), folder, kinds)[0]
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; free it or give --out DIR") from error


def _numbers(matched: Matched, found: pd.DataFrame) -> pd.DataFrame:
    """Everything in full, with the ids of the cells."""
    ids = [[matched.cells.loc[place, "cell_id"] for place in matched.pairs[k]] for k in found["pair"]]
    sides = pd.DataFrame(ids, columns=["cell_a", "cell_b"], index=found.index)
    where = pd.Series([matched.titles[k] for k in found["pair"]], found.index, name="where")
    columns = ["measure", "a", "b", "difference", "low", "high", "n", "p", "paired", "verdict", "note"]
    return pd.concat([sides, where, found[columns]], axis=1)


def _line(console: Console, text: object) -> None:
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Two cells, or two values of an axis, side by side.")
    parser.add_argument("a", metavar="A", help="beginning of a cell's id, or AXIS=VALUE")
    parser.add_argument("b", metavar="B", help="the same of what it is compared with")
    parser.add_argument("--out", type=Path, help="folder for the figure (default: plots in the folder of records)")
    options.add_format(parser)
    options.add(parser)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(interruptible(main))
