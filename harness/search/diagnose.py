"""Where on the way a sampler's error arises, for a model: `python -m harness.diagnose sampler=unipc,ddim steps=8`.

The words are those of a sweep with task=txt2img; each cell is diagnosed on its first n_images (default 16). What draws
noise or chooses its own steps has no plan to be diagnosed. For each cell one file is written,
results_dir/diagnoses/CELL_ID.json, and a figure beside it:

    error            of the whole run: relative RMS distance to the limit of many steps, the metric `discretisation`
    steps            for each step what it misses when all it reads is exact (`local`), what becomes of that at the end
                     of the run (`arrives`; `share` of the final error, which add up to 1), what Euler's method would
                     miss there to leading order (`euler`, (Δσ)²/2·|z''|), and what the coefficients say without a
                     model (samplers/diagnosis.py)
    start            what arrives of a start that is pure noise at a level where the model's own run has signal already
    curvature        |dD/dλ| and |d²D/dλ²| of the denoiser's answers along the way, relative to the clean state
    coefficients     how far the result moves with a weight (`moves`, per unit of weight, at the expense of the newest
                     answer's), and how the log of the error does (`log_error`): its sign says which way is better
    levels           the same for log σ/α of each level, with the coefficients made anew

`sensitivity=false` leaves out the last two, which cost about as many calls as the square of the plan's.
`moves` and errors are relative to the size of the clean states, over all images: √(Σ‖·‖²/Σ‖z*‖²).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.atomic import written_whole
from harness.cell import Cell
from harness.errors import InputError
from harness.models.base import Model
from harness.models.load import load as load_model
from harness.search.learn_images import CLEAN, TEACHER_STEPS, Source, Split
from harness.search.learn_rivals import stepped
from harness.store import layout
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.run import guarded
from samplers import diagnosis, registry
from samplers.conditions import boundaries
from samplers.core import plan_json
from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.schedules.sigma import karras

IMAGES = 16
FINER = 4  # levels of the reference for each of the plan's, at least
SAME = 1e-6  # two log σ/α are one level
VERSION = 1  # of the file
OWN = "sensitivity="

Draw = Callable[[Mapping[str, Any], Path], Sequence[Path]]


def main(words: Sequence[str], draw: Draw | None = None) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(__doc__)
        return 0

    def work() -> int:
        cells, results, sensitivity = read(words)
        models: dict[str, Model] = {}
        for cell in cells:
            torch.set_num_threads(cell.cpu_threads)
            told = {"version": VERSION, "cell_id": cell.cell_id, "cell": cell.label}
            told |= {"model": cell.model["name"], "cfg": cell.cfg}
            told |= of_cell(cell, Source(cell, layout.cache(results), _model(cell, models)), sensitivity)
            path = layout.diagnoses(results) / f"{cell.cell_id}.json"
            with written_whole(path) as file:
                file.write(json.dumps(told).encode())
            print(summary(told))
            drawn = [] if draw is None else draw(told, path.with_suffix(""))
            print(f"written: {', '.join(map(str, [path, *drawn]))}")
        return 0

    return guarded(work, debug=any(word == "debug=true" for word in words))


def read(words: Sequence[str]) -> tuple[list[Cell], Path, bool]:
    """The cells, the results folder, and whether sensitivities are asked for. InputError for what has no plan."""
    own = [word.removeprefix(OWN) for word in words if word.startswith(OWN)]
    if any(value not in ("true", "false") for value in own):
        raise InputError(f"sensitivity={own[-1]} is not valid: give true or false")
    rest = [word for word in words if not word.startswith(OWN)]
    if not any(word.startswith("n_images=") for word in rest):
        rest.append(f"n_images={IMAGES}")
    found = enumerate_cells([*rest, "metrics=[]"])
    for note in found.notes:
        print(f"note: {note}")
    for cell in found.cells.values():
        sampler = registry.sampler(cell.sampler)
        if cell.task.name != "txt2img":
            raise InputError(f"task={cell.task.name} is not diagnosed: give task=txt2img, whose start is pure noise")
        if sampler.adaptive:
            raise InputError(f"sampler={sampler.name} chooses its steps while it runs: it has no plan to diagnose")
        if sampler.declares(cell.steps).stochastic:
            _refuse_noise(sampler, cell)
    return list(found.cells.values()), Path(found.settings.results_dir), "false" not in own[-1:]


def _refuse_noise(sampler: registry.Sampler, cell: Cell) -> None:
    from harness.models.load import kind_of

    levels = kind_of(cell.model).levels(cell.model, cell.schedule, cell.steps)
    if sampler.plan(levels).draws:
        raise InputError(
            f"sampler={sampler.name} draws noise on its way, so no one way is its limit: set its eta, tau or churn to 0"
        )


def _model(cell: Cell, models: dict[str, Model]) -> Model:
    key = json.dumps([cell.model.to_plain(), cell.precision, cell.device, sorted(map(str, cell.fitted.items()))])
    if key not in models:
        models[key] = load_model(cell.model, cell.precision, cell.device, cell.fitted)
    return models[key]


# ------------------------------------------------------------------------------------------------------- the reference


@dataclass(frozen=True)
class Reference:
    """Where the model's own run stands: z = x/α and the answers D at falling σ/α `ratios`, (M, N, …) float32 or 64."""

    split: Split
    ratios: np.ndarray
    z: Tensor
    x0: Tensor

    def at(self, level: Level) -> tuple[Tensor, Tensor]:
        """The state x at a level of the plan, and the answer there; at a clean one both are the limit."""
        if not level.sigma:
            return self.split.clean, self.split.clean
        if not level.alpha:
            start = self.split.start(level)
            return start, self.split.denoise(start, level)
        k = self.index(level)
        return level.alpha * self.z[k], self.x0[k]

    def index(self, level: Level) -> int:
        return int(np.abs(np.log(self.ratios) - np.log(level.ratio)).argmin())

    def curvature(self) -> tuple[Tensor, Tensor]:
        """dD/dλ and d²D/dλ² at each of its levels, by differences."""
        lam = torch.from_numpy(-np.log(self.ratios)).to(self.x0.device)
        (first,) = torch.gradient(self.x0.double(), spacing=(lam,), dim=0)
        (second,) = torch.gradient(first, spacing=(lam,), dim=0)
        return first, second


def ratios_of(levels: NoiseLevels, plan: Plan) -> np.ndarray:
    """Karras levels over the model's range with all levels of the plan among them, and none of its own beside those."""
    every = [level for stage in plan.stages for level in (stage.level, stage.result)]
    asked = np.unique([level.ratio for level in every if level.sigma and level.alpha])[::-1]
    own = karras(levels.process, max(TEACHER_STEPS, FINER * plan.nfe), end="sigma_min").ratio
    logs, wanted = np.log(own), np.log(asked[np.append(True, -np.diff(np.log(asked)) > SAME)])
    gaps = np.minimum(np.append(np.inf, -np.diff(logs)), np.append(-np.diff(logs), np.inf))
    near = np.abs(logs[:, None] - wanted).min(1)
    free = near > gaps / 2
    free[[0, -1]] = near[[0, -1]] > SAME  # both ends stay: the limit is where the whole range leads
    return np.exp(np.sort(np.concatenate([logs[free], wanted]))[::-1])


def reference(source: Source, split: Split, ratios: np.ndarray) -> Reference:
    """The exact solution where the model knows it, else UniPC-3 over these levels; with it the limit is replaced."""
    levels = NoiseLevels.from_ratios(source.process, ratios)
    truth = source.model.truth
    if truth is None:
        found = source.followed(split, levels)
        clean = torch.from_numpy(found["clean"]).to(split.noise.device)
        z, x0 = (torch.from_numpy(found[name]).to(split.noise.device) for name in ("z", "x0"))
        return Reference(replace(split, clean=clean), ratios, z, x0)
    cond, uncond = source.text(split.first, len(split))
    x, states, answers = split.start(levels[0]), [], []
    for above, level in zip([levels[0], *levels], [*levels], strict=False):
        x = truth.exact(x, cond, uncond, source.guidance, above, level)
        states.append(x / level.alpha)
        answers.append(split.denoise(x.to(split.noise.dtype), level).double())
    clean = truth.exact(x, cond, uncond, source.guidance, levels[levels.steps], CLEAN)
    return Reference(replace(split, clean=clean), ratios, torch.stack(states), torch.stack(answers))


# ------------------------------------------------------------------------------------------------------- the diagnosis


@torch.inference_mode()
def of_cell(cell: Cell, source: Source, sensitivity: bool = True) -> dict[str, Any]:
    """Everything the file says of one cell but its name: plain values."""
    levels = source.model.levels(cell.schedule, cell.steps)
    sampler = registry.sampler(cell.sampler)
    plan = sampler.plan(levels)
    found = reference(source, source.bare(cell.seed, 0, cell.n_images), ratios_of(levels, plan))
    run = Run(plan, found)
    plan_id = plan_json.identity(plan_json.dumps(plan, levels))  # by it the page finds the cells that ran this plan
    told: dict[str, Any] = {"plan_id": plan_id, "images": cell.n_images, "nfe": plan.nfe}
    told |= {"error": run.relative(run.error)}
    told |= {"start": run.start(boundaries(levels, plan)), "steps": run.steps(levels), "curvature": run.curvature()}
    told |= {"coefficients": None, "levels": None}
    if sensitivity:
        told |= {"coefficients": run.coefficients(source.difference)}
        if not sampler.own_levels:
            told |= {"levels": run.levels(sampler, levels, source.difference)}
    return told


class Run:
    """A plan beside the reference, image by image."""

    def __init__(self, plan: Plan, found: Reference) -> None:
        self.plan, self.found, self.split = plan, found, found.split
        self.dtype = self.split.noise.dtype
        self.exact = [found.at(stage.level) for stage in plan.stages]
        self.wanted = found.at(plan.stages[-1].result)[0].double()
        self.size = float(self.wanted.square().sum())
        start = self.split.start(plan.start)
        self.states, self.answers = self.onward([start], [])
        self.end = self.states[-1].double()
        self.error = self.end - self.wanted

    def onward(
        self, states: Sequence[Tensor], answers: Sequence[Tensor], plan: Plan | None = None, until: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run on from what is known: states x of the calls so far and the next, answers D; to call `until`."""
        plan = self.plan if plan is None else plan
        states, answers = list(states), list(answers)
        for i in range(len(states) - 1, plan.nfe if until is None else until):
            if len(answers) == i:
                answers.append(self.split.denoise(states[i].to(self.dtype), plan.stages[i].level))
            states.append(stepped(plan.stages[i], states, answers))
        return states, answers

    def from_exact(self, first: int, until: int | None = None) -> Tensor:
        """Where the plan leads, at its end or before call `until`, if all up to call `first` is exact."""
        states, answers = zip(*self.exact[: first + 1], strict=True)
        states, _ = self.onward([x.to(self.dtype) for x in states], [x0.to(self.dtype) for x0 in answers], until=until)
        return states[-1].double()

    def relative(self, off: Tensor) -> float:
        return float(off.square().sum() / self.size) ** 0.5

    def share(self, part: Tensor) -> float:
        """Of the final error's square: what `part`, one of the terms that add up to it, has."""
        return float((part * self.error).sum() / self.error.square().sum())

    def start(self, starts: Sequence[int]) -> dict[str, float]:
        part = self.end - self.from_exact(starts[0])
        return {"arrives": self.relative(part), "share": self.share(part)}

    def steps(self, levels: NoiseLevels) -> list[dict[str, Any]]:
        out = diagnosis.of_plan(levels, self.plan)
        slopes, _ = self.found.curvature()
        ends = [self.from_exact(one["calls"][0]) for one in out] + [self.wanted]
        for one, with_it, without in zip(out, ends[:-1], ends[1:], strict=True):
            first, stop = one["calls"]
            above, below = self.plan.stages[first].level, self.plan.stages[stop - 1].result
            missed = (self.from_exact(first, stop) - self.found.at(below)[0].double()) / below.alpha
            one |= {"local": self.relative(missed), "arrives": self.relative(with_it - without)}
            one |= {"share": self.share(with_it - without), "euler": None}
            if above.alpha:
                slope = slopes[self.found.index(above)]
                one["euler"] = self.relative(slope) * (1 - below.ratio / above.ratio) ** 2 / 2
        return out

    def curvature(self) -> dict[str, list[float]]:
        first, second = self.found.curvature()
        by = {"dD": first, "d2D": second}
        told = {name: [self.relative(row) for row in rows] for name, rows in by.items()}
        return {"ratios": self.found.ratios.tolist(), **told}

    def coefficients(self, h: float) -> list[dict[str, Any]]:
        """For each answer that a stage reads beside the newest, and one older that it does not."""
        out = []
        for i, stage in enumerate(self.plan.stages):
            for back in range(1, min(len(stage.x0), i) + 1):
                changed = _with_weight(self.plan, i, back, h)
                ends = self.onward(self.states[: i + 1], self.answers[: i + 1], changed)[0]
                weight = stage.x0[back] if back < len(stage.x0) else 0.0
                told = {"call": i, "back": back, "weight": weight / stage.result.alpha}
                out.append(told | self._moved((ends[-1].double() - self.end) / h))
        return out

    def levels(self, sampler: registry.Sampler, levels: NoiseLevels, h: float) -> list[dict[str, Any]] | None:
        """For each level but a clean or a pure one, down by h; None where the sampler plans for no such levels."""
        try:
            plans = {k: sampler.plan(_moved(levels, k, h)) for k in range(-1, len(levels)) if _movable(levels, k)}
        except ValueError:
            return None
        ends = {k: self.onward([self.split.start(plan.start)], [], plan)[0][-1].double() for k, plan in plans.items()}
        own = ends.pop(-1)
        by = {k: (end - own) / -h for k, end in ends.items()}
        return [{"level": k, "ratio": float(levels.ratio[k]), **self._moved(slope)} for k, slope in by.items()]

    def _moved(self, slope: Tensor) -> dict[str, float]:
        return {"moves": self.relative(slope), "log_error": self.share(slope)}


def _movable(levels: NoiseLevels, k: int) -> bool:
    """Level k; −1 stands for none."""
    return k < 0 or (levels[k].sigma > 0 and levels[k].alpha > 0 and k < levels.steps)


def _moved(levels: NoiseLevels, k: int, h: float) -> NoiseLevels:
    ratios = levels.ratio.copy()
    if k >= 0:
        ratios[k] *= np.exp(-h)
    return NoiseLevels.from_ratios(levels.process, ratios)


def _with_weight(plan: Plan, i: int, back: int, by: float) -> Plan:
    """The plan with another weight of the answer `back` calls ago in stage i, at the expense of the newest."""
    stage = plan.stages[i]
    x0 = [*stage.x0, *[0.0] * (back + 1 - len(stage.x0))]
    x0[back] += by * stage.result.alpha
    x0[0] -= by * stage.result.alpha
    stages = (*plan.stages[:i], replace(stage, x0=tuple(x0)), *plan.stages[i + 1 :])
    return Plan(plan.start, stages, plan.capabilities)


def summary(told: Mapping[str, Any]) -> str:
    """The steps as text."""
    lines = [f"{told['cell']}: error {told['error']:.4g} over {told['images']} images"]
    lines.append(f"{'calls':>7} {'sigma/alpha':>19} {'local':>9} {'Euler':>9} {'arrives':>9} {'share':>7}")
    if abs(told["start"]["share"]) >= 5e-4:
        lines.append(f"{'start':>47} {told['start']['arrives']:9.2e} {100 * told['start']['share']:6.1f}%")
    for one in told["steps"]:
        first, stop = one["calls"]
        calls = f"{first}" if stop == first + 1 else f"{first}-{stop - 1}"
        way = " to ".join("inf" if one[end] is None else f"{one[end]:.4g}" for end in ("from", "to"))
        euler = f"{'-':>9}" if one["euler"] is None else f"{one['euler']:9.2e}"
        share = f"{100 * one['share']:6.1f}%"
        lines.append(f"{calls:>7} {way:>19} {one['local']:9.2e} {euler} {one['arrives']:9.2e} {share}")
    for name in ("coefficients", "levels"):
        if told[name]:
            best = max(told[name], key=lambda one: abs(one["log_error"]))
            where = ", ".join(f"{key} {best[key]:.3g}" for key in best if key not in ("moves", "log_error"))
            lines.append(f"of the {name} the error feels most: {where}: d log error {best['log_error']:+.3g} a unit")
    return "\n".join(lines)
