"""The figure of a report of `python -m harness.learn`: error against calls, hand-made and learned."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.axes import Axes

from harness.errors import interruptible
from reports.style import COLOURS, Drawing, log_axis, save, settings, titled, value_axis

PANELS = (("rms", "RMS"), ("geometric", "geometric mean"))
SERIES = (("hand_", "best hand-made", "o"), ("", "learned", "s"))


def draw(told: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw a report's plain values to `path` with .png added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with settings():
        return save(drawing(told, path.name), path.parent, ["png"])


def drawing(told: Mapping[str, Any], name: str) -> Drawing:
    """Two panels, one a measure: both test sets of the hand-made side and of the learned, with their intervals."""
    plans = sorted(told["plans"], key=lambda plan: plan["nfe"])
    count = told["images"]["test"]["images"]
    note = (
        f"Distance to the limit of many steps on two test sets of {count} images, which nothing was fitted to or "
        "chosen by; bars: 95 %. The hand-made one is the best of every sampler, schedule and knob on other images."
    )
    figure = titled(f"Plans learned for {told['model']} at CFG {told['cfg']:g}", [note], 3.4)
    for panel, (measure, heading) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for k, (prefix, label, marker) in enumerate(SERIES):
            for which, test in enumerate(("test", "second test")):
                values = np.array([plan[test][prefix + measure] for plan in plans])
                place = np.array([plan["nfe"] * 1.015 ** (2 * which - 1) for plan in plans])
                _points(panel, place, values, COLOURS[k], marker, label if which == 0 else None, which)
        panel.set_title(heading)
        panel.set_xlabel("denoiser calls")
        value_axis(panel.xaxis, [plan["nfe"] for plan in plans], log=True)
        log_axis(panel.yaxis)
    figure.axes[0].set_ylabel("relative error")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Drawing(name, figure)


def _points(
    panel: Axes, place: np.ndarray, values: np.ndarray, colour: str, marker: str, label: str | None, which: int
) -> None:
    """`values` (n, 3): each with the ends of its interval."""
    bars = np.abs(values[:, 1:].T - values[:, 0])
    line = "-" if which == 0 else "none"
    panel.errorbar(
        place, values[:, 0], bars, color=colour, marker=marker, markersize=4, linestyle=line, capsize=2, label=label
    )


def main(words: Sequence[str]) -> int:
    """Draw again what `python -m harness.learn` left: its `….figures.json`."""
    parser = argparse.ArgumentParser(prog="python -m reports.learned", description=__doc__)
    parser.add_argument("file", type=Path, help="….figures.json that `python -m harness.learn` wrote")
    path = parser.parse_args(words).file
    if not path.is_file():
        print(f"error: {path} is not there: give a .figures.json that `python -m harness.learn` wrote", file=sys.stderr)
        return 2
    print(*draw(json.loads(path.read_text()), path.with_name(path.name.removesuffix(".figures.json"))))
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(lambda: main(sys.argv[1:])))
