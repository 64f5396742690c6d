"""Plans learned for a model: fitted, compared with the best that is made by hand, kept with what they are for."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.search import learn, learn_rivals
from harness.search.learn_fit import Descent, Fitter, Table, run_on, theoretical
from harness.search.learn_images import Source, Split, Trajectory, geometric, rms
from harness.search.learn_report import figures
from harness.sweep.enumerate import enumerate_cells
from samplers import registry, schedules
from samplers.core import plan_json
from samplers.core.integrate import integrate
from samplers.core.levels import DiscreteVP, RectifiedFlow
from samplers.solvers import learned, plan_file

PROCESS = DiscreteVP.scaled_linear()
WORDS = ["model=gmm", "threads=1", "images=24", "validation=16", "test=16", "starts=1", "iterations=4"]


@pytest.fixture
def few_rivals(monkeypatch):
    """A race among a handful: what is left out of it only makes the hand-made side weaker, and the test faster."""
    monkeypatch.setattr(learn_rivals, "samplers", lambda: [("dpmpp", {}), ("ipndm", {}), ("ddim", {})])
    some = [("time_quadratic", {}), ("karras", {"end": "zero"}), ("exponential", {"end": "sigma_min"})]
    monkeypatch.setattr(learn_rivals, "every_schedule", lambda: some)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn")
    _, (cell,), _ = learn.read(["model=gmm", f"results_dir={folder}"])
    return Source(cell, folder)


@pytest.fixture(scope="module")
def split(source):
    return source.split(1000, 0, 12, keep_way=True)


# --------------------------------------------------------------------------------------------------------- the images


def test_limits_of_a_known_solution_are_exact_and_kept(source, split):
    level = source.process.level(source.process.ratio_max)
    cond, uncond = source.text(0, 12)
    end = source.process.level(source.process.ratio_min)
    exact = source.model.exact(split.start(level), cond, uncond, source.guidance, level, end)
    assert torch.allclose(split.lowest, exact, atol=1e-12)
    before = source.model.calls
    again = source.split(1000, 0, 12, keep_way=True)
    assert torch.equal(again.clean, split.clean) and source.model.calls == before  # read, not computed


def test_the_trajectory_is_cubic_between_its_levels():
    """z(λ) = u³ with u = log σ/α has x0 = z − dz/du = u³ − 3u²."""
    ratios = np.geomspace(9.0, 0.1, 7)
    u = torch.from_numpy(np.log(ratios))[:, None]
    way = Trajectory(ratios, u**3, u**3 - 3 * u**2)
    for ratio in (8.9, 1.0, 0.3, 0.1):
        assert way.at(ratio).item() == pytest.approx(np.log(ratio) ** 3, abs=1e-12)


def test_splits_share_no_prompt_and_no_noise(tmp_path, few_rivals):
    asked, (cell,), _ = learn.read([*WORDS, f"results_dir={tmp_path}"])
    run = learn.Learning(asked, cell, tmp_path / "steps", tmp_path / "cache")
    splits = [run.train, run.validation, *run.tests]
    prompts = [range(one.first, one.first + len(one)) for one in splits]
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 24 + 16 + 2 * 16
    rows = torch.cat([one.noise for one in splits])
    assert len(torch.unique(rows, dim=0)) == len(rows)
    assert run.tests[0].said() == {"seed": 0, "first": 0, "images": 16}, "the first images of a sweep"


def test_too_few_prompts_are_one_line(source, monkeypatch):
    monkeypatch.setattr(type(source.data), "__len__", lambda self: 10)
    with pytest.raises(ValueError, match=r"12 prompts are needed .* the data has 10: give fewer images="):
        source.split(0, 0, 12)


# ------------------------------------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("process", [PROCESS, PROCESS.ve(), RectifiedFlow()], ids=["vp", "ve", "flow"])
def test_a_table_is_a_plan_that_follows_constants(process):
    logs = np.log(np.geomspace(min(process.ratio_max, 20.0), 0.05, 5))
    table = Table(logs, theoretical(logs, process)).changed(2, 0, 0.3).changed(3, 1, -0.2)
    plan, levels = table.plan(process)
    assert plan_json.constants_missed(plan) < 1e-14 and plan.nfe == levels.steps == 5
    moved = table.moved(logs - 0.1, process).moved(logs, process)
    assert np.allclose(moved.weights, table.weights)


def test_theoretical_weights_are_those_of_the_named_method(split, source):
    levels = schedules.build("karras", source.process, 5)
    table = Table(np.log(levels.ratio[:-1]), theoretical(np.log(levels.ratio[:-1]), source.process))
    assert table.plan(source.process)[0].same_method(registry.build_plan("dpmpp", levels))
    ends = integrate(registry.build_plan("dpmpp", levels), split.denoise, split.start(levels[0]))
    assert np.allclose(run_on(split, table, source.process), split.errors(ends), rtol=1e-9)
    changed = table.changed(2, 0, 0.1).changed(3, 1, -0.1)
    plan, _ = changed.plan(source.process)
    ends = integrate(plan, split.denoise, split.start(plan.start))
    assert np.allclose(run_on(split, changed, source.process), split.errors(ends), rtol=1e-9), "what is learned is run"


@pytest.mark.parametrize(
    ("name", "knobs", "schedule", "end"),
    [
        ("dpmpp", {}, "karras", "zero"), ("ipndm", {"max_order": 3}, "karras", "sigma_min"),
        ("unipc", {"order": 3}, "exponential", "sigma_min"), ("deis", {}, "time_quadratic", "sigma_min"),
    ],
)  # fmt: skip
def test_a_hand_made_plan_is_a_table_with_its_own_end(split, source, name, knobs, schedule, end):
    levels = schedules.build(schedule, source.process, 5, end=end)
    plan = registry.build_plan({**registry.load(name), **knobs}, levels)
    table = Table.of(plan)
    assert (
        table is not None
        and (table.end == 0) == (end == "zero")
        and Table.from_plain(table.to_plain()).end == table.end
    )
    errors = split.errors(integrate(plan, split.denoise, split.start(levels[0])), clean=end == "zero")
    assert np.allclose(run_on(split, table, source.process), errors, rtol=1e-6)
    assert (
        table.plan(source.process)[0].same_method(plan)
        and plan_json.constants_missed(table.plan(source.process)[0]) < 1e-12
    )
    state = Descent(table)
    for _ in range(2):
        state = Fitter(split, source.process, source.difference).improve_all(state)
    assert state.table.end == table.end and state.train["geometric"] < 0.7 * geometric(errors)
    ends = integrate(
        state.table.plan(source.process)[0], split.denoise, split.start(state.table.plan(source.process)[0].start)
    )
    assert np.allclose(split.errors(ends, clean=not table.end), run_on(split, state.table, source.process), rtol=1e-6)


def test_what_is_no_table_of_one_call_a_level_is_none(source):
    levels = schedules.build("karras", source.process, 3)
    assert Table.of(registry.build_plan("euler_a", levels)) is None, "it draws noise"
    assert Table.of(registry.build_plan("heun", schedules.build("karras", source.process, 3, end="sigma_min"))) is None


def test_a_prefix_that_is_known_is_not_run_again(split, source):
    fitter = Fitter(split, source.process, source.difference)
    logs = np.log(schedules.build("exponential", source.process, 5, end="sigma_min").ratio[:5])
    table, answers = fitter.fitted(logs)
    moved = logs.copy()
    moved[3] -= 0.1
    before = source.model.calls
    near, short = fitter.fitted(moved, table, 3, answers)
    assert source.model.calls - before == 2, "calls 3 and 4 of 5"
    whole, all_of_it = fitter.fitted(moved)
    assert torch.allclose(short, all_of_it) and np.allclose(near.weights, whole.weights)


def test_iterations_descend_on_the_images_they_are_fitted_to(split, source):
    fitter = Fitter(split, source.process, source.difference)
    levels = schedules.build("time_quadratic", source.process, 4)
    table, answers = fitter.fitted(np.log(levels.ratio[:4]))
    reached = [geometric(fitter.errors(table, answers))]
    state = Descent(table)
    for improve in (fitter.improve_levels, fitter.improve_all, fitter.improve_all):
        state = improve(state)
        reached.append(state.train["geometric"])
        assert (np.diff(state.table.logs) < 0).all()
        assert state.table.logs[0] <= np.log(source.process.ratio_max) + 1e-12
    assert reached[-1] < 0.7 * reached[0], reached


def test_slopes_on_few_images_are_steps_for_all(split, source):
    levels = schedules.build("time_quadratic", source.process, 4)
    whole = Fitter(split, source.process, source.difference)
    first = Descent(whole.fitted(np.log(levels.ratio[:4]))[0])
    few = Fitter(split, source.process, source.difference, few=6)
    near = few.improve_all(first)
    assert near.train["geometric"] == pytest.approx(geometric(run_on(split, near.table, source.process)))
    assert near.train["geometric"] < geometric(run_on(split, first.table, source.process))
    every = Fitter(split, source.process, source.difference, few=12).improve_all(first)
    assert np.array_equal(every.table.weights, whole.improve_all(first).table.weights)
    assert not np.allclose(every.table.weights, near.table.weights)


def test_the_last_stage_takes_more_and_more_images():
    def rounds(images, numbers=1024):
        nothing = torch.zeros(images, numbers)
        train = Split(0, 0, nothing, lambda part: None, 1, nothing, nothing)
        return learn.Learning._rounds(SimpleNamespace(train=train, asked=learn.Asked(iterations=7)), 8)

    assert rounds(64) == [(16, 2), (32, 4), (64, 7)] and rounds(24) == [(24, 7)], "16 images say enough to begin with"
    assert rounds(64, 2) == [(64, 7)], "16 points of a plane do not determine 36 numbers"


# ----------------------------------------------------------------------------------------------------- the other side


def test_shared_beginnings_change_no_end(split, source):
    asked = [
        ("unipc", {}, "karras", {}), ("dpmpp", {}, "karras", {}), ("heun", {}, "karras", {}),
        ("ddim", {}, "leading", {}),
        ("dpmpp", {"order": 3}, "karras", {"rho": 3.0}), ("dpmpp_2s", {}, "exponential", {"end": "sigma_min"}),
    ]  # fmt: skip
    field = [learn_rivals.made(*one, source.process, 6) for one in asked]
    before = source.model.calls
    found = learn_rivals.errors(field, split)
    calls = source.model.calls - before
    assert calls == sum(one.plan.nfe for one in field) - 3, "three begin on the same level"
    for one, errors in zip(field, found, strict=True):
        ends = integrate(one.plan, split.denoise, split.start(one.plan.start))
        assert np.allclose(errors, split.errors(ends, one.ends_clean), rtol=1e-9), one.said


def test_the_race_has_every_sampler_that_follows_the_ode_and_tries_knobs():
    field = learn_rivals.pairs(PROCESS, 6)
    assert len(field) > 500 and len({one.plan for one in field}) == len(field)
    assert all(one.plan.nfe <= 6 and not one.plan.draws for one in field)
    named = {one.sampler["name"] for one in field}
    assert {"unipc", "dpmpp_3m", "ipndm", "deis", "heun", "dpmpp_2s", "abnorsett", "lms", "sa_solver"} <= named
    assert not named & {"plan", "learned", "dpm_adaptive", "ddpm", "lcm"}
    best = [learn_rivals.made("unipc", {}, "karras", {}, PROCESS, 6)]
    apart, together = (learn_rivals.relatives(best, PROCESS, 6, both) for both in (False, True))
    said = {one.said for one in apart}
    assert {"sampler=unipc schedule=karras schedule.rho=3.0", "sampler=unipc sampler.order=3 schedule=karras"} & said
    assert len(together) > 3 * len(apart) > 30


def test_the_race_keeps_the_best_by_both_measures(split, source, few_rivals):
    said: list[str] = []
    standing = learn_rivals.race(split, source.process, 5, ((4, 3), (8, 3), (12, 2)), said.append)
    assert len(said) == 3 and standing.errors.shape == (len(standing.rivals), 12)
    field = [*learn_rivals.pairs(source.process, 5)]
    everything = learn_rivals.errors(field, split)
    best = min(geometric(row) for row in everything)
    assert standing.measured("geometric").min() <= best * (1 + 1e-9), (
        "none of the first pairs is better than the winner"
    )


# ------------------------------------------------------------------------------------------------------- the command


def test_a_plan_for_gmm_from_the_command_line(tmp_path, few_rivals, capsys):
    out = tmp_path / "out"
    drawn: list[dict] = []

    def draw(told, path):
        drawn.append(told)
        return []

    assert learn.main([*WORDS, "nfe=5", f"results_dir={tmp_path}", f"out={out}", "neighbours=2"], draw) == 0
    said = capsys.readouterr().out
    assert "ratio to hand-made" in said and "| 5 | second test |" in said
    saved = plan_file.read(str(out / "gmm_cfg1_nfe5.json"))
    told = saved.learned
    assert (told["model"], told["cfg"], told["nfe"]) == ("gmm", 1.0, 5) and len(told["model_fingerprint"]) == 16
    assert told["images"]["train"] == {"seed": 1000, "first": 48, "images": 24}
    assert told["test"]["ratio_geometric"][2] < 0.5 and told["second test"]["ratio_rms"][0] < 0.5, told["test"]
    assert told["competitor"]["geometric"].startswith("sampler=") and told["cpu_seconds"]["fit"] > 0
    assert saved.plan.capabilities.order == 1 and plan_json.constants_missed(saved.plan) < 1e-12
    assert (out / "gmm_cfg1.md").read_text() in said and drawn[0]["neighbours"][0]["cfg"] == 2
    # The harness finds the same error on the first test set, and knows where the plan is at home.
    words = ["sampler=plan", f"sampler.file={out / 'gmm_cfg1_nfe5.json'}", "n_images=16", "metrics=[exact]"]
    at_home = enumerate_cells(["model=gmm", *words])
    assert not at_home.notes
    for more, message in ((["cfg=2"], "not for cfg=2"), (["model.modes=3", "model.seed=1"], "not for model=gmm")):
        (note,) = enumerate_cells(["model=gmm", *words, *more]).notes
        assert message in note and "may be worse here" in note


def test_the_command_goes_on_where_it_was_stopped(tmp_path, few_rivals, monkeypatch, capsys):
    words = [*WORDS, "nfe=4", "iterations=3"]
    assert learn.main([*words, f"results_dir={tmp_path / 'whole'}"]) == 0
    ran: list[str] = []
    cut: list[str] = []
    once = learn.Ledger.once

    def counted(self, name, work):
        if name not in self.steps:
            ran.append(name)
        if name.startswith("4/all/") and name.endswith("/2") and ran.count(name) == 1 and not cut:
            cut.append(name)
            raise KeyboardInterrupt
        return once(self, name, work)

    monkeypatch.setattr(learn.Ledger, "once", counted)
    assert learn.main([*words, f"results_dir={tmp_path / 'stopped'}"]) == 130
    assert "goes on from here" in capsys.readouterr().err
    stopped = len(ran)
    assert learn.main([*words, f"results_dir={tmp_path / 'stopped'}"]) == 0
    assert cut and ran[stopped] == cut[0] and len(set(ran)) == len(ran) - 1, (
        "no step was done twice but the one that was cut"
    )
    one, other = (plan_file.read(str(tmp_path / name / "learned/gmm_cfg1_nfe4.json")) for name in ("whole", "stopped"))
    assert one.plan == other.plan and one.learned["test"] == other.learned["test"]


def test_processes_side_by_side_find_the_same_plans(tmp_path, capsys, monkeypatch):
    """Each number of calls in a process of its own; one that dies half-way is taken over by the caller."""
    words = ["model=gmm", "threads=1", "images=6", "validation=4", "test=4", "starts=1", "iterations=1", "nfe=2,3"]
    plans = []
    for name, more in (("one", []), ("two", ["workers=2"])):
        assert learn.main([*words, *more, f"results_dir={tmp_path / name}"]) == 0
        plans.append([plan_file.read(str(tmp_path / name / f"learned/gmm_cfg1_nfe{n}.json")) for n in (2, 3)])
        said = capsys.readouterr().out
    assert "takes it over" not in said
    assert [one.plan for one in plans[0]] == [one.plan for one in plans[1]]
    assert [one.learned["test"] for one in plans[0]] == [one.learned["test"] for one in plans[1]]

    monkeypatch.setattr(learn, "_alone", _dies)
    assert learn.main([*words, "workers=2", f"results_dir={tmp_path / 'three'}"]) == 0
    assert "nfe=3: its process ended (exit code 7); this one takes it over" in capsys.readouterr().out
    assert plan_file.read(str(tmp_path / "three/learned/gmm_cfg1_nfe3.json")).plan == plans[0][1].plan


def _dies(*_):
    raise SystemExit(7)


def test_other_training_images_meet_the_same_race(tmp_path, few_rivals):
    """What the hand-made side is raced on does not depend on how a plan is learned, nor do the images that judge it."""
    runs = []
    for more in ([], ["train_seed=1"], ["images=12", "starts=2"]):
        asked, (cell,), _ = learn.read([*WORDS, *more, f"results_dir={tmp_path}"])
        runs.append(learn.Learning(asked, cell, tmp_path / "steps", tmp_path / "cache", 0.0))
    assert len({run.hand_key for run in runs}) == 1 and len({run.own_key for run in runs}) == 3
    first, second, _ = (run.train for run in runs)
    prompts = [set(range(one.first, one.first + len(one))) for one in (first, second, runs[0].validation)]
    assert not prompts[0] & prompts[1] and not prompts[1] & prompts[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nfe=1"], "nfe=1 is not valid: give a whole number from 2 to 40"),
        (["nfe=5,x"], "nfe='x' is not valid"),
        (["workers=0"], "workers=0 is not valid"),
        (["images=0"], "images=0 is not valid"),
        (["imags=4"], "imags says nothing about what is learned; did you mean 'images'"),
        (["sampler=unipc"], "sampler says nothing about what is learned"),
        (["model=embeded"], "unknown model 'embeded'"),
        (["model=gmm", "model.modus=3"], "no knob 'model.modus'"),
        (["cfg=x"], "cfg='x' is not valid"),
        (["fast"], "give KEY=VALUE words"),
        (["neighbours=-1"], "cfg=-1"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(words, message, capsys):
    assert learn.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# -------------------------------------------------------------------------------------------------------- the figures


def test_figures_are_paired_and_say_what_is_known():
    rng = np.random.default_rng(0)
    hand = np.exp(rng.normal(size=200)) * 0.1
    mine = hand * 0.5 * np.exp(0.1 * rng.normal(size=200))
    told = figures(mine, hand, hand, np.ones(200))
    value, low, high = told["ratio_geometric"]
    assert value == pytest.approx(np.exp(np.log(mine / hand).mean())) and low < 0.5 < high and high - low < 0.05
    assert told["ratio_rms"][0] == pytest.approx(np.sqrt((mine**2).sum() / (hand**2).sum()))
    assert told["rms"][0] == pytest.approx(rms(mine, np.ones(200))) and told["better"][0] == 1
    assert told["hand_geometric"][2] / told["hand_geometric"][1] > 1.2, "unpaired, the same images say far less"


def test_the_figure_of_a_report_is_drawn(tmp_path):
    from reports import learned as figure

    one = {name: [0.1, 0.09, 0.12] for name in ("rms", "geometric", "hand_rms", "hand_geometric")}
    plans = [{"nfe": calls, "test": one, "second test": one} for calls in (8, 5)]
    told = {"model": "gmm", "cfg": 1.0, "images": {"test": {"images": 16}}, "plans": plans}
    (tmp_path / "a.figures.json").write_text(json.dumps(told))
    assert figure.main([str(tmp_path / "a.figures.json")]) == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert figure.main([str(tmp_path / "none.json")]) == 2


# -------------------------------------------------------------------------------------------------------- the files


FOR = {"model": "gmm", "model_fingerprint": "0123456789abcdef", "cfg": 2.0, "nfe": 4}


def written(change=lambda values: None):
    logs = np.log(np.geomspace(10.0, 0.1, 4))
    plan, levels = Table(logs, theoretical(logs, PROCESS)).plan(PROCESS)
    values = json.loads(plan_json.dumps(plan, levels, FOR))
    change(values)
    return json.dumps(values)


def test_what_a_plan_was_learned_for_is_kept_and_no_part_of_its_id(tmp_path):
    saved = plan_json.loads(written())
    assert saved.learned == FOR
    levels = schedules.build("karras", PROCESS, 3)
    plan = registry.build_plan("dpmpp", levels)
    assert plan_json.loads(plan_json.dumps(plan, levels)).learned is None
    assert '"learned"' not in plan_json.dumps(plan, levels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["stages"][1]["x0"].__setitem__(0, v["stages"][1]["x0"][0] + 1e-9), "miss a constant by"),
        (lambda v: v["stages"][2]["states"].__setitem__(2, v["stages"][2]["states"][2] + 1e-9), "miss a constant by"),
        (lambda v: v["learned"].pop("model_fingerprint"), "missing .*model_fingerprint"),
        (lambda v: v["learned"].update(cfg="3"), "learned.cfg is '3', not a number"),
        (lambda v: v["learned"].update(nfe=5), "learned for 5 calls and holds 4"),
        (lambda v: v.update(learned=[]), "learned is an object"),
    ],
)
def test_a_learned_plan_that_was_changed_is_refused(tmp_path, change, message):
    path = tmp_path / "plan.json"
    path.write_text(written(change))
    with pytest.raises(ValueError, match=rf"plan\.json is not a plan to run: .*{message}"):
        plan_file.read(str(path))


def test_a_plan_that_misses_constants_is_not_written():
    logs = np.log(np.geomspace(10.0, 0.1, 4))
    weights = theoretical(logs, PROCESS)
    plan, levels = Table(logs, weights).plan(PROCESS)
    off = type(plan)(plan.start, (*plan.stages[:-1], type(plan.stages[-1])(
        plan.stages[-1].level, plan.stages[-1].result, (), tuple(1.001 * w for w in plan.stages[-1].x0)
    )), plan.capabilities)  # fmt: skip
    plan_json.dumps(off, levels)  # a plan like any other
    with pytest.raises(ValueError, match=r"miss a constant by 0\.001"):
        plan_json.dumps(off, levels, FOR)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped plans that holds one, for gmm at CFG 1 and 4 calls."""
    from harness.models.load import fingerprint, named

    own = {**FOR, "model_fingerprint": fingerprint(named("gmm")), "cfg": 1.0}
    (tmp_path / "shipped").mkdir()
    path = tmp_path / "shipped" / "gmm_cfg1_nfe4.json"
    path.write_text(written(lambda values: values.update(learned=own)))
    monkeypatch.setattr(learned, "ROOT", tmp_path)
    monkeypatch.setattr(plan_file, "ROOT", tmp_path)
    monkeypatch.setattr(learned, "SHIPPED", "shipped")
    learned.shipped.cache_clear()
    yield path
    learned.shipped.cache_clear()


@pytest.mark.parametrize("calls", ["nfe=4", "steps=4"])
def test_a_shipped_plan_is_chosen_by_model_guidance_and_calls(shipped, calls):
    asked = enumerate_cells(["model=gmm", "sampler=learned", calls])
    (cell,) = asked.cells.values()
    assert cell.sampler["file"] == "shipped/gmm_cfg1_nfe4.json" == cell.schedule["file"] and cell.steps == 4
    assert len(cell.sampler["sha256"]) == 64 and cell.schedule.name == "file" and not asked.notes
    named = enumerate_cells(["model=gmm", "cfg=2", "sampler=learned", f"sampler.file={shipped}"])
    assert "at cfg=1, not for cfg=2" in named.notes[0], "a file that is named is taken, with a warning"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=gmm", "nfe=5"],
            "none is for cfg=1 and 5 calls; there is: model=gmm cfg=1 nfe=4. Learn one: python -m",
        ),
        (["model=gmm", "nfe=4", "cfg=2"], "none is for cfg=2 and 4 calls"),
        (["model=gmm", "nfe=4", "model.seed=3"], "are for other weights than these"),
        (["model=gaussian", "nfe=4"], "none is for model=gaussian"),
    ],
)
def test_elsewhere_it_is_refused_with_what_there_is(shipped, words, message):
    with pytest.raises(ValueError, match=message):
        enumerate_cells(["sampler=learned", *words])


def test_a_glob_means_no_learned_plan():
    """It is there for some cells only, and would refuse the others of a grid."""
    named = {
        cell.sampler["name"] for cell in enumerate_cells(["model=gmm", "sampler=glob(l*)", "nfe=4"]).cells.values()
    }
    assert named == {"lcm", "lms"}


def test_a_learned_sampler_without_a_file_says_so():
    levels = schedules.build("karras", PROCESS, 4)
    with pytest.raises(ValueError, match="chosen by model, guidance scale and calls"):
        registry.build_plan("learned", levels)


def test_every_shipped_plan_is_whole():
    for file, told in learned.shipped():
        saved = plan_file.read(file)
        assert saved.plan.nfe == told["nfe"] == saved.steps and plan_json.constants_missed(saved.plan) <= 1e-12
        assert {"teacher", "images", "competitor", "validation", "test", "second test", "commit"} <= set(told)
