"""A composed config becomes a `Cell`: every value checked, every `auto` resolved, axes without meaning set aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness import axes, knob_paths
from harness.axes import AXIS
from harness.bounds import check_knobs
from harness.cell import Cell
from harness.data import load as data_kinds
from harness.errors import InputError
from harness.metrics import load as metrics
from harness.models.guidance import Guidance
from harness.models.load import kind_of
from harness.specs import DataSpec, GuidanceSpec, ModelSpec, SamplerSpec, ScheduleSpec, TaskSpec
from harness.sweep import choices, way
from harness.sweep.machine import Machine
from harness.tasks.load import load as load_task
from samplers import registry

HERE = Machine()
Once = Callable[..., Any]  # once(function, *arguments): computed at the first call with equal arguments


def once() -> Once:
    """A memory for the cells of one sweep: what hundreds of them ask of one model or one set of data is asked once."""
    known: dict[tuple, Any] = {}

    def remembered(work: Callable[..., Any], *arguments: Any) -> Any:
        key = (work, repr(arguments))  # plain values and frozen ones: the text is the value
        if key not in known:
            known[key] = work(*arguments)
        return known[key]

    return remembered


def ask(
    values: Mapping[str, Any],
    once: Once = lambda work, *arguments: work(*arguments),
    machine: Machine = HERE,
) -> Cell:
    """The cell that `values` (a composed conf/sweep.yaml) asks for, to run on `machine`. Raises InputError."""
    try:
        return _ask(values, once, machine)
    except InputError:
        raise
    except (TypeError, AttributeError, ValueError, OverflowError, KeyError) as error:
        raise choices.of_wrong_kind(values) or error from error


def _ask(values: Mapping[str, Any], once: Once, machine: Machine) -> Cell:
    check_knobs(values)
    task, given = TaskSpec(values["task"]), ModelSpec(knob_paths.found("model", values["model"]))
    kind = kind_of(given)
    model = ModelSpec({knob: value for knob, value in given.items() if value is not None or knob not in kind.later})
    once(kind.check, model, task.name)
    guidance = _guidance(values, model)
    fingerprint = once(kind.fingerprint, model)
    calls = values["steps"] if values["nfe"] is None else values["nfe"]
    asked = choices.learned(SamplerSpec(values["sampler"]), model, fingerprint, guidance.scale, calls)
    of_few = asked.schedule_of_few(calls)
    sampler, schedule = once(choices.settled, asked, ScheduleSpec(values["schedule"]), model, of_few)
    data = choices.data(DataSpec(values["data"]), model)
    how = once(load_task, task)
    strength = _strength(values["strength"], task)
    device = machine.device(values["device"])
    precision = AXIS["precision"].valid(values["precision"] or model.default_precision)
    machine.check_precision(precision, device)
    implementation = AXIS["implementation"].settled(values)
    keep_steps = AXIS["keep_steps"].settled(values) and strength is not None
    made = registry.sampler(sampler)
    kind.check_run(model, guidance, made.adaptive, implementation)
    how.check_run(guidance, implementation)
    walk = way.Walk(how, kind, model, made, schedule, strength, keep_steps, implementation)
    steps, stochastic = once(way.find, walk, values["steps"], values["nfe"])
    n_images = AXIS["n_images"].settled(values)
    once(data_kinds.check, data, n_images, task.name)
    once(kind.check_use, model, data, precision, str(values["negative_prompt"] or ""))
    settled: dict[str, Any] = {
        "task": task,
        "model": model,
        "model_fingerprint": fingerprint,
        "sampler": sampler,
        "schedule": schedule,
        "data": data,
        "data_fingerprint": once(data_kinds.fingerprint, data),
        "implementation": implementation,
        # Set aside where none is added between levels: a churn is independent of any path.
        "noise": AXIS["noise"].settled(values) if stochastic else axes.default("noise"),
        "steps": steps,
        "cfg": guidance.scale,
        "guidance": GuidanceSpec(values["guidance"]).with_(rescale=float(guidance.rescale) if guidance.on else 0.0),
        "classifier_scale": guidance.classifier,
        "classifier_fingerprint": (once(kind.classifier, model) or "") if guidance.classifier else "",
        "strength": strength,
        "keep_steps": keep_steps,
        "negative_prompt": str(values["negative_prompt"] or "") if guidance.on else "",
        "precision": precision,
        "n_images": n_images,
        "device": device,
        "threads": machine.threads(values["threads"], device),
        "metrics": once(metrics.settled, values["metrics"]),
    }
    # All other axes depend on nothing but what was given.
    others = {axis.name: axis.settled(values) for axis in axes.KEPT if axis.name not in settled}
    fitted = {axis.name: others[axis.name] for axis in axes.KEPT if axis.fits and others[axis.name] != axis.default}
    return Cell(**settled, **{**others, **once(kind.check_fitted, model, fitted, precision, device, task.name)})


def _guidance(values: Mapping[str, Any], model: ModelSpec) -> Guidance:
    scale = AXIS["cfg"].valid(model.default_cfg if values["cfg"] is None else values["cfg"])
    guidance = Guidance.parse(scale, values["guidance"], AXIS["classifier_scale"].settled(values))
    guidance.check(model.pixel_range)
    return guidance


def _strength(given: Any, task: TaskSpec) -> float | None:
    """None where the task has no use for it, so that the axis does not multiply cells."""
    if given is not None:
        AXIS["strength"].valid(given)
    if not task.uses_strength:
        return None
    return float(task.default_strength if given is None else given)
