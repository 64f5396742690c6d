"""The gate: what must fail fails, what may differ passes, and what cannot be told is said to be so."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.errors import InputError
from harness.store import sketch
from harness.store.records import Store
from reports import check as gate
from reports.gate import policy

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "results" / "baseline"
RULES = policy.load("records")
N = 32
PROMPT = "a | `red` <b>circle</b> [x](http://evil) \x1b[31m"
FEATURES = np.random.default_rng(0).normal(size=(N, 8)) * 60


def cell(k: int = 0, **changes) -> dict:
    """A cell's row; `k` is in its id alone, as another machine's would be."""
    steps = changes.get("steps", 20)
    row = {
        "cell_id": f"{steps:08x}{k:08x}",
        "status": "ok",
        **{"task": "txt2img", "task_knobs": {}, "model": "embedded", "model_fingerprint": "m"},
        **{"data": "embedded", "data_fingerprint": "d", "implementation": "native", "noise": "independent"},
        **{"sampler": "dpmpp", "schedule": "karras", "steps": steps, "cfg": 3.0, "precision": "fp32", "seed": 0},
        **{"sampler_knobs": {"order": 2, "solver_type": "midpoint"}, "schedule_knobs": {"rho": 7.0}},
        **{"negative_prompt": "", "guidance_rescale": 0.0, "guidance_knobs": {}, "keep_steps": False},
        **{"n_images": N, "batch_size": 16, "reference_count": 256, "nfe": steps, "steps_run": steps, "flops": 1e9},
        **{"fid": 5.0, "fid_n": N, "fid_extractor": "e", "fid_resizer": "r", "clip_definition": "c"},
        **{"discretisation_reference": "x", "device": "cpu", "hardware": "h", "torch_version": "t"},
        **{"hostname": "a private name", "ended_at": 1_900_000_000_000},
    }
    return row | changes


def images(n: int = N, seed: int = 1, **changes) -> list[dict]:
    """Rows of a cell's images. `changes` are columns, or what is added to them where they are arrays."""
    rng = np.random.default_rng(seed)
    columns = {
        "clip_score": 90 + rng.normal(size=n),
        "discretisation_error": np.abs(0.03 + 0.003 * rng.normal(size=n)),
        "attributes_all": np.ones(n),
        "fid_influence": rng.normal(size=n),
        "image_sketch": FEATURES[:n],
    }
    columns |= {name: columns[name] + change for name, change in changes.items() if name in columns}
    same = {"seed": 0, "prompt": PROMPT} | {k: v for k, v in changes.items() if k not in columns}
    return [{"image_index": i, "prompt_id": i, **same, **{k: v[i] for k, v in columns.items()}} for i in range(n)]


@pytest.fixture
def judge(tmp_path):
    """judge(candidate, ...) → Report; a side is a list of (cell row, image rows)."""

    def of(candidate, baseline=None, rules=RULES):
        for name, side in (("baseline", [(cell(), images())] if baseline is None else baseline), ("now", candidate)):
            store = Store(tmp_path / name)
            for row, pictures in side:
                store.write(row, pictures)
        return gate.check(tmp_path / "baseline", tmp_path / "now", rules)

    return of


def flagged(report, verdict="regression") -> set[str]:
    return set(report.findings.loc[report.findings["verdict"] == verdict, "check"])


def test_the_same_question_is_matched_whatever_ran_it(judge):
    elsewhere = {"batch_size": 4, "device": "cuda", "threads": 1, "timing_preset": "full", "metrics": ["fid"]}
    report = judge([(cell(7, **elsewhere, git_commit="f" * 40), images()), (cell(8, steps=50), images())])
    assert report.exit_code == 0
    assert flagged(report, "pass") >= {"nfe", "steps_run", "flops", "images", "clip_score", "fid", "attributes_all"}
    assert any("1 cells of the candidate are not in the baseline" in note for note in report.notes)


def test_an_old_record_is_matched_by_the_defaults_of_what_it_does_not_know(judge):
    old = {"noise": None, "implementation": None, "sampler_knobs": {"order": 2}, "schedule_knobs": {}}
    new = {"sampler_knobs": {"order": 2, "solver_type": "midpoint"}, "schedule_knobs": {"rho": 7.0}}
    assert judge([(cell(1, **new), images())], [(cell(**old), images())]).exit_code == 0
    other = {"sampler_knobs": {"order": 1, "solver_type": "midpoint"}}
    with pytest.raises(InputError, match="no cell of"):
        judge([(cell(1, **other), images())], [(cell(**old), images())])


@pytest.mark.parametrize("column, value", (("nfe", 21.0), ("nfe", 19.0), ("steps_run", 19), ("flops", 1.001e9)))
def test_other_work_is_a_regression(judge, column, value):
    report = judge([(cell(1, **{column: value}), images())])
    assert report.exit_code == 1 and flagged(report) == {column}


def test_fewer_flops_are_said_and_no_regression(judge):
    report = judge([(cell(1, flops=0.5e9), images())])
    assert report.exit_code == 0 and flagged(report, "note") == {"flops"}


def shifted(db: float) -> np.ndarray:
    """What turns sketches into those of images so many dB away."""
    rng = np.random.default_rng(5)
    return 255 * 10 ** (-db / 20) * rng.choice([-1.0, 1.0], (N, sketch.PROJECTIONS))


@pytest.mark.parametrize(
    "db, where, flagged_",
    (
        (66, {}, True),
        (75, {}, False),
        (66, {"hardware": "another"}, False),
        (50, {"torch_version": "another"}, True),
        (66, {"precision": "fp16"}, False),
        (35, {"precision": "fp16"}, True),
    ),
)
def test_golden_images_of_the_platform(judge, db, where, flagged_):
    before = cell(precision=where.get("precision", "fp32"))
    report = judge([(cell(1, **where), images(image_sketch=shifted(db)))], [(before, images())])
    assert (flagged(report) == {"images"}) is flagged_
    found = report.findings[report.findings["check"] == "images"]
    assert found["candidate"].iloc[0] == pytest.approx(db, abs=1e-6)


def test_other_weights_are_judged_by_quality_alone(judge):
    report = judge([(cell(1, model_fingerprint="other"), images(image_sketch=shifted(20)))])
    assert report.exit_code == 0 and flagged(report, "note") == {"images"}


def test_quality_needs_size_and_significance(judge):
    rng = np.random.default_rng(2)
    worse = judge([(cell(1), images(clip_score=-1 + 0.3 * rng.normal(size=N)))])
    assert worse.exit_code == 1 and flagged(worse) == {"clip_score"}
    found = worse.findings.set_index("check").loc["clip_score"]
    assert found["low"] < found["difference"] < found["high"] < -0.8
    assert found["effect"] < -2 and found["p_adjusted"] < 1e-4 and found["n"] == N


def test_a_sure_but_small_difference_passes(judge):
    report = judge([(cell(1), images(clip_score=-0.1 + 0.001 * np.random.default_rng(2).normal(size=N)))])
    assert report.exit_code == 0


def test_a_large_but_unsure_difference_is_inconclusive(judge):
    wild = np.random.default_rng(3).normal(size=N)
    wild += -0.4 - wild.mean()
    report = judge([(cell(1), images(clip_score=3 * wild))])
    assert report.exit_code == 3 and flagged(report, "inconclusive") == {"clip_score"}


def test_better_is_said_and_passes(judge):
    report = judge([(cell(1), images(discretisation_error=-0.01 * np.ones(N)))])
    assert report.exit_code == 0 and flagged(report, "improvement") == {"discretisation_error"}


def test_fid_is_judged_by_the_influence_of_paired_images(judge):
    """A shift of 0.5 is far inside the interval of either FID, and sure all the same."""
    report = judge([(cell(1, fid=5.5), images(fid_influence=0.1 * np.random.default_rng(1).normal(size=N)))])
    assert flagged(report) == {"fid"}
    found = report.findings.set_index("check").loc["fid"]
    assert found["difference"] == pytest.approx(0.5, abs=0.1) and found["high"] - found["low"] < 0.2


def test_a_whole_grid_of_nothing_raises_no_alarm_and_one_true_one_is_found(judge):
    rng = np.random.default_rng(4)
    before = [(cell(steps=s), images()) for s in range(2, 18)]
    after = [(cell(1, steps=s), images(clip_score=0.7 * rng.normal(size=N))) for s in range(2, 18)]
    assert not flagged(judge(after, before))
    after[7] = (after[7][0], images(clip_score=-1.5 + 0.7 * rng.normal(size=N)))
    report = judge(after, before)
    found = report.findings[report.findings["verdict"] == "regression"]
    assert list(found["label"]) == ["txt2img · dpmpp · karras · 9 steps · cfg 3"]


def test_vanished_failed_and_skipped_are_three_things(judge):
    before = [(cell(steps=s), images()) for s in (10, 20, 30, 40, 50)]
    before.append((cell(steps=60, status="failed", error="out of memory"), []))
    after = [
        (cell(1, steps=10), images()),
        (cell(1, steps=20, status="failed", error="ValueError: NaN"), []),
        (cell(1, steps=30, status="skipped", error="no such device"), []),
        (cell(1, steps=50), images()),
        (cell(1, steps=60, status="failed", error="out of memory"), []),
    ]
    report = judge(after, before)
    said = report.findings[report.findings["check"] == "status"].set_index("label")[["verdict", "message"]]
    by_steps = {int(label.split(" steps")[0].split()[-1]): tuple(row) for label, *row in said.itertuples()}
    assert by_steps[10] == ("pass", "")
    assert by_steps[20] == ("regression", "failed: ValueError: NaN")
    assert by_steps[30] == ("inconclusive", "skipped: no such device")
    assert by_steps[40] == ("regression", "the candidate has no such cell")
    assert by_steps[60][0] == "note"
    assert report.exit_code == 1


@pytest.mark.parametrize(
    "changes, check",
    (
        ({"clip_definition": "other"}, "clip_score"),
        ({"fid_extractor": "other"}, "fid"),
        ({"reference_count": 99}, "fid"),
        ({"discretisation_reference": "other"}, "discretisation_error"),
        ({"data_fingerprint": "other"}, "data"),
    ),
)
def test_what_is_not_comparable_is_refused_and_named(judge, changes, check):
    report = judge([(cell(1, **changes), images(clip_score=-9 * np.ones(N)))], None)
    if check != "clip_score":
        assert check in flagged(report, "incomparable")
    else:
        assert flagged(report, "incomparable") == {"clip_score"} and report.exit_code == 3
    (name,) = changes
    said = report.findings[report.findings["verdict"] == "incomparable"]["message"].iloc[0]
    assert name in said


def test_fewer_images_are_compared_where_both_have_them(judge):
    report = judge([(cell(1, n_images=16, fid_n=16), images()[:16])])
    assert flagged(report, "incomparable") == {"fid"}  # its bias is another
    assert report.findings.set_index("check").loc["clip_score", "n"] == 16
    assert any(note.startswith("n_images differs") for note in report.notes)


def test_other_prompts_are_no_pairs(judge):
    report = judge([(cell(1), images(prompt="something else", clip_score=-5 * np.ones(N)))])
    assert report.exit_code == 3
    (said,) = report.findings[report.findings["verdict"] == "inconclusive"]["message"]
    assert "the prompts differ" in said


@pytest.mark.parametrize("lost", (N, 3))
def test_a_metric_that_is_no_longer_measured_is_said(judge, lost):
    """Of some images too: those that could not be measured may be the bad ones."""
    rows = [{k: v for k, v in row.items() if k != "clip_score" or i >= lost} for i, row in enumerate(images())]
    report = judge([(cell(1), rows)])
    assert report.exit_code == 3 and flagged(report, "incomparable") == {"clip_score"}
    assert f"on {lost} of the images" in report.worth_saying()["message"].iloc[0]


def test_the_command_writes_what_was_found_with_foreign_text_escaped(judge, tmp_path, capsys):
    evil = "boom <script>alert(1)</script> | `x` [a](javascript:b) \x1b[31m\x00 ]]>"
    judge([(cell(1, status="failed", error=evil), [])])
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "junit", "markdown")}
    words = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    assert gate.main([str(tmp_path / "baseline"), str(tmp_path / "now"), *words]) == 1
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown and "failed" in shown
    found = json.loads(files["json"].read_text())
    assert (found["exit_code"], found["outcome"]) == (1, "regression")
    assert found["findings"][0]["message"].endswith("]]>")
    suite = ElementTree.parse(files["junit"]).getroot()
    assert suite.attrib["failures"] == "1" and "<script>" in suite.find("testcase/failure").attrib["message"]
    text = files["markdown"].read_text()
    assert "<script>" not in text and "](javascript" not in text and "\x1b" not in text
    rows = [line for line in text.splitlines() if "boom" in line]
    assert len(rows) == 1 and rows[0].replace("\\|", "").count("|") == 10


def test_unusable_input_is_exit_code_2_in_one_line(judge, tmp_path, capsys):
    judge([(cell(1), images())])
    empty = tmp_path / "empty"
    (empty / "cells").mkdir(parents=True)
    good = str(tmp_path / "baseline")
    for words in ((str(tmp_path / "no"), good), (good, str(empty)), (good, good, "--policy", "recrods")):
        assert gate.main(words) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "did you mean 'records'?" in said.err


@pytest.mark.parametrize(
    "line, says",
    (
        ("alpha: 0.05", "alpha=None"),
        ("correction: holm", "correction='bonferroni'"),
        ("clip_score: {worse: lower, margin: 0.25}", "'clip_scor'"),
        ("vanished: regression", "coverage.vanished='never'"),
    ),
)
def test_a_policy_is_checked(tmp_path, line, says):
    wrong = {
        "alpha: 0.05": "alpha: null",
        "correction: holm": "correction: bonferroni",
        "clip_score: {worse: lower, margin: 0.25}": "clip_scor: {worse: lower, margin: 0.25}",
        "vanished: regression": "vanished: never",
    }[line]
    text = (policy.CONF / "records.yaml").read_text()
    assert line in text
    (tmp_path / "own.yaml").write_text(text.replace(line, wrong))
    with pytest.raises(InputError, match=says):
        policy.load(str(tmp_path / "own.yaml"))


def test_update_says_what_changes_and_writes_two_files_that_pass(judge, tmp_path, capsys):
    judge([(cell(1, nfe=21.0), images()), (cell(1, steps=50), images()), (cell(1, steps=60, status="failed"), [])])
    before, now = tmp_path / "baseline", tmp_path / "now"
    assert gate.main([str(before), str(now), "--update"]) == 0
    said = capsys.readouterr().out
    assert "nfe changed" in said and "now holds 2 cells" in said
    kept = [path.relative_to(before).as_posix() for path in before.rglob("*.parquet")]
    assert sorted(kept) == ["cells/baseline.parquet", "images/baseline.parquet"]
    assert b"a private name" not in (before / "cells" / "baseline.parquet").read_bytes()
    assert len(Store(before).images()) == 2 * N
    report = gate.check(before, now, RULES)
    assert report.exit_code == 0 and report.cells == 2


def test_a_sketch_tells_how_far_two_images_are_apart():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (64, 3, 16, 16), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 6, a.shape).round(), 0, 255).astype(np.uint8)
    error = sketch.squared_error(sketch.sketch(a), sketch.sketch(b))
    assert error.mean() == pytest.approx(((a.astype(float) - b) ** 2).mean(), rel=0.15)
    assert sketch.psnr(0.0) == np.inf and sketch.psnr(1.0) == pytest.approx(48.13, abs=0.01)
    # The same on every machine and with every numpy: one changed sign would make all baselines worthless.
    whole = sketch.sketch(np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)) * np.sqrt(48)
    assert whole.round(9).tolist() == [[-308, 40, 94, 138, 272, -264, -134, -184]]


@pytest.mark.skipif(not (BASELINE / "cells").is_dir(), reason="no baseline is kept in this checkout")
def test_the_embedded_model_still_makes_the_images_of_the_kept_baseline(tmp_path, monkeypatch):
    """The deterministic and quality tiers on a few images of every cell in results/baseline, on whatever machine."""
    import torch

    from harness.measure.session import Session
    from harness.sweep.enumerate import enumerate_cells

    words = ["+experiment=check", "n_images=3", "batch_size=3", "threads=1", "device=cpu"]
    words += ["metrics=[clip_score,attributes]", f"results_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["harness.sweep", *words])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session, store = Session(tmp_path), Store(tmp_path)
        for asked in enumerate_cells(words).cells.values():
            record = session.run(asked, lambda what, images: None)
            store.write(record.cell, record.images)
    finally:
        torch.set_num_threads(before)
    measured = tuple(rule for rule in RULES.quality if rule.metric in ("clip_score", "attributes_all"))
    report = gate.check(BASELINE, tmp_path, dataclasses.replace(RULES, quality=measured))
    assert report.exit_code == 0, report.worth_saying().to_string()
    assert (report.findings["check"] == "images").sum() == report.cells >= 5


def test_bytes_alone_say_equal_or_nothing(judge):
    """Points of an analytic model have no pixels, hence no sketch: other bytes may be another processor's rounding."""

    def points(name: str) -> list[dict]:
        rows = [row | {"image_sha256": f"{i}" if i else name} for i, row in enumerate(images())]
        return [{k: v for k, v in row.items() if k != "image_sketch"} for row in rows]

    same = judge([(cell(1), points("a"))], [(cell(), points("a"))])
    assert same.exit_code == 0 and "images" in flagged(same, "pass")
    other = judge([(cell(1), points("b"))], [(cell(), points("a"))])
    assert other.exit_code == 0 and flagged(other, "note") == {"images"}


def test_many_unsure_differences_are_not_one_sure_one(judge):
    """Sixteen cells with p = 0.02 each: every one would be an alarm by itself, none is among sixteen."""

    def unsure(seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=N)
        return 0.3 * ((noise - noise.mean()) / noise.std() * np.sqrt(N - 1) / 2.45 - 1)

    before = [(cell(steps=s), images()) for s in range(2, 18)]
    after = [(cell(1, steps=s), images(clip_score=unsure(s))) for s in range(2, 18)]
    report = judge(after, before)
    found = report.findings[report.findings["check"] == "clip_score"]
    assert (found["p"] < 0.05).all() and not flagged(report) and report.exit_code == 3
    alone = judge(after[:1], before[:1], dataclasses.replace(RULES, coverage=dict.fromkeys(RULES.coverage, "pass")))
    assert alone.findings["p"].min() < 0.05
