"""A composed config becomes a `Cell`: every value checked, every `auto` resolved, axes without meaning set aside."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from harness.cell import IMPLEMENTATIONS, PRECISIONS, TIMINGS, Cell, choice, number, whole
from harness.errors import InputError
from harness.guidance import Guidance

CONF = Path(__file__).resolve().parents[1] / "conf"


def ask(values: dict[str, Any]) -> Cell:
    """The cell that `values` (plain dict, see conf/sweep.yaml) asks for. Raises InputError; imports no torch."""
    from harness.data.load import check as check_data
    from harness.data.load import fingerprint as data_fingerprint
    from harness.metrics.load import check as check_metrics
    from harness.models.load import check as check_model
    from harness.models.load import fingerprint as model_fingerprint
    from harness.tasks.load import load as load_task

    task, model, sampler = values["task"], values["model"], values["sampler"]
    check_model(model, task=task["name"])
    schedule = _resolve(values["schedule"], "schedule", sampler["default_schedule"])
    data = _resolve(values["data"], "data", model.get("default_data"))
    guidance = Guidance.parse(_cfg(values, model), values["guidance"])
    guidance.check(bool(model.get("pixel_range", False)))
    steps = whole(values, "steps", 1)
    strength = _strength(values["strength"], task)
    device = _device(values["device"])
    choice(values["precision"], "precision", PRECISIONS)
    _check_precision(values["precision"], device)
    _check_plan(sampler, schedule, steps)
    n_images = whole(values, "n_images", 1)
    check_data(data, n_images, task["name"])
    load_task(task)
    check_metrics(values["metrics"])
    off = not guidance.on
    return Cell(
        task=task,
        model=model,
        model_fingerprint=model_fingerprint(model),
        sampler=sampler,
        schedule=schedule,
        data=data,
        data_fingerprint=data_fingerprint(data),
        implementation=choice(values["implementation"], "implementation", IMPLEMENTATIONS),
        steps=steps,
        cfg=guidance.scale,
        guidance={**values["guidance"], "rescale": 0.0 if off else float(guidance.rescale)},
        strength=strength,
        keep_steps=bool(values["keep_steps"]) and strength is not None,
        negative_prompt="" if off else str(values["negative_prompt"] or ""),
        precision=values["precision"],
        seed=whole(values, "seed", 0),
        n_images=n_images,
        batch_size=whole(values, "batch_size", 1),
        device=device,
        threads=os.cpu_count() or 1 if values["threads"] is None else whole(values, "threads", 1),
        metrics=tuple(values["metrics"]),
        reference_count=whole(values, "reference_count", 2, ": FID needs a covariance"),
        timing=choice(values["timing"], "timing", TIMINGS),
        timing_batch=whole(values, "timing_batch", 1),
    )


def _resolve(group: dict[str, Any], kind: str, default: str | None) -> dict[str, Any]:
    if group["name"] != "auto":
        return group
    if default is None:
        raise InputError(f"{kind}=auto has no answer for this model: give {kind}=folder {kind}.path=FOLDER_OF_IMAGES")
    # Knobs given beside `auto` still count: schedule.rho=5 means the customary schedule with ρ = 5.
    return {**_read(kind, default), **{key: value for key, value in group.items() if key != "name"}}


@cache
def _read(kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())


def _cfg(values: dict[str, Any], model: dict[str, Any]) -> float:
    return number({"cfg": model["default_cfg"] if values["cfg"] is None else values["cfg"]}, "cfg", 0.0)


def _check_plan(sampler: dict[str, Any], schedule: dict[str, Any], steps: int) -> None:
    """Try schedule and sampler on the noise levels of Stable Diffusion: a wrong knob or a pair that cannot be."""
    from samplers import registry, schedules
    from samplers.levels import DiscreteVP

    knobs = {name: value for name, value in schedule.items() if name != "name"}
    try:
        levels = schedules.build(schedule["name"], DiscreteVP.scaled_linear(), steps, **knobs)
        registry.build_plan(sampler, levels)
    except ValueError as error:
        raise InputError(f"{sampler['name']} with {schedule['name']} levels: {error}") from error


def _strength(given: Any, task: dict[str, Any]) -> float | None:
    """None where the task has no use for it, so that the axis does not multiply cells."""
    if given is not None:
        number({"strength": given}, "strength", 0.0, 1.0)
    if not task["uses_strength"]:
        return None
    return float(task["default_strength"] if given is None else given)


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
