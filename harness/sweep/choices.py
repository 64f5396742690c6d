"""Which file of conf/ a choice stands for: its own, or another's where it is `auto`. Knows nothing of Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from harness import axes, knob_paths
from harness.errors import InputError, nearest
from harness.paths import CONF
from harness.specs import DataSpec, ModelSpec, SamplerSpec, ScheduleSpec

OF_A_FILE = ("plan_file", "learned")  # solvers that bring their own levels: schedule=auto stands for those


@cache
def read(kind: str, name: str) -> Mapping[str, Any]:
    """A YAML of conf, by its name alone: no path leads out of there."""
    valid = [path.stem for path in (CONF / kind).glob("*.yaml")]
    if name not in valid:
        raise InputError(f"{kind}={name!r} is unknown; {nearest(name, valid)}")
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text(encoding="utf-8"))


def meant(kind: str, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """A group's section with every knob that counts for it, and its name: `auto` stands for another file."""
    section = values[kind]
    name = None
    if section["name"] == "auto":
        model = ModelSpec(values["model"])
        name = model.default_data if kind == "data" else _auto_schedule(SamplerSpec(values["sampler"]), model)
    return (section, section["name"]) if name is None else (read(kind, name), name)


def learned(sampler: SamplerSpec, model: ModelSpec, fingerprint: str, cfg: float, calls: Any) -> SamplerSpec:
    """The sampler, and where it is a learned one, the plan for this model, guidance scale and number of calls.

    InputError where there is none, which says what there is.
    """
    if sampler["solver"] != "learned" or sampler["file"] is not None:
        return sampler
    from samplers.solvers.learned import chosen

    try:
        return sampler.with_(file=chosen(model.name, fingerprint, cfg, calls))
    except ValueError as error:
        raise InputError(str(error)) from error


def settled(
    sampler: SamplerSpec, schedule: ScheduleSpec, model: ModelSpec, of_few: str | None = None
) -> tuple[SamplerSpec, ScheduleSpec]:
    """Both as the record keeps them: `auto` resolved, files named with the digest of what they hold.

    `of_few` is the schedule that the sampler prefers at the cell's number of calls, None where it is its usual one.
    """
    from samplers import registry, schedules

    try:
        # `few_calls` has had its say: a cell is known by the schedule it led to.
        sampler = SamplerSpec({key: value for key, value in sampler.items() if key != "few_calls"})
        sampler = sampler.with_(**registry.solver(sampler).settle())
        schedule = _schedule(schedule, sampler, model, of_few)
        return sampler, schedule.with_(**schedules.settle(schedule))
    except ValueError as error:
        raise InputError(str(error)) from error


def data(asked: DataSpec, model: ModelSpec) -> DataSpec:
    """The data that are asked for, the model's own world for `auto`; every path in it is found."""
    if asked.name == "auto":
        if model.default_data is None:
            raise InputError("data=auto has no answer for this model: give data=folder data.path=FOLDER_OF_IMAGES")
        asked = DataSpec(_over(read("data", model.default_data), asked))
    return DataSpec(knob_paths.found("data", asked))


def _schedule(asked: ScheduleSpec, sampler: SamplerSpec, model: ModelSpec, of_few: str | None) -> ScheduleSpec:
    if asked.name != "auto":
        return asked
    usual = read("schedule", _auto_schedule(sampler, model))
    if of_few and not model.auto_schedule and set(asked) <= set(fewer := read("schedule", of_few)):
        usual = fewer  # not where a knob was given that only the usual schedule has: schedule.rho=5
    if sampler["solver"] in OF_A_FILE:
        return ScheduleSpec({**_over(usual, asked), "file": sampler["file"], "sha256": sampler["sha256"]})
    return ScheduleSpec(_over(_over(usual, model.auto_schedule), asked))


def _auto_schedule(sampler: SamplerSpec, model: ModelSpec) -> str:
    """The levels of the sampler's own file, the model's customary schedule, or the sampler's."""
    if sampler["solver"] in OF_A_FILE:
        return "file"
    return model.auto_schedule.get("name", sampler.default_schedule)


def _over(usual: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Knobs given beside `auto` still count: schedule.rho=5 means the customary schedule with ρ = 5."""
    return {**usual, **{knob: value for knob, value in given.items() if knob != "name"}}


def of_wrong_kind(values: Mapping[str, Any]) -> InputError | None:
    """What made some function stumble: a knob whose value is of another kind than the one in its file."""
    defaults = {kind: read(kind, values[kind]["name"]) for kind in axes.GROUPS}
    defaults["guidance"] = yaml.safe_load((CONF / "sweep.yaml").read_text(encoding="utf-8"))["guidance"]
    for kind, section in defaults.items():
        if section.get("name") == "auto":
            section, _ = meant(kind, values)
        for knob, given in values[kind].items():
            usual = section.get(knob)
            if usual is None:
                continue
            number = isinstance(usual, (int, float)) and not isinstance(usual, bool)
            wanted = (int, float) if number else type(usual)
            if not isinstance(given, wanted) or isinstance(given, bool) != isinstance(usual, bool):
                said = "a number" if number else "true or false" if isinstance(usual, bool) else f"one like {usual!r}"
                return InputError(f"{kind}.{knob}={given!r} is not valid: give {said}")
    return None
