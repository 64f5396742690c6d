"""Every number on a command line has two ends: nan, inf, a slip of the hand or nothing at all is one line, at once."""

from __future__ import annotations

import copy
import math
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness import bounds
from harness.axes import AXES
from harness.errors import InputError
from harness.sweep.commandline import read
from harness.sweep.enumerate import check_settings, enumerate_cells
from harness.sweep.settle import ask, once
from samplers import registry
from samplers.core import levels

CONF = Path(__file__).resolve().parents[1] / "conf"
TRIED = (math.nan, math.inf, -math.inf, -1, 0, 1e-9, 1e9, 1e300, 10**400)
# Texts that are null where they are not given: no number belongs there.
TEXTS = ("path", "vae", "config", "variant", "revision", "prediction_type", "file", "sha256", "captions")
TEXTS += (
    "default_data",
    "image_column",
    "caption_column",
    "sidecars",
    "prompts",
    "precision",
    "guidance",
    "prior",
    "gguf",
    "column",
    "statistics",
    "latents",
    "tokenizer",
    "med_config",
)
DECLARED = ("default_strength",)  # of the task, said by its class
GROUPS = ("task", "model", "sampler", "schedule", "data")
ENDS = {
    axis.name: (axis.check.low, axis.check.high)
    for axis in AXES
    if isinstance(axis.check, (bounds.Whole, bounds.Number))
}
HERE = {
    "diffusers",
    "sd15",
    "sd21",
    "sd_inpaint",
    "folder",
    "coco",
    "prompts",
    "plan",
    "learned",
    "file",
}  # these need files
HERE |= {path.stem for path in (CONF / "model").glob("*.yaml") if "kind: pipeline" in path.read_text()}


def numbers(section: dict[str, Any]) -> list[str]:
    """Knobs whose value is a number, a list of such, or null where a number may stand."""

    def is_number(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(is_number, value))
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))

    return [knob for knob, value in section.items() if is_number(value) and knob not in (*TEXTS, *DECLARED)]


def choices() -> list[tuple[str, str]]:
    return [(kind, path.stem) for kind in GROUPS for path in sorted((CONF / kind).glob("*.yaml"))]


def section(kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text(encoding="utf-8"))


@cache
def _composed(*words: str) -> dict[str, Any]:
    (values,) = read(words).values
    return values


def outcome(values: dict[str, Any], place: str, given: Any) -> str:
    """What the sweep says to `given` at `place`, "" where it takes it; anything but an InputError is raised."""
    values = copy.deepcopy(values)
    group, _, knob = place.rpartition(".")
    (values[group] if group else values)[knob] = given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            ask(values)
        except InputError as error:
            return str(error)
    return ""


def is_one_line(said: str) -> bool:
    return "\n" not in said and len(said) <= 500


@pytest.mark.parametrize("kind, name", choices())
def test_every_number_of_conf_has_ends_that_are_written_down(kind, name):
    for knob in numbers(section(kind, name)):
        low, high = bounds.KNOBS[kind][knob]
        assert low < high and (math.isfinite(high) or knob == "s_tmax")


@pytest.mark.parametrize("kind, name", [pair for pair in choices() if pair[1] not in HERE])
def test_no_number_of_a_knob_makes_a_traceback_a_warning_or_a_wait(kind, name):
    words = [f"{kind}={name}", "steps=6", "device=cpu"]
    words += [] if kind in ("model", "data", "task") else ["model=gmm"]
    words += ["model.seed=1"] if name == "gmm" else []
    values = _composed(*words)
    for knob in numbers(section(kind, name)):
        low, high = bounds.KNOBS[kind][knob]
        for given in (*TRIED, low, high):
            said = outcome(values, f"{kind}.{knob}", given)
            assert is_one_line(said), said
            if not low <= given <= high:
                assert said.startswith(f"{kind}.{knob}=") and "is not valid: give" in said


@pytest.mark.parametrize("axis", [*ENDS, "guidance.rescale", "guidance.percentile"])
def test_no_number_of_an_axis_makes_a_traceback_a_warning_or_a_wait(axis):
    low, high = ENDS.get(axis, (0, 1))
    for words in ([], ["task=img2img"], ["task=img2img", "keep_steps=true"], ["sampler=ddim", "model=gmm"]):
        values = _composed(*words, "steps=6", "device=cpu")
        for given in (*TRIED, low, high):
            said = outcome(values, axis, given)
            assert is_one_line(said), said
            if not low <= given <= high:
                assert said.startswith(f"{axis}=") and "is not valid: give" in said


@pytest.mark.parametrize("setting", bounds.SETTINGS)
def test_no_number_of_a_setting_makes_a_traceback(setting):
    check = bounds.SETTINGS[setting]
    low, high = check.low, check.high
    settings = read(["steps=6"]).settings
    for given in TRIED:
        if not low <= given <= high:
            with pytest.raises(InputError, match=f"^{setting}=.* is not valid: give"):
                check_settings(settings.with_(**{setting: given}))
    for given in (low, high):
        assert check_settings(settings.with_(**{setting: given}))[setting] == given


@pytest.mark.parametrize("path", sorted((CONF / "metric").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_number_of_a_metric_makes_a_traceback_or_takes_all_memory(path):
    values, own = _composed("device=cpu"), yaml.safe_load(path.read_text(encoding="utf-8"))
    metric = {"name": path.stem, **({"optional": True} if "optional" in own else {})}  # no weights are on this machine
    for knob in numbers(own):
        low = 8 if knob == "size" else 1
        for given in TRIED:
            said = outcome(values, "metrics", [{**metric, knob: given}])
            assert re.match(
                rf"{knob}( of metric {path.stem})?=.* is not valid: give a whole number from {low} to", said
            )
            assert is_one_line(said)
        assert outcome(values, "metrics", [{**metric, knob: low}]) == ""


def test_the_ends_themselves_are_valid():
    values = _composed("model=gmm", "device=cpu")
    for axis in ("steps", "cfg", "seed", "n_images", "batch_size", "reference_count", "timing_batch", "threads"):
        for end in ENDS[axis]:
            assert outcome(values, axis, end) == "", (axis, end)


def test_a_knob_that_is_not_in_the_table_is_finite_all_the_same():
    values = {group: {} for group in bounds.KNOBS}
    bounds.check_knobs({**values, "sampler": {"new": 1e9, "list": [[1, 2.0]], "text": "nan", "on": True}})
    for given in (math.nan, math.inf, [[1, math.nan]], -1e10):
        with pytest.raises(InputError, match=r"^sampler\.new=.* is not valid: give a number"):
            bounds.check_knobs({**values, "sampler": {"new": given}})


def test_a_drawn_mixture_that_no_machine_holds_is_refused():
    with pytest.raises(InputError, match="whose product is at most 10,000,000"):
        enumerate_cells(["model=gmm", "model.seed=1", "model.modes=10000", "model.dimension=10000", "device=cpu"])


def test_a_strength_whose_schedule_would_be_too_long_is_refused():
    words = ["task=img2img", "steps=10", "keep_steps=true", "device=cpu"]
    for strength in ("1e-9", "1e-320", "0.0019"):
        with pytest.raises(InputError, match=r"^strength=.* give a strength of at least 0\.002, fewer steps"):
            enumerate_cells([*words, f"strength={strength}"])
    assert len(enumerate_cells([*words, "strength=0.01"]).cells) == 1


@pytest.mark.parametrize("sampler", ["heun", "restart", "irk", "plms", "dpm_fast", "dpmpp_3s", "ddim", "dpm2_a"])
def test_the_steps_that_so_many_calls_pay_for_are_the_most(sampler):
    """They are found in jumps: none jumps over the answer."""
    for nfe in (9, 40, 123):
        words = [f"sampler={sampler}", f"nfe={nfe}", "model=gmm", "device=cpu"]
        (cell,) = enumerate_cells(words).cells.values()

        def cost(steps: int, cell=cell) -> int:
            from harness.models.load import process
            from samplers import schedules

            knobs = {name: value for name, value in cell.schedule.items() if name != "name"}
            built = schedules.build(cell.schedule["name"], process(cell.model), steps, **knobs)
            return registry.build_plan(cell.sampler, built).nfe

        assert cost(cell.steps) <= nfe < min(cost(cell.steps + more) for more in (1, 2, 3))


def test_very_many_calls_are_answered_without_trying_every_number(monkeypatch):
    tried = []
    build = registry.Sampler.plan
    monkeypatch.setattr(registry.Sampler, "plan", lambda *given: tried.append(1) or build(*given))
    (cell,) = enumerate_cells(["sampler=heun", "nfe=3001", "model=gmm", "device=cpu"]).cells.values()
    assert cell.steps == 1501 or cell.steps == 1500
    assert len(tried) < 30


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize(
    "start, end", [(-1e-4, 0.02), (1e-4, 1.5), (0.02, 1e-4), (math.nan, 0.02), (1e-4, math.inf), (0.0, 0.02)]
)
def test_betas_that_are_no_shares_of_noise_are_said_without_a_warning(schedule, zero_snr, start, end):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="give 0 < beta_start ≤ beta_end ≤ 1"):
            levels.DiscreteVP.trained(schedule, start, end, 1000, zero_snr)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, 0.0])
def test_trained_betas_that_are_no_shares_of_noise_are_said_without_a_warning(wrong, zero_snr):
    betas = np.linspace(1e-4, 0.02, 100)
    betas[50] = wrong
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="every β of the training schedule must be above 0"):
            cumprod = np.cumprod(1 - betas)
            levels.DiscreteVP.from_alphas_cumprod(levels.rescaled_to_zero_snr(cumprod) if zero_snr else cumprod)


def test_an_adaptive_solvers_knobs_are_checked_before_it_runs():
    for words in (["sampler.order=1"], ["sampler.rtol=0", "sampler.atol=0"], ["sampler.h_init=0"]):
        with pytest.raises(InputError):
            enumerate_cells(["sampler=dpm_adaptive", "model=gmm", "device=cpu", *words])


def test_knowing_what_was_asked_shares_the_answers():
    """`once` remembers by value: a wrong number is refused every time, not the first time alone."""
    remembered = once()
    values = copy.deepcopy(_composed("model=gmm", "device=cpu"))
    values["cfg"] = math.inf
    for _ in range(2):
        with pytest.raises(InputError, match=r"^cfg=inf "):
            ask(values, remembered)


@pytest.mark.parametrize("noise", [{"trained_betas": [0.1, 1.5, 0.2]}, {"beta_start": -1}, {"beta_end": 2}])
def test_a_schedulers_configuration_with_such_betas_is_refused_in_one_line(noise):
    from harness.models.training_noise import alphas_cumprod

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"scheduler_config\.json is not valid: .*β"):
            alphas_cumprod(noise)
