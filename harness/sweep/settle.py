"""A composed config becomes a `Cell`: every value checked, every `auto` resolved, axes without meaning set aside."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from harness import axes, knob_paths
from harness.axes import AXIS
from harness.bounds import MOST_STEPS, check_knobs
from harness.cell import Cell, allowed_cores
from harness.errors import InputError, nearest
from harness.models.guidance import Guidance
from harness.paths import CONF

if TYPE_CHECKING:
    from harness.tasks.base import Task
    from samplers.core.levels import NoiseLevels
    from samplers.core.plan import Plan

ENDS = 2  # steps of a schedule that only gives an adaptive solver its two ends: the second call is its lowest level
TRAINED = 1500  # timesteps, at least, that models are trained at: 1,000 of nearly all


Once = Callable[..., Any]  # once(function, *arguments): computed at the first call with equal arguments


def once() -> Once:
    """A memory for the cells of one sweep: what hundreds of them ask of one model or one set of data is asked once."""
    known: dict[tuple, Any] = {}

    def remembered(work: Callable[..., Any], *arguments: Any) -> Any:
        key = (work, repr(arguments))  # plain values: the text is the value
        if key not in known:
            known[key] = work(*arguments)
        return known[key]

    return remembered


def ask(values: dict[str, Any], once: Once = lambda work, *arguments: work(*arguments)) -> Cell:
    """The cell that `values` (plain dict, see conf/sweep.yaml) asks for. Raises InputError; imports no torch."""
    try:
        return _ask(values, once)
    except InputError:
        raise
    except (TypeError, AttributeError, ValueError, OverflowError, KeyError) as error:
        raise _of_wrong_kind(values) or error from error


def _of_wrong_kind(values: dict[str, Any]) -> InputError | None:
    """What made some function stumble: a knob whose value is of another kind than the one in its file."""
    defaults = {kind: _read(kind, values[kind]["name"]) for kind in axes.GROUPS}
    defaults["guidance"] = yaml.safe_load((CONF / "sweep.yaml").read_text(encoding="utf-8"))["guidance"]
    for kind, section in defaults.items():
        if section.get("name") == "auto":
            section, _ = meant(kind, values)
        for knob, given in values[kind].items():
            usual = section.get(knob)
            if usual is None:
                continue
            number_ = isinstance(usual, (int, float)) and not isinstance(usual, bool)
            wanted = (int, float) if number_ else type(usual)
            if not isinstance(given, wanted) or isinstance(given, bool) != isinstance(usual, bool):
                said = "a number" if number_ else "true or false" if isinstance(usual, bool) else f"one like {usual!r}"
                return InputError(f"{kind}.{knob}={given!r} is not valid: give {said}")
    return None


def _ask(values: dict[str, Any], once: Once) -> Cell:
    from harness.data.load import check as check_data
    from harness.data.load import fingerprint as data_fingerprint
    from harness.models.load import check as check_model
    from harness.models.load import check_fitted, check_run, check_use
    from harness.models.load import fingerprint as model_fingerprint
    from harness.tasks.load import load as load_task
    from samplers import registry

    check_knobs(values)
    task, model = values["task"], knob_paths.found("model", values["model"])
    once(check_model, model, task["name"])
    sampler, schedule = _settled(values["sampler"], values["schedule"], model)
    data = knob_paths.found("data", _resolve(values["data"], "data", model.get("default_data")))
    guidance = Guidance.parse(_cfg(values, model), values["guidance"])
    guidance.check(bool(model.get("pixel_range", False)))
    strength = _strength(values["strength"], task)
    if not isinstance(values["device"], str):
        raise InputError(f"device={values['device']!r} is not valid; valid: auto, cpu, cuda, cuda:N, mps")
    device = _device(values["device"])
    precision = AXIS["precision"].valid(values["precision"] or model.get("default_precision", "fp32"))
    _check_precision(precision, device)
    implementation = AXIS["implementation"].settled(values)
    keep_steps = AXIS["keep_steps"].settled(values) and strength is not None
    check_run(model, guidance, registry.is_adaptive(sampler), implementation)
    asked = _Asked(task, load_task(task), model, sampler, schedule, strength, keep_steps)
    steps, stochastic = asked.steps(values)
    _check_implementation(implementation, sampler, task["name"], asked.levels(steps))
    n_images = AXIS["n_images"].settled(values)
    once(check_data, data, n_images, task["name"])
    once(check_use, model, data, precision, str(values["negative_prompt"] or ""))
    metrics = once(_metrics, values["metrics"])
    off = not guidance.on
    settled: dict[str, Any] = {
        "task": task,
        "model": model,
        "model_fingerprint": once(model_fingerprint, model),
        "sampler": sampler,
        "schedule": schedule,
        "data": data,
        "data_fingerprint": once(data_fingerprint, data),
        "implementation": implementation,
        "noise": _noise(values, stochastic),
        "steps": steps,
        "cfg": guidance.scale,
        "guidance": {**values["guidance"], "rescale": 0.0 if off else float(guidance.rescale)},
        "strength": strength,
        "keep_steps": keep_steps,
        "negative_prompt": "" if off else str(values["negative_prompt"] or ""),
        "precision": precision,
        "n_images": n_images,
        "device": device,
        "threads": _threads(values, device),
        "metrics": metrics,
    }
    # All other axes depend on nothing but what was given.
    others = {axis.name: axis.settled(values) for axis in axes.KEPT if axis.name not in settled}
    fitted = {axis.name: others[axis.name] for axis in axes.KEPT if axis.fits and others[axis.name] != axis.default}
    return Cell(**settled, **{**others, **once(check_fitted, model, fitted, precision, device)})


def meant(kind: str, values: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A group's section with every knob that counts for it, and its name: `auto` stands for another file."""
    section = values[kind]
    name = _auto(kind, values["model"], values["sampler"]) if section["name"] == "auto" else None
    return (section, section["name"]) if name is None else (_read(kind, name), name)


def _auto(kind: str, model: dict[str, Any], sampler: dict[str, Any]) -> str | None:
    """The file that `kind`=auto stands for: the sampler's own, the model's customary one or the sampler's."""
    if kind == "data":
        return model.get("default_data")
    if sampler["solver"] == "plan_file":
        return "file"
    return (model.get("auto_schedule") or {}).get("name", sampler["default_schedule"])


def _settled(sampler: dict[str, Any], group: dict[str, Any], model: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Sampler and schedule as the record keeps them: `auto` resolved, files named with the digest of what they hold."""
    from samplers import registry, schedules

    try:
        sampler = registry.settled(sampler)
        return sampler, schedules.settled(_schedule(group, model, sampler))
    except ValueError as error:
        raise InputError(str(error)) from error


def _schedule(group: dict[str, Any], model: dict[str, Any], sampler: dict[str, Any]) -> dict[str, Any]:
    """`auto`: the levels of the sampler's own file, the model's customary schedule, or the sampler's."""
    name = _auto("schedule", model, sampler)
    if group["name"] == "auto" and sampler["solver"] == "plan_file":
        return {**_resolve(group, "schedule", name), "file": sampler["file"], "sha256": sampler["sha256"]}
    if group["name"] == "auto":
        own = {knob: value for knob, value in (model.get("auto_schedule") or {}).items() if knob != "name"}
        return _resolve({**own, **group}, "schedule", name)
    return group


def _resolve(group: dict[str, Any], kind: str, default: str | None) -> dict[str, Any]:
    if group["name"] != "auto":
        return group
    if default is None:
        raise InputError(f"{kind}=auto has no answer for this model: give {kind}=folder {kind}.path=FOLDER_OF_IMAGES")
    # Knobs given beside `auto` still count: schedule.rho=5 means the customary schedule with ρ = 5.
    return {**_read(kind, default), **{key: value for key, value in group.items() if key != "name"}}


@cache
def _read(kind: str, name: str) -> dict[str, Any]:
    """A YAML of conf, by its name alone: no path leads out of there."""
    valid = [path.stem for path in (CONF / kind).glob("*.yaml")]
    if name not in valid:
        raise InputError(f"{kind}={name!r} is unknown; {nearest(name, valid)}")
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())


def _cfg(values: dict[str, Any], model: dict[str, Any]) -> float:
    return AXIS["cfg"].valid(model["default_cfg"] if values["cfg"] is None else values["cfg"])


@dataclass(frozen=True)
class _Asked:
    """What decides the noise levels of a cell, tried here on the model's own process before a model is loaded."""

    task: dict[str, Any]
    how: Task
    model: dict[str, Any]
    sampler: dict[str, Any]
    schedule: dict[str, Any]
    strength: float | None
    keep_steps: bool

    def steps(self, values: dict[str, Any]) -> tuple[int, bool]:
        """The steps of the cell and whether noise is added between levels. InputError for a pair that cannot be."""
        from samplers import registry

        if registry.is_adaptive(self.sampler):
            return self._adaptive(values)
        if self.schedule["name"] == "file":
            steps = self._of_file()
        elif values["nfe"] is not None:
            steps = self._affordable(AXIS["nfe"].settled(values))
        else:
            steps = AXIS["steps"].settled(values)
        plan = self._plan(steps)
        return steps, plan is not None and any(stage.noise for stage in plan.stages)

    def _adaptive(self, values: dict[str, Any]) -> tuple[int, bool]:
        """The solver chooses its steps itself. `steps` says where a strength enters, and nothing without one."""
        from samplers import registry

        if self.task["name"] == "inpaint":
            raise InputError(f"sampler={self.sampler['name']} chooses its own steps and cannot blend: not with inpaint")
        steps = AXIS["steps"].settled(values) if self.strength is not None else ENDS
        self.levels(steps)
        try:
            return steps, registry.capabilities(self.sampler, steps).stochastic
        except ValueError as error:
            raise self._cannot(error) from error

    def _of_file(self) -> int:
        """The steps of a file are its own; a strength takes its share of them."""
        try:
            return self._schedule(1).steps
        except ValueError as error:
            raise self._cannot(error) from error

    def _affordable(self, nfe: int) -> int:
        if self.strength == 0:  # nothing runs, whatever the steps
            return nfe
        share = 1.0 if self.strength is None or self.keep_steps else self.strength
        run = min(nfe, MOST_STEPS)
        while run >= 1:
            most = min((run + 1) / share, MOST_STEPS + 1)
            steps = math.ceil(most - 1e-9) - 1  # the most of which a strength runs so many
            plan = self._plan(steps, may_fail=run > 1)
            if plan is not None and plan.nfe <= nfe:
                return steps
            run -= _too_many(run, nfe, plan)
        raise InputError(f"nfe={nfe} does not pay for one step of sampler={self.sampler['name']}: give more")

    def levels(self, steps: int) -> NoiseLevels | None:
        """Those that run; None where nothing does."""
        try:
            with _strict():
                return self.how.levels(self._schedule, steps, self.strength, self.keep_steps)[0]
        except InputError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise self._cannot(error) from error

    def _schedule(self, steps: int) -> NoiseLevels:
        from harness.models.load import levels

        return levels(self.model, self.schedule, steps)

    def _plan(self, steps: int, may_fail: bool = False) -> Plan | None:
        from samplers import registry

        try:
            levels = self.levels(steps)
            with _strict():
                return None if levels is None else registry.build_plan(self.sampler, levels)
        except (ValueError, ArithmeticError) as error:
            if may_fail:
                return None
            raise error if isinstance(error, InputError) else self._cannot(error) from error

    def _cannot(self, error: Exception) -> InputError:
        if isinstance(error, ArithmeticError):
            error = f"their arithmetic fails ({error}): give values nearer to the defaults of conf"
        return InputError(f"{self.sampler['name']} with {self.schedule['name']} levels: {error}")


def _strict() -> Any:
    """What overflows or has no value is an error where it happens: no warning on the terminal, no NaN later."""
    import numpy as np

    return np.errstate(over="raise", divide="raise", invalid="raise")


def _too_many(run: int, nfe: int, plan: Plan | None) -> int:
    """By how many fewer steps to go on, so that no answer is jumped over, and yet it is not long in coming."""
    if plan is None:  # no schedule has more levels than its model was trained at: in tenths to where that may end
        return max(1, (run - TRAINED) // 10)
    return max(1, (plan.nfe - nfe) // (2 * math.ceil(plan.nfe / run)))  # a step costs at most twice the average


def _check_implementation(implementation: str, sampler: dict[str, Any], task: str, levels: NoiseLevels | None) -> None:
    if implementation != "native":
        from samplers.peers import load as peers

        try:
            peers.check(implementation, sampler, task, levels)
        except ValueError as error:
            raise InputError(str(error)) from error


def _noise(values: dict[str, Any], stochastic: bool) -> str:
    """Set aside where none is added between levels: a churn is independent of any path."""
    given = AXIS["noise"].settled(values)
    return given if stochastic else axes.default("noise")


def _strength(given: Any, task: dict[str, Any]) -> float | None:
    """None where the task has no use for it, so that the axis does not multiply cells."""
    if given is not None:
        AXIS["strength"].valid(given)
    if not task["uses_strength"]:
        return None
    return float(task["default_strength"] if given is None else given)


def _threads(values: dict[str, Any], device: str) -> int | None:
    """By default all cores allowed on the CPU, whose rounding and times depend on them; a GPU's images do not."""
    if values["threads"] is not None:
        return AXIS["threads"].settled(values)
    return allowed_cores() if device == "cpu" else None


def _metrics(given: Any) -> tuple[Any, ...]:
    """A set, so in one order whatever was written; a name alone is a set of one."""
    from harness.metrics.load import DEFAULT, check

    asked = [given] if isinstance(given, (str, dict)) else given
    if not isinstance(asked, list):
        raise InputError(f"metrics={given!r} is not valid: give names, as in metrics=[fid,clip_score], or [] for none")
    check(asked)
    known = {name: place for place, name in enumerate(DEFAULT)}  # then exact and law

    def place(metric: str | dict[str, Any]) -> tuple[int, str]:
        name = metric if isinstance(metric, str) else metric["name"]
        return known.get(name, len(known)), name

    return tuple(sorted(asked, key=place))


@cache
def _device(given: str) -> str:
    """`auto` resolved. torch is imported only where the machine shows a GPU, or one is asked for."""
    if given == "cpu":
        return "cpu"
    shows_gpu = os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd") or os.uname().sysname == "Darwin"
    if given == "auto" and not shows_gpu:
        return "cpu"
    import torch

    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number_ = str(given).partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "mps" and torch.backends.mps.is_available())
    if kind not in ("cuda", "mps") or (number_ and not number_.isdigit()):
        raise InputError(f"device={given!r} is not valid; valid: auto, cpu, cuda, cuda:N, mps")
    if int(number_ or 0) >= count:
        raise InputError(f"device={given!r} is not on this machine (it has {count}); use device=cpu or device=auto")
    return str(given)


@cache
def _check_precision(precision: str, device: str) -> None:
    if device.startswith("cuda") and precision == "bf16":
        import torch

        if torch.cuda.get_device_capability(device)[0] < 8:
            raise InputError(f"precision=bf16 is beyond {torch.cuda.get_device_name(device)}; use fp32 or fp16")
    if device == "mps" and precision == "bf16":
        raise InputError("precision=bf16 is not supported on mps; use fp32 or fp16")
