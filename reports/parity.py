"""The parity table as a figure: `python reports/parity.py [FILE]` (written by `python -m harness.parity`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.errors import interruptible
from harness.store import layout
from reports.style import COLOURS, Drawing, save, settings, titled

LIMITS = {"float64": 1e-12, "stock": 5e-6}
NAMES = {"float64": "float64, casts taken out", "stock": "stock float32"}
LEAST = 1e-17  # where an exact zero is drawn


def draw_file(path: Path, folder: Path) -> Path:
    """Draw one parquet file of comparisons; the PNG's path."""
    frame = pd.read_parquet(path)
    folder.mkdir(parents=True, exist_ok=True)
    with settings():
        return save(draw(frame), folder, ["png"])[0]


def draw(frame: pd.DataFrame) -> Drawing:
    """A row a sampler and peer; a dot the largest difference over all runs, a line the limit."""
    rows = frame[frame["difference"].notna() & frame["precision"].isin(list(LIMITS))]
    if rows.empty:
        return Drawing("parity", None, "no run was compared")
    rows = rows.assign(pair=rows["sampler"] + "  ·  " + rows["peer"].str.replace("_", "-"))
    pairs = sorted(rows["pair"].unique(), reverse=True)
    told = ", ".join(f"{name} {frame[name].iloc[0]}" for name in ("torch", "diffusers", "k_diffusion"))
    notes = [
        f"{told}. Largest difference over the largest value of their result, over all knobs, counterparts, 1 to "
        f"{int(rows['steps'].max())} steps and both ends. Hollow: a larger limit was due, because the run magnifies "
        "rounding or the peer does; the table says which. Crosses: a known fault of the peer."
    ]
    figure = titled(
        "Our samplers beside the peers': same levels, start, noise, denoiser", notes, 0.155 * len(pairs) + 1
    )
    panel = figure.subplots()
    _dots(panel, rows, pairs)
    panel.set_yticks(range(len(pairs)), pairs)
    panel.set_ylim(-0.7, len(pairs) - 0.3)
    panel.set_xscale("log")
    panel.set_xlim(LEAST / 2, 10)
    panel.xaxis.set_major_locator(LogLocator(numticks=10))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("largest relative difference")
    figure.legend(loc="outside lower center", ncols=3)
    return Drawing("parity", figure)


def _dots(panel: Axes, rows: pd.DataFrame, pairs: list[str]) -> None:
    for k, (precision, limit) in enumerate(LIMITS.items()):
        mine = rows[rows["precision"] == precision]
        if mine.empty:
            continue
        panel.axvline(limit, color=COLOURS[k], linestyle="--", linewidth=1, label=f"limit {limit:g}")
        worst = mine.loc[mine.groupby(["pair", "verdict"])["difference"].idxmax()]
        places = np.array([pairs.index(pair) for pair in worst["pair"]])
        sizes = worst["difference"].clip(lower=LEAST, upper=5).to_numpy()
        known = (worst["verdict"] == "by design").to_numpy()
        allowed = ~known & (worst["limit"] > limit).to_numpy()
        for chosen, marker, fill in (~known & ~allowed, "o", "full"), (allowed, "o", "none"), (known, "x", "full"):
            label = NAMES[precision] if marker == "o" and fill == "full" else None
            look = {"color": COLOURS[k], "markersize": 4.5, "fillstyle": fill, "label": label}
            panel.plot(sizes[chosen], places[chosen], marker, **look)


def main(words: Sequence[str]) -> int:
    found = [Path(word) for word in words] or sorted(layout.parity(Path("results")).glob("*.parquet"))
    if not found:
        print("error: no file in results/parity: run `python -m harness.parity` first, or name a file", file=sys.stderr)
        return 2
    newest = max(found, key=lambda path: path.stat().st_mtime)
    print(draw_file(newest, layout.plots(newest.parents[1])))
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(lambda: main(sys.argv[1:])))
