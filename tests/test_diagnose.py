"""Where a sampler's error arises: known on models whose solution is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from harness.search import diagnose
from harness.search.learn_images import CLEAN, Source
from harness.store.records import Store
from reports.web import diagnoses as page_diagnoses
from samplers import registry
from samplers.core.integrate import integrate
from samplers.core.levels import NoiseLevels

WORDS = ["model=gmm", "n_images=4", "threads=1"]


def diagnosed(tmp_path, *words, sensitivity=False):
    cells, _, _ = diagnose.read([*WORDS, *words, f"results_dir={tmp_path}"])
    source = Source(cells[0], tmp_path)
    return cells[0], source, diagnose.of_cell(cells[0], source, sensitivity)


def test_eulers_local_error_is_half_the_square_of_its_step_times_the_curvature(tmp_path):
    """z'' in σ/α from three exact states about a level, and no denoiser."""
    cell, source, told = diagnosed(tmp_path, "sampler=euler", "schedule=karras", "schedule.end=sigma_min", "steps=24")
    split, truth = source.bare(cell.seed, 0, 4), source.model.truth
    cond, uncond = source.text(0, 4)
    top = source.process.level(source.process.ratio_max)

    def exact(x, above, below):
        return truth.exact(x, cond, uncond, source.guidance, above, below)

    level = source.process.level
    size = exact(split.start(top), top, CLEAN).square().sum()
    for k in (10, 15, 20):
        one = told["steps"][k]
        r, d, step = one["from"], 1e-3 * one["from"], one["to"] - one["from"]
        above = exact(split.start(top), top, level(r + d))
        here, below, there = (exact(above, level(r + d), level(ratio)) for ratio in (r, r - d, one["to"]))
        states = [(above, r + d), (here, r), (below, r - d), (there, one["to"])]
        one_up, z, one_down, end = (x / level(ratio).alpha for x, ratio in states)
        slope, bend = (one_up - one_down) / (2 * d), (one_up - 2 * z + one_down) / d**2
        half = float((bend.square().sum() / size).sqrt()) * step**2 / 2
        whole = float(((end - z - step * slope).square().sum() / size).sqrt())
        assert one["local"] == pytest.approx(whole, rel=1e-3)
        assert one["euler"] == pytest.approx(half, rel=0.1), "to the order of the differences along the way"
        assert one["local"] == pytest.approx(half, rel=0.3), "to leading order in the step"


def test_a_method_of_higher_order_misses_less_than_euler_would(tmp_path):
    _, _, told = diagnosed(tmp_path, "sampler=heun", "schedule=karras", "schedule.end=sigma_min", "steps=16")
    assert [one["calls"] for one in told["steps"]] == [[2 * k, 2 * k + 2] for k in range(16)]
    local, euler = (sum(one[name] for one in told["steps"]) for name in ("local", "euler"))
    assert local < 0.35 * euler


@pytest.mark.parametrize("words", [("unipc", "steps=6"), ("ddim", "steps=5 schedule=leading"), ("heun", "steps=4")])
def test_what_arrives_of_each_step_adds_up_to_the_error_of_the_run(tmp_path, words):
    sampler, steps = words
    cell, source, told = diagnosed(tmp_path, f"sampler={sampler}", *steps.split())
    levels = source.model.levels(cell.schedule, cell.steps)
    split = source.split(cell.seed, 0, 4)
    ends = integrate(registry.sampler(cell.sampler).plan(levels), split.denoise, split.start(levels[0]))
    wanted = split.clean if levels.sigma[-1] == 0 else split.lowest
    relative = float(((ends - wanted).square().sum() / wanted.square().sum()).sqrt())
    assert told["error"] == pytest.approx(relative, rel=1e-9)
    shares = [told["start"]["share"], *(one["share"] for one in told["steps"])]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    # `leading` begins below the noisiest level with pure noise: that is an error of the start, not of a step.
    assert (told["start"]["arrives"] > 1e-6) == (sampler == "ddim")


def test_a_sensitivity_is_what_the_error_does(tmp_path):
    cell, source, told = diagnosed(tmp_path, "sampler=dpmpp", "schedule=karras", "steps=5", sensitivity=True)
    levels = source.model.levels(cell.schedule, cell.steps)
    plan = registry.sampler(cell.sampler).plan(levels)
    split = source.split(cell.seed, 0, 4)

    def log_error(plan):
        ends = integrate(plan, split.denoise, split.start(plan.start))
        return 0.5 * math.log(float((ends - split.clean).square().sum()))

    h = 1e-4
    for one in told["coefficients"]:
        near = [diagnose._with_weight(plan, one["call"], one["back"], by) for by in (h, -h)]
        slope = (log_error(near[0]) - log_error(near[1])) / (2 * h)
        assert one["log_error"] == pytest.approx(slope, rel=2e-3, abs=1e-4), one
        stage = plan.stages[one["call"]]
        own = stage.x0[one["back"]] if one["back"] < len(stage.x0) else 0
        assert one["weight"] == pytest.approx(own / stage.result.alpha)
    assert {(one["call"], one["back"]) for one in told["coefficients"]} >= {(1, 1), (2, 1), (2, 2), (3, 2)}
    for one in told["levels"]:
        ratios = levels.ratio.copy()
        by = []
        for sign in (1, -1):
            ratios[one["level"]] = levels.ratio[one["level"]] * math.exp(sign * h)
            by.append(log_error(registry.sampler(cell.sampler).plan(NoiseLevels.from_ratios(levels.process, ratios))))
        assert one["log_error"] == pytest.approx((by[0] - by[1]) / (2 * h), rel=2e-3, abs=1e-4), one


def test_the_reference_of_a_model_without_a_known_solution_passes_through_the_plans_levels(tmp_path, monkeypatch):
    """The same model with its solution hidden: a run of many steps finds the same."""
    _, _, exact = diagnosed(tmp_path, "sampler=unipc", "steps=6")
    cells, _, _ = diagnose.read([*WORDS, "sampler=unipc", "steps=6", f"results_dir={tmp_path}"])
    source = Source(cells[0], tmp_path)
    monkeypatch.setattr(type(source.model), "truth", None, raising=False)
    told = diagnose.of_cell(cells[0], source, sensitivity=False)
    assert told["error"] == pytest.approx(exact["error"], rel=1e-2)
    for one, other in zip(told["steps"], exact["steps"], strict=True):
        assert one["local"] == pytest.approx(other["local"], rel=0.05, abs=2e-5)
    levels = source.model.levels(cells[0].schedule, 6)
    near = np.abs(np.log(told["curvature"]["ratios"]) - np.log(levels.ratio[:, None])).min(1)
    assert near.max() < 1e-9


def test_from_the_command_line(tmp_path, capsys):
    drawn = []
    words = [*WORDS, "sampler=ddim,unipc", "steps=4", f"results_dir={tmp_path}", "sensitivity=false"]
    assert diagnose.main(words, lambda told, path: drawn.append((told, path)) or []) == 0
    assert "share" in capsys.readouterr().out
    files = sorted((tmp_path / "diagnoses").glob("*.json"))
    assert len(files) == 2 == len(drawn)
    told = json.loads(files[0].read_text())
    assert told["cell_id"] == files[0].stem and told["coefficients"] is None and len(told["steps"]) == 4
    # The page finds it beside the cells that ran this plan with this model at this scale.
    ran = pd.DataFrame({"plan_id": [told["plan_id"]], "model": ["gmm"], "cfg": [told["cfg"]]})
    (shown,) = page_diagnoses.read(ran, Store(tmp_path))
    assert shown["plan"] == told["plan_id"] and len(shown["steps"]) == 4 and shown["coefficients"] == []
    assert shown["error"] == pytest.approx(told["error"], rel=1e-3)


def test_the_figure_is_drawn(tmp_path):
    from reports import diagnosis as figure

    _, _, told = diagnosed(tmp_path, "sampler=dpmpp", "steps=4", sensitivity=True)
    (tmp_path / "a.json").write_text(json.dumps({**told, "cell": "dpmpp", "model": "gmm"}))
    assert figure.main([str(tmp_path / "a.json")]) == 0 and (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert figure.main([str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler=dpm_adaptive"], "sampler=dpm_adaptive chooses its steps while it runs"),
        (["sampler=euler_a", "steps=5"], "sampler=euler_a draws noise on its way"),
        (["sampler=unipc", "sensitivity=maybe"], "sensitivity=maybe is not valid: give true or false"),
        (["model=embedded", "task=img2img", "sampler=unipc", "steps=5"], "task=img2img is not diagnosed"),
        (["sampler=eulr"], "unknown sampler 'eulr'"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(words, message, capsys):
    assert diagnose.main(["model=gmm", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_random_states_have_what_they_should(tmp_path):
    """A level of pure noise has the start's own state (rectified flow begins there)."""
    cell, source, _ = diagnosed(tmp_path, "sampler=euler", "steps=3")
    split = source.bare(cell.seed, 0, 4)
    found = diagnose.Reference(split, np.array([1.0, 0.5]), torch.zeros(2, 4, 2), torch.zeros(2, 4, 2))
    pure = type(CLEAN)(0.0, 1.0, 1000.0)
    assert torch.equal(found.at(pure)[0], split.start(pure))
