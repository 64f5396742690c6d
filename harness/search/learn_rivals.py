"""The best that is made by hand: every sampler on every schedule with their knobs, raced over held-out images.

A plan learned for a model is only as good as what it is compared with. So the hand-made side is searched as well: all
pairs on a few images, then the knobs of the best samplers and schedules, then fewer and fewer on more and more images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.search.learn_images import Split, geometric, rms
from samplers import registry, schedules
from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.stage import Stage

Knobs = Mapping[str, Any]
SAME = 1e-9  # relative: two levels are one

# What is tried of each knob beside its file's value, by solver or schedule; those not named here decide no plan's
# error (digests, noise) or are another's name for one that is.
SAMPLER_KNOBS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "abnorsett": {"order": (1, 2, 3, 4)},
    "deis": {"order": (1, 2, 3), "deis_mode": ("logrho", "rhoab", "tab"), "lower_order_final": (True, False)},
    "dpm2": {"r": (0.33, 0.5, 0.67)},
    "dpm_multistep": {
        "order": (2, 3), "solver_type": ("midpoint", "heun"), "lower_order_final": (True, False), "exact": (True,)
    },
    "dpmpp": {
        "order": (1, 2, 3), "solver_type": ("midpoint", "heun"), "lower_order_final": (True, False), "exact": (True,)
    },
    "dpmpp_single": {"order": (2, 3), "solver_type": ("midpoint", "heun"), "lower_order_final": (True, False)},
    "er_sde": {"order": (1, 2, 3), "s_noise": (0.0,)},
    "exp_rk": {"tableau": ("etdrk2", "res_2s", "exp_ralston2", "res_3s", "etd3rk", "krogstad4")},
    "gradient_estimation": {"gamma": (1.5, 2.0, 2.5)},
    "heun": {"clock": ("sigma", "flow")},
    "ipndm": {"max_order": (1, 2, 3, 4)},
    "ipndm_v": {"max_order": (2, 3, 4), "exact": (True, False)},
    "lms": {"order": (1, 2, 3, 4)},
    "plms": {"warmup": ("repeat", "prk")},
    "rk": {"tableau": ("midpoint", "heun2", "ralston2", "ralston3", "kutta3", "rk4")},
    "sa_solver": {"predictor_order": (1, 2, 3), "corrector_order": (0, 1, 2, 3), "tau": (0.0,)},
    "unipc": {
        "order": (1, 2, 3), "variant": ("bh1", "bh2", "vary_coeff"), "corrector": (True, False),
        "lower_order_final": (True, False),
    },
}  # fmt: skip
SCHEDULE_KNOBS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "ays": {"table": ("sd", "sdxl", "svd")},
    "beta": {"alpha": (0.5, 0.6, 0.8), "beta": (0.5, 0.6, 0.8)},
    "flow_shift": {"shift": (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)},
    "gits": {"coeff": (1.0, 1.05, 1.1, 1.15, 1.2, 1.3)},
    "karras": {"rho": (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 12.0)},
    "leading": {"offset": (0, 1)},
    "polyexponential": {"rho": (0.6, 0.8, 1.0, 1.25, 1.5, 2.0)},
    "vp": {"eps_s": (1e-2, 1e-3, 1e-4)},
}
ENDS = ("zero", "sigma_min")
NOISELESS = ("eta", "tau", "s_noise")  # set to 0, a sampler that draws noise follows the ODE, if it can


@dataclass(frozen=True)
class Rival:
    """A hand-made sampler on a schedule, and the plan that they make of a number of calls."""

    sampler: Knobs
    schedule: Knobs
    plan: Plan
    levels: NoiseLevels

    @property
    def ends_clean(self) -> bool:
        return self.plan.stages[-1].result.sigma == 0

    @property
    def said(self) -> str:
        """As the words of a sweep.

        >>> from samplers.core.levels import DiscreteVP
        >>> made("dpmpp", {"order": 3}, "karras", {"rho": 5.0}, DiscreteVP.scaled_linear(), 5).said
        'sampler=dpmpp sampler.order=3 schedule=karras schedule.rho=5.0'
        """
        words = []
        for group, chosen, usual in (
            ("sampler", self.sampler, registry.load(self.sampler["name"])),
            ("schedule", self.schedule, {}),
        ):
            words.append(f"{group}={chosen['name']}")
            words += [f"{group}.{k}={_word(v)}" for k, v in chosen.items() if k not in NOT_SAID and usual.get(k) != v]
        return " ".join(words)


NOT_SAID = ("name", "solver", "default_schedule")


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def made(sampler: str, knobs: Knobs, schedule: str, more: Knobs, process: Process, calls: int) -> Rival | None:
    """The pair with as many steps as `calls` pay for; None where it has no such plan, or one that draws noise."""
    asked = {**registry.load(sampler), **knobs}
    for steps in range(calls, 0, -1):
        try:
            levels = schedules.build(schedule, process, steps, **more)
            plan = registry.build_plan(asked, levels)
        except (ValueError, ArithmeticError):
            return None
        if plan.nfe <= calls:
            end = 0.0 if plan.stages[-1].result.sigma == 0 else float(levels.ratio[-1])
            known = end_is_known(end, process)
            usable = not plan.draws and known and plan.start.alpha > 0
            return Rival(asked, {"name": schedule, **more}, plan, levels) if usable else None
    return None


def end_is_known(ratio: float, process: Process) -> bool:
    """Whether the teacher says where the ODE leads to at this σ/α: clean, or at the lowest trained level."""
    return ratio == 0 or abs(ratio / process.ratio_min - 1) < 1e-6


def samplers() -> list[tuple[str, Knobs]]:
    """Every sampler that can follow the ODE over given levels, with what makes it do so."""
    found: list[tuple[str, Knobs]] = []
    for name in registry.names():
        sampler = registry.sampler(name)
        if sampler.adaptive or sampler.own_levels:
            continue
        quiet = {knob: 0.0 for knob in NOISELESS if knob in sampler.knobs and sampler.declares(10).stochastic}
        found.append((name, quiet))
    return found


def every_schedule() -> list[tuple[str, Knobs]]:
    """Every schedule with both of its ends."""
    out: list[tuple[str, Knobs]] = []
    for name in schedules.names():
        if name == "file":
            continue
        ends = [{"end": end} for end in ENDS] if _has_end(name) else [{}]
        out += [(name, knobs) for knobs in ends]
    return out


def _has_end(name: str) -> bool:
    import inspect

    return "end" in inspect.signature(schedules.SCHEDULES[name]).parameters


def pairs(process: Process, calls: int) -> list[Rival]:
    """Every sampler on every schedule, at its file's knobs."""
    return _different(
        made(name, knobs, schedule, more, process, calls)
        for (name, knobs), (schedule, more) in itertools.product(samplers(), every_schedule())
    )


def relatives(best: Sequence[Rival], process: Process, calls: int, together: bool) -> list[Rival]:
    """The best with other knobs: of the sampler, of the schedule, and where they are tried `together` of both at once.

    Every one of their samplers is tried on every one of their schedules.
    """
    ways = list({_text(one.sampler): one.sampler for one in best}.values())
    levels = list({_text(one.schedule): one.schedule for one in best}.values())
    tried = []
    for way, level in itertools.product(ways, levels):
        wide = list(_grid(SAMPLER_KNOBS.get(way["solver"], {})))
        tall = list(_grid(SCHEDULE_KNOBS.get(level["name"], {})))
        one_by_one = [*((one, {}) for one in wide), *(({}, one) for one in tall)]
        knobs = itertools.product(wide, tall) if together else one_by_one
        tried += [_with(way, own, level, more, process, calls) for own, more in knobs]
    return _different(tried)


def _with(way: Knobs, knobs: Knobs, level: Knobs, more: Knobs, process: Process, calls: int) -> Rival | None:
    schedule = {name: value for name, value in level.items() if name != "name"}
    return made(way["name"], {**_knobs(way), **knobs}, level["name"], {**schedule, **more}, process, calls)


def _knobs(way: Knobs) -> Knobs:
    return {name: value for name, value in way.items() if name not in NOT_SAID}


def _grid(knobs: Mapping[str, Sequence[Any]]) -> Iterator[Knobs]:
    """Every combination of what is tried, and the file's own values."""
    yield {}
    names = list(knobs)
    for values in itertools.product(*(knobs[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _text(knobs: Knobs) -> str:
    return repr(sorted(knobs.items()))


def _different(rivals: Iterable[Rival | None]) -> list[Rival]:
    """Each arithmetic once."""
    found: dict[Plan, Rival] = {}
    for one in rivals:
        if one is not None:
            found.setdefault(one.plan, one)
    return list(found.values())


# -------------------------------------------------------------------------------------------------------- their errors


@torch.inference_mode()
def errors(rivals: Sequence[Rival], split: Split) -> np.ndarray:
    """Relative error of every image, (rivals, N). Plans that begin alike share the calls of their beginning."""
    out = np.full((len(rivals), len(split)), np.nan)
    waiting = {k: one.plan for k, one in enumerate(rivals)}
    for start in dict.fromkeys(plan.start for plan in waiting.values()):
        members = [k for k, plan in waiting.items() if plan.start == start]
        for k, end in _walked(waiting, members, 0, [split.start(start)], [], split.denoise):
            out[k] = split.errors(end, rivals[k].ends_clean)
    return np.where(np.isfinite(out), out, 1e6)


def _walked(
    plans: Mapping[int, Plan],
    members: Sequence[int],
    call: int,
    states: list[Tensor],
    answers: list[Tensor],
    denoise: Callable[[Tensor, Level], Tensor],
) -> Iterator[tuple[int, Tensor]]:
    """The ends of these plans, which have done the same `call` turns. Newest states and answers stand last."""
    by_level: dict[Level, dict[Stage, list[int]]] = {}
    for k in members:
        if call == plans[k].nfe:
            yield k, states[-1]
        else:
            stage = plans[k].stages[call]
            by_level.setdefault(stage.level, {}).setdefault(stage, []).append(k)
    for level, by_stage in by_level.items():
        known = [*answers, denoise(states[-1], level)]
        for stage, same in by_stage.items():
            new = stepped(stage, states, known)
            yield from _walked(plans, same, call + 1, [*states, new], known, denoise)


def stepped(stage: Stage, states: list[Tensor], answers: list[Tensor]) -> Tensor:
    """The state after a stage, from the states and answers so far, newest last; without noise."""
    new = torch.zeros_like(states[-1])
    for weights, items in ((stage.states, states), (stage.x0, answers)):
        for j, weight in enumerate(weights):
            if weight:
                new = new.add(items[-1 - j], alpha=weight)
    return new


# --------------------------------------------------------------------------------------------------------- the race


@dataclass(frozen=True)
class Standing:
    """Rivals still in the race, best first by geometric mean, with the errors of each on all images so far (k, N)."""

    rivals: list[Rival]
    errors: np.ndarray
    size: np.ndarray

    def best(self, measure: str) -> int:
        return int(np.argmin(self.measured(measure)))

    def measured(self, measure: str) -> np.ndarray:
        if measure == "geometric":
            return np.array([geometric(row) for row in self.errors])
        return np.array([rms(row, self.size) for row in self.errors])

    def kept(self, count: int) -> list[int]:
        """The `count` best by each of the two measures."""
        by = [np.argsort(self.measured(measure), kind="stable")[:count] for measure in ("geometric", "rms")]
        return sorted({int(k) for order in by for k in order})


def race(
    split: Split, process: Process, calls: int, rounds: Sequence[tuple[int, int]], say: Callable[[str], None]
) -> Standing:
    """The hand-made finalists. `rounds` are (images, how many go on by each measure); the last has all images.

    After the first round the knobs of those that go on join them, and after the second those of the leaders together.
    """
    field = pairs(process, calls)
    standing = None
    for number, (images, go_on) in enumerate(rounds):
        some = split.head(images)
        found = errors(field, some)
        standing = Standing(field, found, some.size)
        kept = standing.kept(go_on)
        say(f"{len(field)} hand-made on {images} images: best {standing.measured('geometric').min():.4g} (geometric)")
        standing = Standing([field[k] for k in kept], found[kept], some.size)
        field = standing.rivals
        if number < 2 and number + 1 < len(rounds):
            leaders = field if number == 0 else [field[standing.best(measure)] for measure in ("geometric", "rms")]
            field = _different([*field, *relatives(leaders, process, calls, together=number == 1)])
    assert standing is not None, "a race needs a round"
    return standing
