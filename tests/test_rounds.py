"""Cells timed in turn: who runs when, what a block holds, and what becomes of a cell that breaks in it. No clock."""

from __future__ import annotations

import pytest

from harness.measure import rounds
from harness.measure.cost import PRESETS, Preset
from harness.store import timings

SHORT = Preset(warmup_runs=1, warmup_seconds=0, runs=8, seconds=0)


class Clock:
    """Marks of a run that takes as long as it is told."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("harness.measure.cost.time.perf_counter", lambda: self.now)
        self.order: list[str] = []

    def run(self, name: str, seconds: float, breaks_at: int | None = None):
        def once(marks) -> None:
            self.order.append(name)
            if breaks_at is not None and self.order.count(name) > breaks_at:
                raise ValueError(f"{name} broke")
            marks.mark("start")
            self.now += seconds
            for part in ("text", "step", "denoise", "decode"):
                marks.mark(part)

        return once


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_each_round_has_every_cell_once_in_an_order_of_its_own(clock):
    names = [f"cell{k}" for k in range(4)]
    made = rounds.time_block({name: clock.run(name, 0.1) for name in names}, SHORT, "cpu")
    assert list(made) == names and clock.order[:4] == names  # warm-up: in the order given
    orders = [tuple(clock.order[first : first + 4]) for first in range(4, 36, 4)]
    assert len(clock.order) == 36 and all(sorted(order) == names for order in orders) and len(set(orders)) > 3
    for name in names:
        rows = made[name].rows
        assert [row["round"] for row in rows] == [None, *range(8)] and len({row["block"] for row in rows}) == 1
        assert [row["position"] for row in rows[1:]] == [order.index(name) for order in orders]
        assert made[name].columns["timing_cells"] == 4 and made[name].columns["timing_runs"] == 8


def test_the_order_is_the_same_for_the_same_cells(clock):
    runs = {name: clock.run(name, 0.1) for name in ("a", "b", "c")}
    rounds.time_block(runs, SHORT, "cpu")
    first, clock.order = clock.order, []
    rounds.time_block(runs, SHORT, "cpu")
    assert clock.order == first


def test_a_cell_that_has_enough_leaves_the_rounds_and_each_gets_its_seconds(clock):
    preset = Preset(warmup_runs=1, warmup_seconds=0, runs=5, seconds=2.0)
    made = rounds.time_block({"fast": clock.run("fast", 0.125), "slow": clock.run("slow", 1.0)}, preset, "cpu")
    assert [made[name].columns["timing_runs"] for name in ("fast", "slow")] == [16, 5]


def test_a_block_holds_what_there_is_time_for_and_three_cells_in_any_case(clock):
    runs = {f"cell{k}": clock.run(f"cell{k}", 1.0) for k in range(9)}  # 9 runs each
    assert len(rounds.time_block(runs, SHORT, "cpu")) == int(rounds.BLOCK_S // 9)
    long = {name: clock.run(name, 100.0) for name in ("a", "b", "c", "d")}
    assert list(rounds.time_block(long, SHORT, "cpu")) == ["a", "b", "c"]


def test_a_cell_that_breaks_leaves_the_block_and_the_first_one_ends_it(clock):
    runs = {"a": clock.run("a", 0.1), "b": clock.run("b", 0.1, breaks_at=3), "c": clock.run("c", 0.1, breaks_at=0)}
    made = rounds.time_block(runs, SHORT, "cpu")
    assert list(made) == ["a"] and made["a"].columns["timing_runs"] == 8
    with pytest.raises(ValueError, match="c broke"):
        rounds.time_block({"c": clock.run("c", 0.1, breaks_at=0), "a": clock.run("a", 0.1)}, SHORT, "cpu")


def test_a_machine_that_slows_down_half_way_is_said_in_every_cell(clock):
    def slowing(name: str):
        def once(marks) -> None:
            clock.run(name, 0.2 if len(clock.order) > 15 else 0.1)(marks)

        return once

    made = rounds.time_block({name: slowing(name) for name in ("a", "b", "c")}, SHORT, "cpu")
    assert [timed.columns["timing_drift"] for timed in made.values()] == [True] * 3
    steady = rounds.time_block({"a": clock.run("a", 0.1)}, SHORT, "cpu")
    assert steady["a"].columns["timing_drift"] is False
    few = Preset(warmup_runs=1, warmup_seconds=0, runs=3, seconds=0)
    assert rounds.time_block({"a": clock.run("a", 0.1)}, few, "cpu")["a"].columns["timing_drift"] is None


def test_every_preset_has_rounds_enough_for_a_ratio_and_for_drift():
    assert all(preset.runs >= max(timings.LEAST_ROUNDS, timings.DRIFT_ROUNDS) for preset in PRESETS.values())
