"""The figure of a diagnosis: where the error arises, how the way bends, what the result feels of each coefficient."""

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
from reports.style import COLOURS, Drawing, log_axis, save, settings, titled

STEPS = (("local", "misses, its past exact", "o"), ("arrives", "of it at the end", "s"), ("euler", "Euler would", "^"))
CURVATURE = (("dD", "|dD/dλ|"), ("d2D", "|d²D/dλ²|"))


def draw(told: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw what `harness.diagnose` found to `path` with .png added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with settings():
        return save(drawing(told, path.name), path.parent, ["png"])


def drawing(told: Mapping[str, Any], name: str) -> Drawing:
    """Two panels over σ/α, and a third of the coefficients where these were asked about."""
    note = (
        f"Error {told['error']:.3g} over {told['images']} images, relative to the limit. Left: each step, at "
        "the level where it begins. Middle: the denoiser's answers D along the way; ticks below are the plan's calls."
    )
    third = " Right: by how much the log of the error changes with a weight, at the expense of the newest answer's."
    coefficients = told["coefficients"]
    figure = titled(f"{told['model']}: {told['cell']}", [note + (third if coefficients else "")], 3.4)
    panels = list(figure.subplots(1, 3 if coefficients else 2))
    _steps(panels[0], told["steps"])
    _bends(panels[1], told)
    if coefficients:
        _weights(panels[2], coefficients)
    for panel in panels[:2]:
        panel.set_xlabel("σ/α")
        log_axis(panel.xaxis)
        panel.invert_xaxis()
        log_axis(panel.yaxis)
        panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return Drawing(name, figure)


def _steps(panel: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    seen = [one for one in steps if one["from"] is not None]
    for k, (key, label, marker) in enumerate(STEPS):
        points = [(one["from"], one[key]) for one in seen if one[key]]
        panel.plot(*zip(*points, strict=True), color=COLOURS[k], marker=marker, markersize=4, label=label)
    panel.set_title("each step")
    panel.set_ylabel("relative error")


def _bends(panel: Axes, told: Mapping[str, Any]) -> None:
    curvature = told["curvature"]
    for k, (key, label) in enumerate(CURVATURE):
        panel.plot(curvature["ratios"], curvature[key], color=COLOURS[k], label=label)
    calls = [one["from"] for one in told["steps"] if one["from"] is not None]
    panel.plot(calls, np.full(len(calls), 0.02), "|", color="black", transform=panel.get_xaxis_transform())
    panel.set_title("the way")


def _weights(panel: Axes, coefficients: Sequence[Mapping[str, Any]]) -> None:
    """A square a weight: the call after which it is read, and how many calls ago its answer was given."""
    table = np.full([1 + max(one[key] for one in coefficients) for key in ("back", "call")], np.nan)
    for one in coefficients:
        table[one["back"], one["call"]] = one["log_error"]
    most = float(np.nanmax(np.abs(table))) or 1.0
    drawn = panel.imshow(table[1:], cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", origin="lower")
    panel.set_yticks(range(len(table) - 1), range(1, len(table)))
    panel.set_xlabel("call")
    panel.set_ylabel("answer, calls ago")
    panel.set_title("d log error / dw")
    panel.grid(visible=False)
    panel.figure.colorbar(drawn, ax=panel)


def main(words: Sequence[str]) -> int:
    """Draw again what `python -m harness.diagnose` left."""
    parser = argparse.ArgumentParser(prog="python -m reports.diagnosis", description=__doc__)
    parser.add_argument("file", type=Path, help="a file of results/diagnoses")
    path = parser.parse_args(words).file
    if not path.is_file():
        print(f"error: {path} is not there: give a file that `python -m harness.diagnose` wrote", file=sys.stderr)
        return 2
    print(*draw(json.loads(path.read_text()), path.with_suffix("")))
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(lambda: main(sys.argv[1:])))
