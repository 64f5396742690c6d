"""What the words of a command line mean: the same cells as ever, lists, knobs beside lists, and what cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from harness.errors import InputError
from harness.sweep import commandline
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.spelling import joined, quoted

ROOT = Path(__file__).resolve().parents[1]
IDS = json.loads((ROOT / "tests" / "fixtures" / "cell_ids.json").read_text())


def cells(*words: str):
    return list(enumerate_cells([*words, "device=cpu"]).cells.values())


def refused(*words: str) -> str:
    with pytest.raises(InputError) as error:
        cells(*words)
    text = str(error.value)
    assert "\n" not in text and len(text) <= 500
    assert not {"antlr", "LexerNoViable", "hydra.cc", "expecting {", "--multirun"} & set(text.split())
    return text


@pytest.mark.parametrize("line", IDS)
def test_a_command_line_asks_for_the_cells_it_always_did(line):
    """Recorded when Hydra's own sweeper enumerated them: the same ids in the same order."""
    words = line.split() if "threads=" in line else [*line.split(), "device=cpu", "threads=1"]
    if "n_images=" not in line and "experiment=" not in line:
        words.append("n_images=256")  # the default of the day
    if "model=g" not in line:
        words.append("model.default_cfg=3.0")  # and the embedded model's
    recorded, found = IDS[line].split(), list(enumerate_cells(words).cells)
    if "glob" in line or "experiment=samplers" in line:  # of samplers that came later there is no record
        found = [cell_id for cell_id in found if cell_id in recorded]
    assert found == recorded


@pytest.mark.parametrize("sampler", ["dpmpp", "unipc"])
def test_auto_is_another_schedule_at_few_calls(sampler):
    def schedules(*words: str) -> list[str]:
        return [cell.schedule.name for cell in cells(f"sampler={sampler}", *words)]

    assert schedules("steps=5,7,8,20") == schedules("nfe=5,7,8,20") == ["exponential"] * 2 + ["karras"] * 2
    assert schedules("steps=5", "schedule.end=sigma_min") == ["exponential"]
    assert schedules("steps=5", "schedule.rho=5") == ["karras"]  # a knob that only the usual one has
    assert schedules("steps=5", "schedule=karras") == ["karras"]
    (own,) = cells(f"sampler={sampler}", "steps=5", "model=gmm")  # a model that names its schedule keeps it whole
    assert dict(own.schedule)["end"] == "sigma_min"


def test_the_groups_are_those_of_conf():
    defaults = yaml.safe_load((ROOT / "conf" / "sweep.yaml").read_text())["defaults"]
    groups = {key for entry in defaults if isinstance(entry, dict) for key in entry if " " not in key}
    assert groups == set(commandline.PARTS)
    for group in commandline.PARTS:  # sections are composed side by side: each must depend on its own file alone
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            text = path.read_text()
            assert "@package" not in text and "defaults" not in yaml.safe_load(text)
            assert yaml.safe_load(text)["name"] == path.stem


def test_an_experiment_may_change_a_group_itself(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    for name in ("task", "model", "sampler", "schedule", "data", "executor", "sweep.yaml"):
        (tmp_path / "conf" / name).symlink_to(ROOT / "conf" / name)
    (tmp_path / "conf" / "experiment").mkdir()
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /schedule: karras\nsampler:\n  order: 3\nsteps: 7\n"
    )
    monkeypatch.setattr(commandline, "CONF", tmp_path / "conf")
    commandline.choices.cache_clear()
    try:
        found = cells("+experiment=own", "sampler=unipc,deis", "schedule.rho=5")
    finally:
        commandline.choices.cache_clear()
    assert [(c.sampler["name"], c.sampler["order"], c.schedule["rho"], c.steps) for c in found] == [
        ("unipc", 3, 5, 7),
        ("deis", 3, 5, 7),
    ]


def test_several_experiments_are_one_grid_after_the_other():
    found = cells("+experiment=precision,cfg", "n_images=8")
    assert [c.cell_id for c in found[:3]] == [c.cell_id for c in cells("+experiment=precision", "n_images=8")]
    assert len(found) == 3 + 6 - 1 and {c.n_images for c in found} == {8}, "one cell is in both"


# ---------------------------------------------------------------------------------------------- a knob beside a list


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["schedule=karras,exponential", "schedule.end=sigma_min"], ["sigma_min"] * 2),
        (["schedule=auto", "schedule.end=sigma_min"], ["sigma_min"]),
        (["sampler=unipc", "schedule.end=zero,sigma_min"], ["zero", "sigma_min"]),
        (["implementation=native,diffusers", "sampler=unipc,deis", "schedule.end=sigma_min"], ["sigma_min"] * 4),
        (["model=gmm", "schedule.end=zero,sigma_min"], ["zero", "sigma_min"]),
    ],
)
def test_a_knob_of_what_auto_stands_for_or_of_every_choice_is_set(words, ends):
    assert [cell.schedule["end"] for cell in cells(*words)] == ends


def test_a_knob_that_some_choices_lack_is_set_where_it_is_and_said():
    asked = enumerate_cells(["sampler=dpmpp,ddim", "schedule.rho=3,5", "device=cpu"])
    assert [(c.sampler["name"], c.schedule.get("rho")) for c in asked.cells.values()] == [
        ("dpmpp", 3),
        ("dpmpp", 5),
        ("ddim", None),
    ]
    assert asked.notes == ["schedule.rho is set where the schedule is karras; leading: no such knob"]
    assert enumerate_cells(["sampler=dpmpp", "schedule.rho=3,5", "device=cpu"]).notes == []


def test_a_section_that_cells_share_is_not_changed_by_one_of_them():
    found = cells("sampler=unipc", "sampler.order=3,1", "guidance.rescale=0.5,0.0", "cfg=3")
    assert [(c.sampler["order"], c.guidance["rescale"]) for c in found] == [(3, 0.5), (3, 0.0), (1, 0.5), (1, 0.0)]


# --------------------------------------------------------------------------------------------------- as people type


@pytest.mark.parametrize(
    "words",
    [
        ["sampler=euler,", "dpmpp"],
        ["sampler=euler", ",dpmpp"],
        ["sampler=euler, dpmpp"],
        ["sampler=choice(euler, dpmpp)"],
        ["-m", "sampler=euler,dpmpp"],
    ],
)
def test_a_blank_after_a_comma_is_understood(words):
    assert [cell.sampler["name"] for cell in cells(*words)] == ["euler", "dpmpp"]


def test_words_are_joined_only_where_a_list_goes_on():
    assert joined(["metrics=[fid,", "kid]", "steps=5"]) == ["metrics=[fid,kid]", "steps=5"]
    assert joined(["steps=5,", "sampler=euler", "-m"]) == ["steps=5,", "sampler=euler", "-m"]
    assert joined([",a", "b"]) == [",a", "b"]


def test_metrics_are_a_set():
    alone = cells("metrics=fid")[0]
    assert alone.metrics == ("fid",) and alone.cell_id == cells("metrics=[fid]")[0].cell_id
    words = ("metrics=[fid,clip_score]", "metrics=clip_score,fid", "metrics=[clip_score,fid]")
    several = [cells(word) for word in words]
    assert len({cell.cell_id for found in several for cell in found}) == 1
    assert [c.metrics for c in cells("metrics=[fid],[kid,fid]")] == [("fid",), ("fid", "kid")]
    assert cells("metrics={name: kid}")[0].metrics == ({"name": "kid"},)
    everything = yaml.safe_load((ROOT / "conf" / "sweep.yaml").read_text())["metrics"]
    assert cells(f"metrics=[{','.join(reversed(everything))}]")[0].metrics == tuple(everything) == cells()[0].metrics
    assert "metrics=None" in refused("metrics=null") and "named twice" in refused("metrics=[fid,fid]")


@pytest.mark.parametrize(
    "text",
    ["~/a", "/a/my pictures", "/a (1)/x", "/a=3/b", "/données/猫", "don't", "a\\b~", "it's (so) \\", "50% & #1!"],
)
def test_a_text_needs_no_second_quotes(text):
    assert cells(f"negative_prompt={text}", "cfg=2")[0].negative_prompt == text.rstrip()


def test_a_list_of_such_texts_sweeps():
    found = cells("negative_prompt=~a, b(1)", "cfg=2")
    assert [cell.negative_prompt for cell in found] == ["~a", "b(1)"]
    assert quoted("steps=range(1,") is None and quoted("a=[~") is None and quoted("a=,~") is None


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my prompts.txt").write_text("a red square\n")
    assert enumerate_cells(["results_dir=~/out"]).settings["results_dir"] == str(tmp_path / "out")
    assert "no such" not in refused("data=folder", "data.path=~/not there") and tmp_path.name in refused(
        "data=folder", "data.path=~/not there"
    )


# --------------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["steps=glob(*)"], "glob chooses among the names of"),
        (["sampler=glob(foo*)"], "gives no value"),
        (["steps=range(10,5)"], "steps=range(10,5) gives no value"),
        (["steps=interval(0,1)"], "range(start,stop,step)"),
        (["sampler.ordr=3"], "did you mean 'sampler.order'"),
        (["sampler=unipc,euler", "sampler.ordr=3"], "did you mean 'sampler.order'"),
        (["data.pth=x"], "did you mean 'data.path' (of data=coco, data=folder)"),
        (["data.path=x"], "data=coco, data=folder have it"),
        (["sampler=ddim", "schedule.rho=5"], "schedule leading has no knob 'schedule.rho'; schedule=karras"),
        (["model=gmm", "model.dimensoin=3"], "did you mean 'model.dimension'"),
        (["guidance=3"], "guidance.rescale="),
        (["guidance.rescal=3"], "did you mean 'rescale'"),
        (["steps.x=3"], "steps is one value"),
        (["sampler.name=heun"], "write sampler=NAME"),
        (["sampler=[euler,heun]"], "write sampler=euler,heun without brackets"),
        (["sampler@x=euler"], "write sampler=VALUE"),
        (["~sampler"], "nothing can be deleted"),
        (["results_dir="], "results_dir='' is not valid"),
        (["results_dir=null"], "results_dir=None is not valid"),
        (["workers=1,2"], "takes one value"),
        (["force=yes"], "give true or false"),
        (["task=img2img", "keep_steps=no"], "give true or false"),
        (["dpmpp"], "did you mean sampler=dpmpp"),
        (["smoke"], "did you mean +experiment=smoke"),
        (["=3"], "is not KEY=VALUE"),
        (["steps=5,", "sampler=euler"], "steps=5,: this cannot be read"),
        (["steps=range(1,"], "cannot be read"),
        (["seed=${nothing}"], "nothing"),
        (["hydra.mode=RUN"], "hydra.mode is not taken"),
        (["--jobs=4"], "--jobs is not taken"),
        (["guidance.rescale=abc", "cfg=3"], "guidance.rescale='abc' is not valid: give a number"),
        (["guidance.percentile=null"], "guidance.percentile=None is not valid"),
        (["schedule.rho=[1]"], "schedule.rho=[1] is not valid: give a number"),
        (["schedule=karras", "schedule.rho=abc"], "schedule.rho='abc' is not valid: give a number"),
        (["model=gmm", "model.default_cfg=[1]"], "cfg=[1] is not valid: give a number"),
        (["task=img2img", "task.default_strength=abc"], "task.default_strength='abc' is not valid: give a number"),
        (["n_images=inf"], "n_images=inf is not valid"),
        (["seed=nan"], "seed=nan is not valid"),
        (["retries=1e400"], "retries=inf is not valid"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words, said):
    assert said in refused(*words)


def test_a_device_is_a_name():
    with pytest.raises(InputError, match=r"device=\{\} is not valid; valid: auto, cpu"):
        enumerate_cells(["device={}"])


def test_help_and_the_like_are_answered_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["harness.sweep", "--cfg", "job", "steps=7"])
    assert commandline.answer(["--cfg", "job", "steps=7"]) and "steps: 7" in capsys.readouterr().out
    assert not commandline.answer(["steps=7", "-m"])
    with pytest.raises(InputError, match="is not taken"):
        commandline.answer(["--help", "--config-dir=/tmp"])


# ------------------------------------------------------------------------------------------------- cores and threads


def test_the_cores_that_are_allowed_are_the_default(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    (found,) = cells()
    assert found.threads == 1 == found.columns()["threads"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert cells()[0].threads == 6 and cells("workers=2")[0].threads == 3


def test_the_machines_cores_are_no_part_of_a_cell_on_a_gpu(monkeypatch):
    from harness.sweep import machine

    monkeypatch.setattr(machine, "_device", lambda given: "cuda")
    found = []
    for cores in (2, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)), raising=False)
        (cell,) = enumerate_cells(["device=auto"]).cells.values()
        found.append(cell.cell_id)
        assert cell.cpu_threads == cores == cell.columns()["threads"]
        assert type(cell).from_canonical(cell.canonical()) == cell
    assert found[0] == found[1] != next(iter(enumerate_cells(["threads=2"]).cells))
