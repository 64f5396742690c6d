"""Plans as files: exact, content-addressed, run again as a sampler, and refused in one line when they are not plans."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from samplers import registry, schedules, show
from samplers.core import plan_json
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, Level, RectifiedFlow
from samplers.core.noise import NoiseStreams
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage
from samplers.solvers import plan_file

PROCESS = DiscreteVP.scaled_linear()
PLANNED = [name for name in registry.names() if not registry.is_adaptive(registry.load(name))]
PLANNED = [name for name in PLANNED if not registry.has_own_levels(name)]


def written(folder, sampler, steps=6, schedule="karras", process=PROCESS, **knobs):
    levels = schedules.build(schedule, process, steps)
    plan = registry.build_plan({**registry.load(sampler), **knobs}, levels)
    path = folder / f"{sampler}.json"
    path.write_text(plan_json.dumps(plan, levels))
    return path, plan, levels


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("process", [PROCESS, PROCESS.ve(), RectifiedFlow()], ids=["vp", "ve", "flow"])
def test_every_plan_survives_the_file_bit_for_bit(name, process):
    sampler = registry.load(name)
    try:
        levels = schedules.build(sampler["default_schedule"], process, 7)
        plan = registry.build_plan(sampler, levels)
    except ValueError as error:
        pytest.skip(str(error))
    text = plan_json.dumps(plan, levels)
    saved = plan_json.loads(text)
    assert saved.plan == plan and saved.plan.capabilities == plan.capabilities
    for name in ("alpha", "sigma", "time"):
        assert np.array_equal(getattr(saved, name), getattr(levels, name))
    assert plan_json.dumps(saved.plan, levels) == text
    assert plan_json.same_process(saved.process, plan_json.describe(process))


def test_the_smallest_differences_are_kept():
    level, odd = Level(1.0, 3.0, 999.0), float(np.nextafter(0.1, 1))
    stage = Stage(level, Level(1.0, 5e-324, -0.0), (odd, 1 / 3), (1e308, 2**-1074), 1e-17, (0.1 + 0.2, 1e-300))
    first = Stage(level, level, (1.0,), (0.0,))
    plan = Plan(level, (first, stage), Capabilities(1, 2))
    levels = schedules.build("karras", PROCESS, 2)
    saved = plan_json.loads(plan_json.dumps(plan, levels)).plan
    assert saved == plan and saved.stages[1].states[0].hex() == odd.hex()


def test_what_is_the_same_arithmetic_has_the_same_name():
    levels = schedules.build("karras", PROCESS, 5)
    texts = [plan_json.dumps(registry.build_plan(s, levels), levels) for s in ({"solver": "euler"}, {"solver": "ddim"})]
    assert texts[0] == texts[1]
    other = plan_json.dumps(registry.build_plan({"solver": "dpmpp"}, levels), levels)
    assert plan_json.identity(other) != plan_json.identity(texts[0]) and len(plan_json.identity(other)) == 16


def test_a_file_runs_as_the_sampler_it_came_from(tmp_path):
    path, plan, levels = written(tmp_path, "dpmpp_2m_sde")
    sampler = registry.settled({**registry.load("plan"), "file": str(path)})
    own = schedules.build("file", PROCESS, 1, file=str(path))
    assert np.array_equal(own.ratio, levels.ratio) and np.array_equal(own.time, levels.time)
    again = registry.build_plan(sampler, own)
    assert again == plan and registry.capabilities(sampler, 99) == plan.capabilities
    ends = []
    for each in (plan, again):
        streams = NoiseStreams(1, [0, 1], (4, 8, 8))
        ends.append(integrate(each, lambda x, level: torch.tanh(x), streams.draw(), streams))
    assert torch.equal(*ends)


def test_it_works_out_of_the_box_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = registry.build_plan(registry.load("plan"), schedules.build("file", PROCESS, 3))
    assert plan.same_method(registry.build_plan({"solver": "dpmpp"}, schedules.build("karras", PROCESS, 20)))


def test_the_digest_names_what_is_in_the_file(tmp_path):
    path, plan, levels = written(tmp_path, "euler")
    sampler = registry.settled({**registry.load("plan"), "file": str(path)})
    assert len(sampler["sha256"]) == 64 and registry.build_plan(sampler, levels) == plan
    before = path.stat()
    written(tmp_path, "euler", s_churn=1.0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="has changed: its sha256 is"):
        registry.build_plan(sampler, levels)
    assert registry.settled({**sampler, "sha256": None})["sha256"] != sampler["sha256"]
    assert registry.settled(registry.load("euler")) == registry.load("euler")


def test_other_levels_are_refused(tmp_path):
    path, _, levels = written(tmp_path, "dpmpp")
    sampler = {**registry.load("plan"), "file": str(path)}
    other_training = DiscreteVP.scaled_linear(end=0.013)
    for wrong in (
        schedules.build("karras", PROCESS, 7),
        schedules.build("exponential", PROCESS, 6),
        levels.from_(2),
        schedules.build("file", other_training, 1, file=str(path)),  # the same levels at other times
    ):
        with pytest.raises(ValueError, match=r"made for 6 steps over levels of its own.*schedule=auto"):
            registry.build_plan(sampler, wrong)
    with pytest.raises(ValueError, match="DiscreteVP process, this model's is a RectifiedFlow"):
        schedules.build("file", RectifiedFlow(), 1, file=str(path))


def damaged(change):
    levels = schedules.build("karras", PROCESS, 2)
    values = json.loads(plan_json.dumps(registry.build_plan({"solver": "dpmpp"}, levels), levels))
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"format": "sampler-plan", "version": 1, "sta', "not JSON .* cut short"),
        ("[" * 5000, "not JSON"),
        ("[1, 2]", "no sampler plan"),
        ('{"format": "workflow"}', "no sampler plan"),
        (damaged(lambda v: v.update(version=2)), "version 2 .* reads 1"),
        (damaged(lambda v: v.pop("levels")), "missing .*levels"),
        (damaged(lambda v: v["stages"][0].update(x0=["1.0"])), "wrong kind"),
        (damaged(lambda v: v["stages"][0].update(churn=[1.0])), "pair"),
        (damaged(lambda v: v["stages"][0].update(states=[1.0, 2.0, 3.0])), "before the first denoiser call"),
        (damaged(lambda v: v["levels"]["alpha"].pop()), "levels of at least one step"),
        (damaged(lambda v: v.update(stages=[])), "needs a stage"),
        (damaged(lambda v: v["stages"][0].update(noise=float("nan"))), "every number of a plan is finite"),
    ],
)
def test_damage_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path.name} is not a plan to run: .*{message}") as error:
        plan_file.read(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    for name in (str(tmp_path / "none.json"), str(tmp_path), None, 3):
        with pytest.raises(ValueError, match=r"no plan file .* samplers\.show NAME --json FILE"):
            registry.build_plan({**registry.load("plan"), "file": name}, schedules.build("karras", PROCESS, 2))


def test_show_prints_a_plan_and_writes_it(tmp_path, capsys):
    out = tmp_path / "mine.json"
    words = ["dpmpp", "--steps", "8", "--schedule", "exponential", "--set", "order=3", "exact=true", "--json", str(out)]
    assert show.main(words) == 0
    said = capsys.readouterr().out
    assert "8 denoiser calls" in said and "D[-2]" in said
    (order,) = (float(line.split(":")[1]) for line in said.splitlines() if line.startswith("order by"))
    assert order == pytest.approx(3, abs=0.1)
    levels = schedules.build("exponential", PROCESS, 8)
    assert plan_file.read(str(out)).plan == registry.build_plan({"solver": "dpmpp", "order": 3, "exact": True}, levels)
    assert show.main(["plan", "--set", f"file={out}"]) == 0
    assert "8 steps, 8 denoiser calls" in capsys.readouterr().out
    for wrong in (
        ["dpmp"],
        ["dpmpp", "--set", "order=9"],
        ["dpmpp", "--set", "order"],
        ["dpmpp", "--schedule", "karas"],
    ):
        assert show.main(wrong) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_plan_is_kept_once_beside_the_results(tmp_path):
    from harness.store import plans
    from harness.store.places import Folder

    path, plan, levels = written(tmp_path, "unipc")
    names = {plans.keep(plan, levels, Folder(tmp_path / "results")) for _ in range(2)}
    (kept,) = (tmp_path / "results" / "plans").iterdir()
    assert names == {kept.stem} and kept.read_text() == path.read_text()


@pytest.mark.parametrize("where", ["start", "level", "result", "since", "states", "churn"])
def test_a_number_beyond_every_double_is_refused_wherever_it_stands(where):
    """JSON's 1e999 is read as infinity."""
    values = json.loads((plan_file.ROOT / plan_file.EXAMPLE).read_text())
    holder = values if where == "start" else values["stages"][2]
    holder[where] = ["HUGE", *(holder.get(where) or [0.0, 1.0, 2.0])[1:]]
    with pytest.raises(ValueError, match="every number of a plan is finite"):
        plan_json.loads(json.dumps(values).replace('"HUGE"', "1e999"))
