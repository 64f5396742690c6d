"""The command that times the same cells again and again: what it prints of timings that are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from harness.bench import timing
from harness.measure.rounds import Timed


def timed(seconds: np.ndarray, block: str) -> Timed:
    rows = [{"block": block, "round": k, "kind": "timed", "total_s": float(s)} for k, s in enumerate(seconds)]
    return Timed(rows, {"latency_s": float(np.median(seconds)), "timing_drift": False})


@pytest.fixture
def sittings(monkeypatch):
    """Ten sittings whose first and last cell take 1 and `ratio` times as long, with the same noise in a round."""

    def of(ratio: float, falls_in: int | None = None) -> None:
        rng, count = np.random.default_rng(0), iter(range(1000))

        def sitting(session, cells):
            k = next(count)
            load = np.exp(rng.normal(0, 0.3, 8))
            factors = [1.0, 1.5, 1.4 if k == falls_in else ratio]
            return [timed(f * load * np.exp(rng.normal(0, 0.02, 8)), f"block{k}") for f in factors]

        monkeypatch.setattr(timing, "sitting", sitting)
        monkeypatch.setattr(timing, "Session", lambda folder: None)

    return of


def test_it_says_how_often_latencies_rise_and_intervals_hold(sittings, capsys):
    sittings(2.5)
    assert timing.measure(10, timing.DEFAULT) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[-1].startswith("latency rises in 10 of 10; the ratio of all repeats, 2.4")
    assert int(lines[-1].split()[-3]) >= 9


def test_a_repeat_that_does_not_rise_is_counted(sittings, capsys):
    sittings(2.5, falls_in=3)
    timing.measure(10, timing.DEFAULT)
    out = capsys.readouterr().out
    assert "latency rises in 9 of 10" in out and "NO" in out.splitlines()[4]


@pytest.mark.parametrize("words", (["steps=20"], ["steps=5,10", "timing=off"], ["steps=5", "precision=fp32,bf16"]))
def test_cells_that_have_no_ratio_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_timing", *words])
    assert timing.main() == 2 and "give at least two cells" in capsys.readouterr().err
