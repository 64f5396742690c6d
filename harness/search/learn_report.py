"""How good a learned plan is beside the best hand-made one: paired, with intervals, in three measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.search.learn_images import rms
from harness.statistics import LEVEL, mean_interval, median_interval, resample_counts

RESAMPLES = 4000
SETS = ("validation", "test", "second test")
Interval = list[float]  # value, lower and upper end of its 95 % interval


def figures(mine: np.ndarray, by_geometric: np.ndarray, by_rms: np.ndarray, size: np.ndarray) -> dict[str, Any]:
    """Errors of the plan and of the hand-made one that was chosen by each measure, and their paired ratios.

    All are (N,) relative errors of the same images; `size` ‖z*‖² of these.
    """
    better = (mine < by_geometric).astype(float)
    return {
        "rms": _rms(mine, size),
        "geometric": _geometric(mine),
        "median": [float(np.median(mine)), *map(float, median_interval(mine))],
        "hand_rms": _rms(by_rms, size),
        "hand_geometric": _geometric(by_geometric),
        "hand_median": [float(np.median(by_geometric)), *map(float, median_interval(by_geometric))],
        "ratio_rms": _rms_ratio(mine, by_rms, size),
        "ratio_geometric": _exp_mean(np.log(_positive(mine) / _positive(by_geometric)), differences=True),
        "better": [float(better.mean()), *map(float, mean_interval(better))],
    }


@dataclass(frozen=True)
class Judged:
    """The figures of one number of calls on the validation images and on both test sets."""

    nfe: int
    hand_by: Mapping[str, str]  # the hand-made one chosen by each measure on validation, as words of a sweep
    sets: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, calls: int, tested: Mapping[str, Any], best: Mapping[str, Any], by_rms: Mapping[str, Any]) -> Judged:
        chosen = {"geometric": best["said"], "rms": by_rms["said"]}
        out = {}
        for name, one in zip(SETS, tested["sets"], strict=True):
            mine, hand = np.array(one["learned"]), {said: np.array(errors) for said, errors in one["hand"].items()}
            said = {key: one[key] for key in ("seed", "first", "images")}
            told = figures(mine, hand[chosen["geometric"]], hand[chosen["rms"]], np.array(one["size"]))
            out[name] = {"images": said, **told}
        return cls(calls, chosen, out)

    def images(self) -> dict[str, Any]:
        return {name: one["images"] for name, one in self.sets.items()}

    def to_plain(self) -> dict[str, Any]:
        told = {name: {key: _round(v) for key, v in one.items() if key != "images"} for name, one in self.sets.items()}
        return {"competitor": dict(self.hand_by), **told}


HEADINGS = (
    "hand-made: RMS",
    "geometric",
    "median",
    "learned: RMS",
    "geometric",
    "median",
    "RMS ratio",
    "geometric ratio",
)
MEASURES = ("hand_rms", "hand_geometric", "hand_median", "rms", "geometric", "median")
RATIOS = ("ratio_rms", "ratio_geometric")


def markdown(told: Mapping[str, Any]) -> str:
    """The report as a page."""
    teacher, images = told["teacher"], told["images"]
    lines = [
        f"# Plans learned for model={told['model']} at CFG {told['cfg']:g}",
        "",
        f"Error: distance of the final latents to those of {teacher['method']} from the same noise, relative (the "
        f"metric `discretisation`); the teacher itself is off by {teacher['error']:.2g}. Model "
        f"{told['model_fingerprint']}, {told['precision']}, {told['hardware']}.",
        f"Fitted to {images['train']['images']} images, stopped by {images['validation']['images']} others, judged "
        f"once by two sets of {images['test']['images']} others; no two share a prompt or a noise. The hand-made side "
        "was raced on the validation images; each ratio is to the one that is best there in its own measure. "
        "Intervals: 95 %.",
        "",
    ]
    rows = []
    for plan in told["plans"]:
        for name in SETS:
            one = plan[name]
            found = [*(_said(one[key]) for key in MEASURES), *(_said(one[key], 2) for key in RATIOS)]
            rows.append([plan["nfe"], name, *found, f"{100 * one['better'][0]:.0f} %"])
    lines += _table(("calls", "images", *HEADINGS, "better in"), rows)
    rows = [
        [
            plan["nfe"],
            f"`{plan['competitor']['geometric']}`",
            f"`{plan['competitor']['rms']}`",
            f"{plan['starts_at']:.3g}",
            f"{plan['fit_seconds']:.0f}",
            f"{plan['race_seconds']:.0f}",
        ]
        for plan in told["plans"]
    ]
    headings = ("calls", "best hand-made by geometric mean", "by RMS", "learned starts at σ/α", "CPU s to learn")
    lines += ["", *_table((*headings, "CPU s of the race"), rows)]
    if told["neighbours"]:
        lines += ["", "At other guidance scales, the same plans and the best there of the hand-made finalists:", ""]
        measures = ("hand_rms", "rms", *RATIOS)
        rows = [
            [f"{one['cfg']:g}", one["nfe"], f"`{one['hand']}`", *(_said(one[key]) for key in measures)]
            for one in told["neighbours"]
        ]
        headings = ("CFG", "calls", "hand-made", "its RMS", "learned RMS", "RMS ratio", "geometric ratio")
        lines += _table(headings, rows)
    return "\n".join(lines) + "\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def _said(interval: Interval, digits: int = 3) -> str:
    value, low, high = (f"{number:.{digits}g}" for number in interval)
    return f"{value} [{low}, {high}]"


def _round(value: Any) -> Any:
    return [float(f"{number:.5g}") for number in value] if isinstance(value, list) else value


def _positive(errors: np.ndarray) -> np.ndarray:
    return np.maximum(errors, 1e-300)


def _geometric(errors: np.ndarray) -> Interval:
    return _exp_mean(np.log(_positive(errors)))


def _exp_mean(logs: np.ndarray, differences: bool = False) -> Interval:
    low, high = mean_interval(logs, differences=differences)
    return [float(np.exp(number)) for number in (logs.mean(), low, high)]


def _rms(errors: np.ndarray, size: np.ndarray) -> Interval:
    counts = resample_counts(len(errors), RESAMPLES)
    return _percentiles(rms(errors, size), np.sqrt(counts @ (errors**2 * size) / (counts @ size)))


def _rms_ratio(mine: np.ndarray, hand: np.ndarray, size: np.ndarray) -> Interval:
    counts = resample_counts(len(mine), RESAMPLES)
    draws = np.sqrt((counts @ (mine**2 * size)) / np.maximum(counts @ (hand**2 * size), 1e-300))
    return _percentiles(rms(mine, size) / rms(hand, size), draws)


def _percentiles(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(value), min(float(low), value), max(float(high), value)]
