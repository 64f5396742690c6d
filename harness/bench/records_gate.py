"""`python -m harness.bench.records_gate`: does the gate find what went wrong, and leave alone what did not?

Errors are injected into the real pipeline (a coefficient off by 1 %, another guidance scale, a wrong last step, an
overflow, a swapped schedule) while the record still says what was asked; then `reports/check.py` holds the records
against those of an undisturbed run. Beside them runs that may not be flagged: another batch size, other threads and
workers, another order of the cells. A variant that is recorded is not run again: stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from harness.cell import Cell
from harness.errors import interruptible
from harness.executors.base import failed
from harness.measure.session import Session
from harness.models.guidance import Guidance
from harness.paths import ROOT
from harness.store import layout
from harness.store.records import Store
from harness.sweep.enumerate import enumerate_cells
from samplers import registry, schedules
from samplers.core import integrate as loop
from samplers.core.plan import Plan
from samplers.core.stage import Stage

COMMON = (
    *("n_images=64", "batch_size=16", "steps=10", "timing=off", "reference_count=512"),
    *("metrics=[fid,clip_score,discretisation,attributes]", "plots=false"),
)
CELLS = {  # what is swept → words; the first two are the ones that most injections go into
    "dpmpp": ("sampler=dpmpp", "cfg=2"),
    "strong guidance": ("sampler=dpmpp", "cfg=7.5"),
    "unipc": ("sampler=unipc", "cfg=2"),
    "euler": ("sampler=euler", "cfg=2"),
    "stochastic": ("sampler=ddim", "sampler.eta=1.0", "cfg=2", "seed=0,1"),
}
Injection = Callable[[], AbstractContextManager]


# ---------------------------------------------------------------------------------------------------- what goes wrong


@contextmanager
def plans(change: Callable[[Plan], Plan]) -> Iterator[None]:
    """Every sampler's plan goes through `change`; the reference run does not."""
    real = registry.Sampler.plan
    with patch.object(registry.Sampler, "plan", lambda sampler, levels: change(real(sampler, levels))):
        yield


def coefficient(age: int, factor: float) -> Injection:
    """The coefficient of the denoiser's output of `age` calls ago is off in every stage."""

    def off(stage: Stage) -> Stage:
        return replace(stage, x0=tuple(b * factor if j == age else b for j, b in enumerate(stage.x0)))

    return lambda: plans(lambda plan: replace(plan, stages=tuple(map(off, plan.stages))))


def last_step(last: Callable[[Stage], Stage]) -> Injection:
    return lambda: plans(lambda plan: replace(plan, stages=(*plan.stages[:-1], last(plan.stages[-1]))))


def guidance(scale: float) -> Injection:
    real = Guidance.parse
    return lambda: patch.object(Guidance, "parse", lambda _, knobs, *more: real(scale, knobs, *more))


@contextmanager
def swapped_schedule() -> Iterator[None]:
    real = schedules.build
    swap = {"karras": "exponential"}
    with patch.object(
        schedules,
        "build",
        lambda name, process, steps, **knobs: (
            real(swap[name], process, steps) if name in swap else real(name, process, steps, **knobs)
        ),
    ):
        yield


@contextmanager
def denoiser(change: Callable) -> Iterator[None]:
    """`change(denoise)` denoises in the sampling loop."""
    real = loop.integrate
    with patch.object(loop, "integrate", lambda plan, denoise, *rest: real(plan, change(denoise), *rest)):
        yield


def overflowing(denoise: Callable) -> Callable:
    """float16 holds up to 65,504: an activation 30,000 times the output overflows where the output is above 2.2."""

    def broken(x: torch.Tensor, level: object) -> torch.Tensor:
        return (denoise(x, level) * 3e4).half().float() / 3e4

    return broken


def saturating(denoise: Callable) -> Callable:
    """The same, where the kernel saturates instead: values beyond the range stop at its end."""
    return lambda x, level: (denoise(x, level) * 3e4).clamp(-65504, 65504) / 3e4


def calling_twice(denoise: Callable) -> Callable:
    first = []

    def twice(x: torch.Tensor, level: object) -> torch.Tensor:
        if not first:
            first.append(denoise(x, level))
        return denoise(x, level)

    return twice


class Variant(NamedTuple):
    name: str
    cells: tuple[str, ...]  # keys of CELLS it is run on; the others keep the baseline's records
    inject: Injection


WRONG = (
    Variant("newest coefficient off by 1 %", ("dpmpp", "unipc", "euler", "stochastic"), coefficient(0, 1.01)),
    Variant("older coefficient off by 1 %", ("dpmpp", "unipc"), coefficient(1, 1.01)),
    Variant("newest coefficient off by 0.1 %", ("dpmpp",), coefficient(0, 1.001)),
    Variant("CFG 7.5 → 7.0", ("strong guidance",), guidance(7.0)),
    Variant("CFG 2.0 → 1.9", ("dpmpp",), guidance(1.9)),
    Variant("last step not taken", ("dpmpp", "euler"), last_step(lambda s: replace(s, states=(1.0,), x0=()))),
    Variant(
        "last step of another order",
        ("unipc",),
        last_step(lambda s: replace(s, states=(0.0,), x0=(1.5, -0.5))),
    ),
    Variant("overflow in fp16: infinite", ("dpmpp",), lambda: denoiser(overflowing)),
    Variant("overflow in fp16: saturated", ("dpmpp",), lambda: denoiser(saturating)),
    Variant("swapped schedule", ("dpmpp", "unipc"), swapped_schedule),
    Variant("one extra denoiser call", ("dpmpp",), lambda: denoiser(calling_twice)),
)
# What may not be flagged: words for the sweep command, which runs in a process of its own.
HARMLESS = {
    "batch size 16 → 7": ("batch_size=7",),
    "batch size 16 → 64, cells in another order": ("batch_size=64", "REVERSED"),
    "two workers of one thread": ("workers=2", "threads=1"),
}


# ------------------------------------------------------------------------------------------------------- how it is run


def asked(words: Sequence[str], out: Path, threads: int) -> list[Cell]:
    return list(enumerate_cells([*COMMON, f"threads={threads}", f"results_dir={out}", *words]).cells.values())


def inject(session: Session, cells: Sequence[Cell], store: Store, injection: Injection) -> None:
    """Run the cells with something wrong; the records say what was asked."""
    for cell in cells:
        began = time.time()
        with injection():
            try:
                record = session.run(cell, lambda what, images: None)
            except Exception as error:  # as a worker does: a cell may fail in any way
                record = failed(cell, f"{type(error).__name__}: {error}", began)
        store.write(record.cell, record.images)


def judged(baseline: Path, candidate: Path) -> dict:
    """What reports/check.py says, as its JSON."""
    path = candidate / "check.json"
    command = [sys.executable, ROOT / "reports" / "check.py", baseline, candidate, "--json", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2:
        raise SystemExit(f"reports/check.py: {done.stderr.strip()}")
    return json.loads(path.read_text())


def finished(folder: Path) -> bool:
    return (folder / "done").exists()


def swept(words: Sequence[str], folder: Path, work: Path) -> None:
    """All cells by the sweep command itself, in the order of CELLS or reversed."""
    groups = list(CELLS.values())
    if "REVERSED" in words:
        groups = [[word.replace("seed=0,1", "seed=1,0") for word in group] for group in reversed(groups)]
    folder.mkdir(parents=True, exist_ok=True)
    layout.borrow_cache(work, folder)
    given = [word for word in words if word != "REVERSED"]
    own = [word for word in COMMON if word.split("=")[0] not in {word.split("=")[0] for word in given}]
    for group in groups:
        command = [sys.executable, "-m", "harness.sweep", *own, *given, *group, f"results_dir={folder.resolve()}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[2:])}: {done.stdout[-500:]}{done.stderr[-500:]}")


def run(out: Path, threads: int, console: Console) -> list[tuple[str, bool, dict]]:
    """Every variant with whether it should be flagged and what the check said."""
    out.mkdir(parents=True, exist_ok=True)
    baseline, results = out / "baseline", []
    cells = {name: asked(words, out, threads) for name, words in CELLS.items()}
    torch.set_num_threads(threads)
    session = Session(out / "work")
    store = Store(baseline)
    for cell in (cell for group in cells.values() for cell in group):
        if store.recorded().get(cell.cell_id) != "ok":
            record = session.run(cell, lambda what, images: None)
            store.write(record.cell, record.images)
            console.print(f"baseline: {cell.label}", highlight=False)
    for k, variant in enumerate(WRONG):
        folder = out / f"wrong-{k}"
        if not finished(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for table in ("cells", "images"):
                shutil.copytree(baseline / table, folder / table)
            chosen = [cell for name in variant.cells for cell in cells[name]]
            inject(session, chosen, Store(folder), variant.inject)
            (folder / "done").touch()
        results.append((variant.name, True, judged(baseline, folder)))
        console.print(f"injected: {variant.name}: {results[-1][2]['outcome']}", highlight=False)
    for k, (name, words) in enumerate(HARMLESS.items()):
        folder = out / f"harmless-{k}"
        if not finished(folder):
            swept(words, folder, out / "work")
            (folder / "done").touch()
        results.append((name, False, judged(baseline, folder)))
        console.print(f"harmless: {name}: {results[-1][2]['outcome']}", highlight=False)
    return results


def show(results: list[tuple[str, bool, dict]], console: Console) -> bool:
    """The table; whether everything is as it should be."""
    table = Table(header_style="bold")
    for name in ("variant", "outcome", "flagged by work or coverage", "PSNR, dB", "flagged by quality, smallest p"):
        table.add_column(name)
    good = True
    for name, wrong, report in results:
        flagged = [finding for finding in report["findings"] if finding["verdict"] == "regression"]
        counted = [f["check"] for f in flagged if f["tier"] in ("coverage", "deterministic") and f["check"] != "images"]
        images = [f for f in report["findings"] if f["check"] == "images" and f["candidate"] not in (None, "inf")]
        least = min(images, key=lambda finding: finding["candidate"], default=None)
        quality = sorted((f for f in flagged if f["tier"] == "quality"), key=lambda finding: finding["p_adjusted"])
        best = {f["check"]: f for f in reversed(quality)}
        told = ", ".join(f"{check} {f['difference']:+.3g} (p {f['p_adjusted']:.1g})" for check, f in best.items())
        psnr = (
            "" if least is None else f"{least['candidate']:.1f}{' flagged' if least['verdict'] == 'regression' else ''}"
        )
        right = report["exit_code"] == (1 if wrong else 0)
        good &= right
        style = None if right else "bold red"
        table.add_row(name, report["outcome"], ", ".join(dict.fromkeys(counted)), psnr, told, style=style)
    console.print(table)
    found = sum(report["exit_code"] == 1 for _, wrong, report in results if wrong)
    alarms = sum(report["exit_code"] != 0 for _, wrong, report in results if not wrong)
    console.print(f"{found} of {sum(w for _, w, _ in results)} errors found, {alarms} false alarms", highlight=False)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench_check", help="where records are kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all cores)")
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Console(width=None if sys.stdout.isatty() else 170)
    began = time.perf_counter()
    good = show(run(given.out, given.threads, console), console)
    console.print(f"{time.perf_counter() - began:.0f} s", highlight=False)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(interruptible(main))
