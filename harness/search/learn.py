"""A plan learned for a model, a guidance scale and a number of calls: `python -m harness.learn cfg=3 nfe=5,6,8`.

    model=, data=, cfg=, guidance.*, negative_prompt=, precision=, seed=, device=, batch_size=, results_dir=
                     as in a sweep
    nfe=5,6,8        denoiser calls, a plan each
    images=64        images that plans are fitted to
    validation=32    images that say when to stop
    test=64          images of each of the two sets that judge the result
    train_seed=0     which images the plans are fitted to; those of validation and test stay the same
    iterations=10    of the last stage, at most
    starts=3         level sets that are optimised, beside the best hand-made plan
    neighbours=2,4   guidance scales at which the result is looked at too
    workers=1        processes that learn side by side, a number of calls each (threads=1 beside it on few cores)
    out=FOLDER       where the plans and the report are written; null: results_dir/learned

What is done, in order: a teacher of many steps (once for all numbers of calls); a race of everything that is made by
hand; stages fitted to the teacher one by one on the levels of every schedule; Gauss–Newton on the levels of the best,
with weights fitted inside, and on levels and weights together; then from the best of all, on more and more images. Each
step is kept as it ends: the same command goes on from there, and Ctrl-C loses the running step at most. The test images
are looked at once, at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from harness import axes
from harness.atomic import written_whole
from harness.cell import Cell
from harness.errors import InputError, nearest
from harness.executors.local import die_with_parent, end_process, spawned
from harness.measure import cost
from harness.search import learn_rivals as rivals
from harness.search.learn_fit import CLOSEST, Descent, Fitter, Table, distinct, run_on
from harness.search.learn_images import TEACHER, Source, Split, geometric, rms
from harness.search.learn_report import Judged, figures, markdown
from harness.store import layout
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.run import guarded
from samplers import schedules
from samplers.core import plan_json

VERSION = 3  # of the method: what was kept by another is not gone on with
MOST_CALLS = 40
START_IMAGES, LEVEL_IMAGES = 12, 20
LEVEL_ITERATIONS = 2
# Parts of the training images that slopes are taken on, and iterations, before the last stage has all: far from the
# best few images say where to go, and slopes cost as many calls as they have images.
GROWING = ((4, 2), (2, 4))
FEWEST = 16
DETERMINED = 20  # of their numbers for each parameter, so that a few points of a plane are not fitted one by one
PATIENCE = 2  # iterations without a better validation
TRAINED_APART = 1000  # between the seeds of test noise and of noise to learn from
# (images, how many go on by each of two measures) of the race of hand-made plans; the last round has all.
ROUNDS = ((2, 5), (6, 6), (16, 3))
FINALISTS = 2
SHOWN = 8  # images of the sheet

Draw = Callable[[Mapping[str, Any], Path], Sequence[Path]]


@dataclass(frozen=True)
class Asked:
    """The command's own words, whose defaults these are."""

    nfe: tuple[int, ...] = (5, 6, 8)
    images: int = 64
    validation: int = 32
    test: int = 64
    train_seed: int = 0
    iterations: int = 10
    starts: int = 3
    neighbours: tuple[float, ...] = ()
    workers: int = 1
    out: str | None = None

    @classmethod
    def read(cls, words: Mapping[str, str]) -> Asked:
        """InputError in one line for a value that cannot be."""
        made = cls(**{name: _value(name, text) for name, text in words.items()})
        for name, least in (("images", 2), ("validation", 2), ("test", 2), ("train_seed", 0), ("iterations", 0)):
            _whole(name, getattr(made, name), least, 1 << 20)
        _whole("starts", made.starts, 1, 40)
        _whole("workers", made.workers, 1, 256)
        for calls in made.nfe:
            _whole("nfe", calls, 2, MOST_CALLS)
        for scale in made.neighbours:
            axes.AXIS["cfg"].valid(scale)
        return made


def _value(name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(f"[{text.strip('[]')}]" if name in ("nfe", "neighbours") else text)
    except yaml.YAMLError as error:
        raise InputError(f"{name}={text}: this cannot be read; give a number or a list a,b,c") from error
    return tuple(value) if isinstance(value, list) else value


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name}={value!r} is not valid: give a whole number from {least} to {most}")


# Words of a sweep that say what a plan is learned for, and how this command runs; all others have no meaning here.
TAKEN = ("model", "data", "cfg", "guidance", "negative_prompt", "precision", "seed", "device", "batch_size", "threads")
TAKEN += ("results_dir", "debug", *(axis.name for axis in axes.AXES if getattr(axis, "fits", False)))


def read(words: Sequence[str]) -> tuple[Asked, list[Cell], Path]:
    """What is asked, a cell for each guidance scale (or seed, or precision), and the results folder."""
    own: dict[str, str] = {}
    rest: list[str] = []
    valid = [*Asked.__dataclass_fields__, *TAKEN]
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"{word}: give KEY=VALUE words; {nearest(word, valid)}")
        if key in Asked.__dataclass_fields__:
            own[key] = text
        elif key.partition(".")[0] in TAKEN:
            rest.append(word)
        else:
            raise InputError(f"{key} says nothing about what is learned; {nearest(key, valid)}")
    asked = Asked.read(own)
    found = enumerate_cells([*rest, "sampler=unipc", "schedule=karras", "steps=8", "metrics=[]", "n_images=1"])
    return asked, list(found.cells.values()), Path(found.settings.results_dir)


def main(words: Sequence[str], draw: Draw | None = None) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(__doc__)
        return 0

    def work() -> int:
        asked, cells, results = read(words)
        for cell in cells:
            learn(asked, cell, results, draw)
        return 0

    return guarded(work, debug=any(word == "debug=true" for word in words))


# -------------------------------------------------------------------------------------------- steps that are kept


@dataclass
class Ledger:
    """Steps by name with what they found, plain values, in one file that is replaced whole as each ends."""

    path: Path
    steps: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.steps = json.loads(self.path.read_text())

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """What the step found, now or before; the processor's seconds that it took are kept beside it."""
        if name not in self.steps:
            began = time.process_time()
            found = json.loads(json.dumps(work()))  # what is read back later is what goes on now
            self.steps[name] = {"found": found, "seconds": time.process_time() - began}
            with written_whole(self.path) as file:
                file.write(json.dumps(self.steps).encode())
        return self.steps[name]["found"]

    def seconds(self, *prefixes: str) -> float:
        """Of the steps by these names, and of those below them."""
        below = tuple(f"{prefix}/" for prefix in prefixes)
        steps = self.steps.items()
        return sum(step["seconds"] for name, step in steps if name in prefixes or name.startswith(below))


def _key(*what: Any) -> str:
    """Names what decides some steps."""
    return hashlib.sha256(json.dumps([VERSION, *what], sort_keys=True).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------- the command


def learn(asked: Asked, cell: Cell, results: Path, draw: Draw | None = None) -> list[Path]:
    """The plans' files, one a number of calls. Everything on the way goes to `results`."""
    side_by_side = min(asked.workers, len(asked.nfe))
    torch.set_num_threads(side_by_side * cell.cpu_threads)  # the teacher has the cores of those that come after it
    folder = layout.learned(results)
    out = folder if asked.out is None else Path(asked.out).expanduser()
    run = Learning(asked, cell, folder / "steps", layout.cache(results) / "learned")
    name = f"{cell.model['name']}_cfg{cell.cfg:g}"
    run.say(f"{name}: steps kept in {run.steps}")
    if side_by_side > 1:
        _side_by_side(run)
    paths = []
    for calls in asked.nfe:
        path = out / f"{name}_nfe{calls}.json"
        with written_whole(path) as file:
            file.write(run.written(calls).encode())
        paths.append(path)
        run.say(f"nfe={calls}: written {path}")
    told = run.report()
    with written_whole(out / f"{name}.md") as file:
        file.write(markdown(told).encode())
    with written_whole(out / f"{name}.figures.json") as file:
        file.write(json.dumps(told).encode())
    print(markdown(told))
    if draw is not None:
        drawn = [*draw(told, out / name), *run.sheet(out / f"{name}_images.png")]
        run.say(f"written: {', '.join(map(str, drawn))}")
    return paths


def _side_by_side(run: Learning) -> None:
    """The numbers of calls learned in processes of their own, the longest first, as far as the verdict.

    Each keeps its steps in a file of its own, from which the caller goes on: also where a process died half-way.
    """
    assert run.tests, "found once, here: every process reads them"
    torch.set_num_threads(run.cell.cpu_threads)
    waiting = sorted(run.asked.nfe)
    running: dict[int, BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < run.asked.workers:
                calls = waiting.pop()
                told = (run.asked, run.cell, run.steps, run.cache, run.began, calls, os.getpid())
                running[calls] = spawned(_alone, told, run.cell.cpu_threads)
            wait([process.sentinel for process in running.values()])
            for calls, process in [one for one in running.items() if not one[1].is_alive()]:
                del running[calls]
                process.join()
                if process.exitcode:
                    run.say(f"nfe={calls}: its process ended (exit code {process.exitcode}); this one takes it over")
    finally:
        for process in running.values():
            end_process(process, run.steps)


def _alone(asked: Asked, cell: Cell, steps: Path, cache: Path, began: float, calls: int, parent: int) -> None:
    """One number of calls in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what becomes of this one is the parent's to say
    threading.Thread(target=die_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(cell.cpu_threads)
    Learning(asked, cell, steps, cache, began).tested(calls)


class Learning:
    """What is learned for one model, guidance scale and precision."""

    def __init__(self, asked: Asked, cell: Cell, steps: Path, cache: Path, began: float | None = None) -> None:
        """`steps`: the folder that steps are kept in; `cache`: that of what the teacher finds.

        `began`: the monotonic second at which another process of this command began, which has told of the teacher.
        """
        self.asked, self.cell, self.steps, self.cache = asked, cell, steps, cache
        self.source = Source(cell, cache)
        self.process = self.source.process
        self.began = time.monotonic() if began is None else began
        if began is None:
            self.say(f"teacher: {TEACHER}, {asked.images} + {asked.validation} images")
        # Validation comes before training: other ways to learn are stopped, and their rivals raced, by the same images.
        first, seed = 2 * asked.test, cell.seed + TRAINED_APART
        self.validation = self.source.split(seed, first, asked.validation)
        first += asked.validation + asked.train_seed * asked.images
        self.train = self.source.split(seed + asked.train_seed, first, asked.images, keep_way=True)
        self.hand_key = _key(self.validation.said(), cell.cell_id)
        elsewhere = ("nfe", "out", "neighbours", "workers")
        self.own_key = _key({k: v for k, v in asdict(asked).items() if k not in elsewhere}, cell.cell_id)
        teacher = Ledger(steps / f"teacher-{self.hand_key}.json")
        self.off = teacher.once("teacher", lambda: self.source.teacher_error(self.validation))
        if began is None:
            self.say(f"teacher: off by {self.off:.2g} itself")
        self._tests: list[Split] = []
        self._found: dict[int, Table] = {}
        self._ledgers: dict[str, Ledger] = {}

    def ledger(self, calls: int) -> Ledger:
        """Steps of what is learned for a number of calls."""
        return self._kept(f"{self.own_key}-{calls}.json")

    def races(self, calls: int) -> Ledger:
        """Steps of the hand-made side, which depends on the validation images alone."""
        return self._kept(f"race-{self.hand_key}-{calls}.json")

    def _kept(self, name: str) -> Ledger:
        if name not in self._ledgers:
            self._ledgers[name] = Ledger(self.steps / name)
        return self._ledgers[name]

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.0f} s  {text}", flush=True)

    @property
    def tests(self) -> list[Split]:
        """Two sets with prompts and noise of their own; the first is what a sweep with this seed shows."""
        if not self._tests:
            count = self.asked.test
            self._tests = [self.source.split(self.cell.seed + k, k * count, count) for k in (0, 1)]
        return self._tests

    # ------------------------------------------------------------------------------------------- the hand-made side

    def rivals(self, calls: int) -> list[dict[str, Any]]:
        """The finalists of the race: words, plan as text, and errors on the validation images; best first."""
        return self.races(calls).once(f"{calls}", lambda: self._race(calls))

    def _race(self, calls: int) -> list[dict[str, Any]]:
        count = len(self.validation)
        rounds = [(min(images, count), go_on) for images, go_on in ROUNDS] + [(count, FINALISTS)]
        found = rivals.race(self.validation, self.process, calls, rounds, lambda text: self.say(f"nfe={calls} {text}"))
        out = []
        for one, errors in zip(found.rivals, found.errors, strict=True):
            out.append(
                {
                    "said": one.said,
                    "plan": plan_json.dumps(one.plan, one.levels),
                    "ends_clean": one.ends_clean,
                    "validation": errors.tolist(),
                    "geometric": geometric(errors),
                    "rms": rms(errors, self.validation.size),
                }
            )
        return sorted(out, key=lambda one: one["geometric"])

    def best_by(self, measure: str, calls: int) -> dict[str, Any]:
        return min(self.rivals(calls), key=lambda one: one[measure])

    # -------------------------------------------------------------------------------------------------- the learned

    def optimised(self, calls: int) -> Table:
        """The table that validation likes best of all on the way."""
        if calls not in self._found:
            self._found[calls] = self._optimised(calls)
        return self._found[calls]

    def _optimised(self, calls: int) -> Table:
        hand = self.best_by("geometric", calls)
        self.say(f"nfe={calls} best hand-made: {hand['said']}, {hand['geometric']:.4g} (geometric, validation)")
        seen: list[tuple[float, dict]] = []
        fitter = Fitter(self.train.head(LEVEL_IMAGES), self.process, self.source.difference)
        (few, most), *rounds = self._rounds(calls)
        ledger = self.ledger(calls)
        # Levels that are better with fitted weights can be worse with all of them free: each start comes so far.
        for start in self._starts(calls)[: self.asked.starts]:
            prefix = f"{calls}/levels/{start['name']}"
            first = ledger.once(f"{prefix}/0", lambda start=start: self._fitted(fitter, start))
            own = self._iterated(prefix, calls, first, fitter.improve_levels, LEVEL_ITERATIONS, hand)
            seen += [*own, *self._together(f"{calls}/all/{start['name']}", calls, own, few, most, hand)]
        table = Table.of(plan_json.loads(hand["plan"]).plan)
        if table is not None and len(table.logs) == calls and (np.diff(table.logs) < -CLOSEST).all():
            first = ledger.once(f"{calls}/levels/best hand-made/0", lambda: self._ended(table))
            own = [(first["validation"]["geometric"], first)]
            seen += self._together(f"{calls}/all/best hand-made", calls, own, few, most, hand)
        for images, most in rounds:
            seen += self._together(f"{calls}/all/{images}", calls, seen, images, most, hand)
        return Table.from_plain(min(seen, key=lambda one: one[0])[1])

    def _together(
        self,
        prefix: str,
        calls: int,
        seen: Sequence[tuple[float, dict[str, Any]]],
        images: int,
        most: int,
        hand: Mapping[str, Any],
    ) -> list[tuple[float, dict[str, Any]]]:
        """Iterations on levels and weights from the best of `seen`, with slopes on so many training images."""
        first = {**min(seen, key=lambda one: one[0])[1], "damping": 1e-3, "over": False}
        fitter = Fitter(self.train, self.process, self.source.difference, images)
        return self._iterated(prefix, calls, first, fitter.improve_all, most, hand)

    def _rounds(self, calls: int) -> list[tuple[int, int]]:
        """(training images that slopes are taken on, iterations at most) of the last stage."""
        count = len(self.train)
        least = DETERMINED * calls * (calls + 1) / 2 / self.train.clean[0].numel()
        few = [(count // part, most) for part, most in GROWING if count // part >= max(FEWEST, least)]
        return [*few, (count, self.asked.iterations)]

    def _starts(self, calls: int) -> list[dict[str, Any]]:
        """Levels with weights fitted stage by stage, best first by the training images."""
        return self.ledger(calls).once(f"{calls}/starts", lambda: self._tried(calls))

    def _tried(self, calls: int) -> list[dict[str, Any]]:
        fitter = Fitter(self.train.head(START_IMAGES), self.process, self.source.difference)
        found: list[tuple[str, np.ndarray, float]] = []
        for name, knobs in rivals.every_schedule():
            try:
                levels = schedules.build(name, self.process, calls, **knobs)
            except (ValueError, ArithmeticError):
                continue
            ratios, end = levels.ratio[:-1], float(levels.ratio[-1])
            known = rivals.end_is_known(end, self.process)
            if known and levels.steps == calls and ratios[0] <= self.process.ratio_max * (1 + 1e-9):
                found.append((" ".join([name, *knobs.values()]), np.log(ratios), end))
        found = [one for one in found if (np.diff(one[1]) < -CLOSEST).all()]
        kept = [found[k] for k in distinct([logs for _, logs, _ in found])]
        out = []
        with torch.inference_mode():
            for name, logs, end in kept:
                error = geometric(fitter.errors(*fitter.fitted(logs, end=end)))
                if np.isfinite(error):
                    out.append({"name": name, "logs": logs.tolist(), "end": end, "geometric": error})
        out.sort(key=lambda one: one["geometric"])
        self.say(f"nfe={calls} starts: " + ", ".join(f"{one['name']} {one['geometric']:.3g}" for one in out[:4]))
        return out

    @torch.inference_mode()
    def _ended(self, table: Table) -> dict[str, Any]:
        """A plan as it is, but for its last stage."""
        fitter = Fitter(self.train, self.process, self.source.difference)
        answers = fitter.run(table)
        return self._judged(fitter.descent(fitter.with_last(table, answers), answers))

    @torch.inference_mode()
    def _fitted(self, fitter: Fitter, start: Mapping[str, Any]) -> dict[str, Any]:
        return self._judged(fitter.descent(*fitter.fitted(np.array(start["logs"]), end=start["end"])))

    def _iterated(
        self,
        prefix: str,
        calls: int,
        first: dict[str, Any],
        improve: Callable[[Descent], Descent],
        most: int,
        hand: Mapping[str, Any],
    ) -> list[tuple[float, dict[str, Any]]]:
        """Iterations until validation has not liked one for a while: (validation's geometric mean, state) of each."""
        seen = [(first["validation"]["geometric"], first)]

        def step(before: dict[str, Any]) -> dict[str, Any]:
            with torch.inference_mode():
                return self._judged(improve(Descent.from_plain(before)))

        for number in range(1, most + 1):
            before = seen[-1][1]
            # What it began from was found on other images: validation may have liked that by chance.
            best = 1 + int(np.argmin([value for value, _ in seen[1:]])) if number > 1 else 0
            if before["over"] or len(seen) - 1 - best >= PATIENCE:
                break
            state = self.ledger(calls).once(f"{prefix}/{number}", lambda before=before: step(before))
            seen.append((state["validation"]["geometric"], state))
            told = state["validation"]
            ratio = told["geometric"] / hand["geometric"]
            self.say(
                f"nfe={calls} {prefix.partition('/')[2]} {number}: train {state['train']['geometric']:.4g}, validation "
                f"{told['geometric']:.4g} (RMS {told['rms']:.4g}); ratio to hand-made {ratio:.3f}"
            )
        return seen

    def _judged(self, state: Descent) -> dict[str, Any]:
        errors = run_on(self.validation, state.table, self.process)
        told = {"rms": rms(errors, self.validation.size), "geometric": geometric(errors)}
        return {**state.to_plain(), "validation": told}

    # --------------------------------------------------------------------------------------------------- the verdict

    def tested(self, calls: int) -> dict[str, Any]:
        """Errors of the plan and of the hand-made finalists on validation and test sets: the one look at the latter."""
        return self.ledger(calls).once(f"{calls}/test", lambda: self._tested(calls))

    @torch.inference_mode()
    def _tested(self, calls: int) -> dict[str, Any]:
        table, hands = self.optimised(calls), self.rivals(calls)
        out: dict[str, Any] = {"sets": []}
        for split in (self.validation, *self.tests):
            errors = {one["said"]: self._hand(one, split)[0].tolist() for one in hands}
            mine = run_on(split, table, self.process)
            out["sets"].append({**split.said(), "size": split.size.tolist(), "learned": mine.tolist(), "hand": errors})
        return out

    def _hand(self, one: Mapping[str, Any], split: Split) -> tuple[np.ndarray, torch.Tensor]:
        """Errors and ends of a finalist."""
        from samplers.core.integrate import integrate

        plan = plan_json.loads(one["plan"]).plan
        ends = integrate(plan, split.denoise, split.start(plan.start))
        return split.errors(ends, one["ends_clean"]), ends

    def judged(self, calls: int) -> Judged:
        return Judged.of(calls, self.tested(calls), self.best_by("geometric", calls), self.best_by("rms", calls))

    def written(self, calls: int) -> str:
        """The plan's file, which says what it was learned for and how good it is."""
        plan, levels = self.optimised(calls).plan(self.process)
        cell, judged = self.cell, self.judged(calls)
        provenance = {
            "model": cell.model["name"],
            "model_fingerprint": cell.model_fingerprint,
            "cfg": cell.cfg,
            "guidance": cell.guidance.to_plain(),
            "negative_prompt": cell.negative_prompt,
            "precision": cell.precision,
            "nfe": calls,
            "data": cell.data["name"],
            "data_fingerprint": cell.data_fingerprint,
            "teacher": {"method": TEACHER, "error": self.off},
            "images": {"train": self.train.said(), **judged.images()},
            "loss": "mean of log(e^2 + (median e / 2)^2) over the training images",
            "cpu_seconds": {
                "fit": round(self.ledger(calls).seconds(f"{calls}/starts", f"{calls}/levels", f"{calls}/all"), 1),
                "competitors": round(self.races(calls).seconds(f"{calls}"), 1),
            },
            **judged.to_plain(),
            "commit": cost.commit()["git_commit"],
        }
        return plan_json.dumps(plan, levels, provenance)

    def report(self) -> dict[str, Any]:
        """Everything the report says, plain."""
        cell = self.cell
        return {
            "model": cell.model["name"],
            "model_fingerprint": cell.model_fingerprint,
            "cfg": cell.cfg,
            "precision": cell.precision,
            "hardware": cost.hardware(cell.device),
            "teacher": {"method": TEACHER, "error": self.off},
            "images": {"train": self.train.said(), **self.judged(self.asked.nfe[0]).images()},
            "plans": [
                {
                    "nfe": calls,
                    **self.judged(calls).to_plain(),
                    "fit_seconds": self.ledger(calls).seconds(f"{calls}/starts", f"{calls}/levels", f"{calls}/all"),
                    "race_seconds": self.races(calls).seconds(f"{calls}"),
                    "starts_at": float(np.exp(self.optimised(calls).logs[0])),
                }
                for calls in self.asked.nfe
            ],
            "neighbours": [self._elsewhere(cfg, calls) for cfg in self.asked.neighbours for calls in self.asked.nfe],
        }

    def _elsewhere(self, cfg: float, calls: int) -> dict[str, Any]:
        """The same plan and the same hand-made one at another guidance scale, on half of the first test set."""
        return self.ledger(calls).once(f"{calls}/elsewhere/{cfg:g}", lambda: self._at(cfg, calls))

    @torch.inference_mode()
    def _at(self, cfg: float, calls: int) -> dict[str, Any]:
        split = Source(self.cell, self.cache, self.source.model, cfg).split(
            self.cell.seed, 0, self.asked.test // 2 or 1
        )
        mine = run_on(split, self.optimised(calls), self.process)
        hands = {one["said"]: self._hand(one, split)[0] for one in self.rivals(calls)}
        said, hand = min(hands.items(), key=lambda one: geometric(one[1]))
        return {"cfg": cfg, "nfe": calls, "hand": said, **figures(mine, hand, hand, split.size)}

    @torch.inference_mode()
    def sheet(self, path: Path) -> list[Path]:
        """The first test images, a row each: the teacher's, then hand-made and learned of each number of calls."""
        if not self.source.model.makes_images:
            return []
        from PIL import Image

        split = self.tests[0].head(SHOWN)
        rows = [split.clean]
        for calls in self.asked.nfe:
            table = self.optimised(calls)
            fitter = Fitter(split, self.process, 0.0)
            rows += [self._hand(self.best_by("geometric", calls), split)[1], fitter.results(table, fitter.run(table))]
        pixels = [self.source.pictures(row).permute(0, 2, 3, 1).numpy() for row in rows]
        picture = Image.fromarray(np.vstack([np.hstack([*row]) for row in pixels]))
        with written_whole(path) as file:
            picture.save(file, format="PNG")
        return [path]
