"""How often the speed gate cries wolf, and what it finds: `python -m harness.bench.speed_gate record|replay|inject`.

`record` times one commit against copies of itself, one untouched and some slowed down on purpose, in turn and in random
order, while another process keeps a core busy; the raw seconds go to a parquet file (committed: results/gate).
`replay` takes the gate's decision 300 times a case on stretches of those series, in their order, so that whatever
drifted on that machine drifts in the replay. `inject` runs the whole gate, as a user would, on copies that call the
denoiser once more, keep 50 MiB more, or are slower.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.atomic import written_whole
from harness.compare import decide
from harness.compare.two_checkouts import ROOT, Limits, Worker, checkout, compare
from harness.errors import InputError, interruptible
from harness.store import layout

RAW = layout.speed_pairs(ROOT / "results")
CALL = "x0 = denoise(state, stage.level)\n"
# What is done to a copy's sampling loop: the text that takes the place of the denoiser call.
SLOWED = """began = __import__("time").perf_counter()
        x0 = denoise(state, stage.level)
        until = __import__("time").perf_counter() * {factor} - began * {share}
        while __import__("time").perf_counter() < until:
            pass
"""
INJECTIONS = {
    "unchanged": CALL,
    "slower 5 %": SLOWED.format(factor=1.05, share=0.05),
    "slower 10 %": SLOWED.format(factor=1.10, share=0.10),
    "one more call": "x0 = denoise(state, stage.level)\n        x0 = denoise(state, stage.level) if i == 0 else x0\n",
    "50 MiB more": "x0 = denoise(state, stage.level)\n        integrate.hoard = torch.ones(50 * 2**18)\n",
}
LOOPS = ("samplers/core/integrate.py", "samplers/integrate.py")  # here, and in older commits
TIMED = ("unchanged", "slower 5 %", "slower 10 %")
NEEDED = {"unchanged": (0.0, 0.01), "slower 5 %": (0.80, 1.0), "slower 10 %": (0.95, 1.0)}  # share of decisions


def inject(root: Path, name: str) -> None:
    path = next(path for path in (root / place for place in LOOPS) if path.exists())
    text = path.read_text(encoding="utf-8")
    if text.count(CALL) != 1:
        raise InputError(f"{path} does not hold {CALL.strip()!r} once: nothing can be injected")
    path.write_text(text.replace(CALL, INJECTIONS[name]), encoding="utf-8")


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Other work on the machine: that many processes that never rest."""
    burn = "while True: sum(k * k for k in range(10_000))"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


def record(rounds: int, cores: int, words: Sequence[str], path: Path) -> None:
    """Rounds of base and every copy, each round in an order of its own."""
    names = ("base", *TIMED)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-")))
        workers = []
        for k, name in enumerate(names):
            root = stack.enter_context(checkout("HEAD", folder / f"copy{k}"))
            inject(root, "unchanged" if name == "base" else name)
            worker = Worker(name, root, folder / "results")
            stack.callback(worker.stop)
            worker.ask("cells", words=[*words, f"results_dir={folder / 'results'}"])
            worker.ask("prepare", cell=0)
            workers.append(worker)
        stack.enter_context(busy(cores))
        order, seconds = random.Random(0), np.zeros((rounds, len(names)))
        began = time.perf_counter()
        for done, row in enumerate(seconds):
            for k in order.sample(range(len(names)), len(names)):
                row[k] = workers[k].ask("time", cell=0)["seconds"]
            if done % 100 == 99:
                print(f"{done + 1} of {rounds} rounds, {time.perf_counter() - began:.0f} s", flush=True)
    frame = pd.DataFrame(seconds, columns=names).astype("float32")
    frame.attrs = {"cores_busy": cores, "cells": list(words)}
    with written_whole(path) as file:
        frame.to_parquet(file)
    print(f"{path}: {rounds} rounds; median seconds {frame.median().round(4).to_dict()}")


def replay(path: Path, decisions: int, rule: decide.Rule) -> bool:
    """The decision on consecutive pairs from random starts of the recorded series (which is closed to a ring)."""
    if not path.exists():
        raise InputError(f"{path} is not there: run `python -m harness.bench.speed_gate record` first")
    frame = pd.read_parquet(path)
    print(f"{len(frame)} rounds, {frame.attrs.get('cores_busy')} other busy processes; {rule}")
    print(f"{'case':<14}{'decisions':>10}{'slower':>9}{'undecided':>11}{'pairs, median':>15}{'needed':>14}")
    good = True
    for name in TIMED:
        both = frame[["base", name]].to_numpy(float)
        starts = np.random.default_rng(0).integers(len(frame), size=decisions)
        outcomes, pairs = [], []
        for start in starts:
            ring = iter(np.roll(both, -int(start), axis=0))
            verdicts, taken = decide.decide(lambda ring=ring: next(ring), rule)
            outcomes.append(verdicts[-1].outcome)
            pairs.append(len(taken))
        share, unsure = outcomes.count(decide.SLOWER) / decisions, outcomes.count(decide.UNDECIDED) / decisions
        low, high = NEEDED[name]
        good &= low <= share <= high
        need = f"<= {high:.0%}" if high < 1 else f">= {low:.0%}"
        print(f"{name:<14}{decisions:>10}{share:>9.1%}{unsure:>11.1%}{np.median(pairs):>15.0f}{need:>14}")
    return good


def whole_gate(words: Sequence[str], cores: int, limits: Limits) -> bool:
    """The gate from its checkout to its verdict, on each injection once."""
    wanted = {"unchanged": None, "one more call": "nfe", "50 MiB more": "memory", "slower 10 %": "time"}
    good = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gate-")))
        stack.enter_context(busy(cores))
        given = [*words, f"results_dir={folder / 'results'}"]
        base_root = stack.enter_context(checkout("HEAD", folder / "base"))
        for k, (name, what) in enumerate(wanted.items()):
            root = stack.enter_context(checkout("HEAD", folder / f"copy{k}"))
            inject(root, name)
            with ExitStack() as both:  # a fresh pair each time, as the gate has it: an old process holds more memory
                sides = [Worker(side, where, folder / "results") for side, where in (("base", base_root), (name, root))]
                for side in sides:
                    both.callback(side.stop)
                found = list(compare(*sides, given, limits))
            regressions = [finding.what for finding in found if finding.outcome == "regression"]
            right = not regressions if what is None else what in regressions
            good &= right
            print(f"{'right' if right else 'WRONG'}: {name}: regressions {regressions or 'none'}", flush=True)
            for finding in found:
                print(f"    {finding.what:<7}{finding.outcome:<13}{finding.note}")
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    limits = Limits.load()
    parser = argparse.ArgumentParser(prog="python -m harness.bench.speed_gate", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "replay", "inject"))
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--decisions", type=int, default=300)
    parser.add_argument("--busy", type=int, default=1, help="other processes that keep a core busy")
    parser.add_argument("--raw", type=Path, default=RAW)
    parser.add_argument("--slower", type=float, help="another size threshold in replay")
    asked = parser.parse_args(arguments)
    try:
        if asked.what == "record":
            record(asked.rounds, asked.busy, limits.cells, asked.raw)
            return 0
        if asked.what == "replay":
            rule = replace(limits.rule, slower=asked.slower) if asked.slower else limits.rule
            return 0 if replay(asked.raw, asked.decisions, rule) else 1
        return 0 if whole_gate(limits.cells, asked.busy, limits) else 1
    except (InputError, ChildProcessError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(interruptible(main))
