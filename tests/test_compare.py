"""The speed gate: its decision on made-up series, and the whole of it between two real checkouts' stand-ins."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from harness.bench import speed_gate
from harness.compare import decide, two_checkouts
from harness.errors import InputError

RULE = decide.Rule()


def series(factor, spread=0.1, seed=0, shared=0.4):
    """Pairs of a noisy machine: what slows both down (drawn anew each pair), and what meets one alone."""
    rng = np.random.default_rng(seed)
    while True:
        both = 0.1 * np.exp(shared * abs(rng.standard_normal()))
        one, other = np.exp(spread * rng.standard_normal(2))
        yield both * one, both * other * factor


def outcomes(factor, runs, **noise):
    found = []
    for seed in range(runs):
        pairs = series(factor, seed=seed, **noise)
        verdicts, _ = decide.decide(lambda pairs=pairs: next(pairs), RULE)
        found.append(verdicts[-1].outcome)
    return found


def test_an_unchanged_side_passes():
    assert outcomes(1.0, 60).count(decide.SLOWER) == 0


@pytest.mark.parametrize(("factor", "share"), [(1.05, 0.80), (1.10, 0.95)])
def test_a_slower_side_is_found(factor, share):
    assert outcomes(factor, 40).count(decide.SLOWER) >= share * 40


def test_a_clear_case_stops_early_and_what_looks_slower_is_measured_again():
    pairs = series(1.3)
    verdicts, taken = decide.decide(lambda: next(pairs), RULE)
    assert [verdict.outcome for verdict in verdicts] == [decide.SLOWER] * 2
    assert len(taken) == sum(verdict.pairs for verdict in verdicts) < RULE.most


def test_one_bad_spell_does_not_fail_the_gate():
    """Slow for the first measurement alone: the second acquits."""
    first, then = series(1.3), series(1.0)
    taken = []

    def pair():
        taken.append(1)
        return next(first if len(taken) <= RULE.least else then)

    verdicts, _ = decide.decide(pair, RULE)
    assert [verdict.outcome for verdict in verdicts] == [decide.SLOWER, decide.PASS]


def test_a_machine_too_noisy_to_tell_is_inconclusive():
    assert decide.UNDECIDED in outcomes(1.0, 5, spread=1.0)


def test_looks_only_where_the_rule_looks():
    ratios = np.full(RULE.least + 1, 2.0)
    assert decide.judge(ratios[: RULE.least - 1], RULE) is None
    assert decide.judge(ratios[: RULE.least], RULE).outcome == decide.SLOWER
    assert decide.judge(ratios, RULE) is None


@pytest.mark.parametrize("wrong", [{"slower": 1.0}, {"confidence": 1.2}, {"least": 1}, {"most": 3}, {"unseen": 1.01}])
def test_a_rule_without_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match="a rule needs"):
        decide.Rule(**wrong)


class Fake:
    """A side that answers at once."""

    def __init__(self, name, labels=("a",), seconds=0.1, mib=500.0, nfe=10, flops=1e9, broken=()):
        self.name, self.labels, self.seconds, self.mib, self.broken = name, list(labels), seconds, mib, broken
        self.cost = {"nfe": nfe, "flops": flops}
        self.pairs = series(1.0, seed=len(name))

    def ask(self, do, **values):
        if do in self.broken:
            raise RuntimeError(f"{self.name}: ValueError: no such thing")
        noise = next(self.pairs)[0] if do == "time" else 1.0
        answers = {"cells": {"labels": self.labels}, "prepare": self.cost, "memory": {"mib": self.mib}}
        return answers.get(do, {"seconds": self.seconds * (0.95 + noise / 2)})


def verdict(candidate, base=None):
    """Exit code and what was found."""
    limits = two_checkouts.Limits.load()
    found = list(two_checkouts.compare(base or Fake("base"), candidate, [], limits))
    return two_checkouts.report("main", found).exit_code, {one.what: one.outcome for one in found}


def test_two_equal_sides_pass():
    code, found = verdict(Fake("candidate"))
    assert code == 0 and set(found) == {"nfe", "flops", "memory", "time"}


@pytest.mark.parametrize(
    ("change", "what"),
    [({"nfe": 11}, "nfe"), ({"flops": 1.0001e9}, "flops"), ({"mib": 550.0}, "memory"), ({"seconds": 0.15}, "time")],
)
def test_each_kind_of_regression_is_found(change, what):
    code, found = verdict(Fake("candidate", **change))
    assert code == 1 and [name for name, outcome in found.items() if outcome == "regression"] == [what]


def test_fewer_calls_are_an_improvement():
    code, found = verdict(Fake("candidate", nfe=9))
    assert code == 0 and found["nfe"] == "improvement"


def test_a_cell_that_vanished_or_fails_is_a_regression_and_the_others_are_judged():
    assert verdict(Fake("candidate", labels=("b",)))[0] == 1
    assert verdict(Fake("candidate", broken=("prepare",)))[0] == 1


def test_a_base_that_cannot_run_is_unusable_input():
    with pytest.raises(InputError, match="the base cannot run 'a'"):
        verdict(Fake("candidate"), Fake("base", broken=("prepare",)))


def test_an_unknown_commit_is_named(capsys):
    assert two_checkouts.main(["no-such-branch"]) == 2
    assert "BASE_REF='no-such-branch' is not a commit" in capsys.readouterr().err


def test_a_dead_worker_is_named(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text("import sys; sys.stdin.readline(); sys.exit(7)")
    monkeypatch.setattr(two_checkouts, "__file__", str(script))
    worker = two_checkouts.Worker("base", tmp_path, tmp_path)
    with pytest.raises(ChildProcessError, match=r"the worker of the base died \(exit code 7\)"):
        worker.ask("cells", words=[])


def test_a_worker_answers_in_lines_whatever_its_libraries_print(tmp_path):
    """The worker of this checkout with a stand-in for the model: cells, cost, time, and an error in words."""
    for name, text in {
        "__init__": "",
        "run": (
            "class Session:\n"
            "    def __init__(self, results): print('noise on stdout')\n"
            "    def timer(self, cell): return lambda: 0.25\n"
            "    def cost(self, cell): return {'nfe': 3, 'flops': 5.0}\n"
            "    def peak_mib(self, cell): raise MemoryError('none left')\n"
        ),
        "sweep": (
            "from types import SimpleNamespace as S\n"
            "def enumerate_cells(words): return S(cells={k: S(label=words[0]) for k in 'xy'})\n"
        ),
    }.items():
        (tmp_path / "harness").mkdir(exist_ok=True)
        (tmp_path / "harness" / f"{name}.py").write_text(text)
    worker = two_checkouts.Worker("candidate", tmp_path, tmp_path)
    try:
        assert worker.ask("cells", words=["steps=3"]) == {"labels": ["steps=3", "steps=3 (2)"]}
        assert worker.ask("prepare", cell=0) == {"nfe": 3, "flops": 5.0}
        assert worker.ask("time", cell=0) == {"seconds": 0.25}
        with pytest.raises(RuntimeError, match="candidate: MemoryError: none left"):
            worker.ask("memory", cell=0)
    finally:
        worker.stop()


@pytest.mark.parametrize("place", speed_gate.LOOPS)
@pytest.mark.parametrize("name", speed_gate.INJECTIONS)
def test_what_is_injected_fits_the_sampling_loop(name, place, tmp_path):
    """The text that is replaced is there once, and what takes its place is Python that still samples."""
    (tmp_path / place).parent.mkdir(parents=True)
    loop = (two_checkouts.ROOT / speed_gate.LOOPS[0]).read_text()
    (tmp_path / place).write_text(loop)
    speed_gate.inject(tmp_path, name)
    changed = (tmp_path / place).read_text()
    assert (changed != loop) == (name != "unchanged")
    compile(changed, "integrate.py", "exec")


def test_replay_takes_the_decision_from_the_recorded_series(tmp_path, capsys):
    import pandas as pd

    rng = np.random.default_rng(0)
    base = 0.1 * np.exp(0.05 * rng.standard_normal(600))
    frame = pd.DataFrame({"base": base})
    for name, factor in (("unchanged", 1.0), ("slower 5 %", 1.05), ("slower 10 %", 1.1)):
        frame[name] = 0.1 * factor * np.exp(0.05 * rng.standard_normal(600))
    frame.to_parquet(tmp_path / "pairs.parquet")
    assert speed_gate.replay(tmp_path / "pairs.parquet", 30, RULE)
    assert "slower 10 %" in capsys.readouterr().out
    frame["unchanged"] *= 1.2
    frame.to_parquet(tmp_path / "pairs.parquet")
    assert not speed_gate.replay(tmp_path / "pairs.parquet", 30, RULE)


def test_the_command_says_what_is_wrong():
    done = subprocess.run(
        [sys.executable, "-m", "harness.compare", "nowhere"], cwd=two_checkouts.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: BASE_REF='nowhere'")
    assert math.isnan(two_checkouts.Finding("a", "cell", "regression").base)
