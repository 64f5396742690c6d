"""A recorded cell is run again: the same says so, and each thing that differs is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness.bench.fake_cells import SESSION, FakeSession, cell
from harness.compare import reproduce
from harness.store.records import Store

ROOT = Path(__file__).resolve().parents[1]
WHERE = {"hardware": "a processor", "platform": "Linux", "torch_version": "2.0", "git_commit": "abc"}


class Session(FakeSession):
    """Says where it ran, and what a test wants to have changed there."""

    now: dict = {}  # noqa: RUF012
    spoilt: tuple = ()

    def run(self, cell, report):
        record = super().run(cell, report)
        record.cell.update({**WHERE, "clip_score_low": 89.0, "clip_score_high": 91.0, **self.now})
        for index in self.spoilt:
            record.images[index]["image_sha256"] = "0" * 16
        return record


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(reproduce, "_as_it_is", lambda record, cell: record)  # a fake model has no weights to look at
    record = Session(str(tmp_path)).run(cell(0, work_s=0), lambda what, count: None)
    Store(tmp_path).write(record.cell, record.images, record.timings)
    return tmp_path


def again(results: Path, monkeypatch, *words: str, now: dict | None = None, spoilt: tuple = ()) -> int:
    monkeypatch.setattr(Session, "now", now or {})
    monkeypatch.setattr(Session, "spoilt", spoilt)
    words = words or (cell(0, work_s=0).cell_id[:5],)
    return reproduce.main([*words, "--results", str(results)], session=f"{__name__}:Session")


def test_the_same_is_the_same_bit_for_bit_and_leaves_nothing(results, monkeypatch, capsys):
    before = sorted(results.rglob("*"))
    assert again(results, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "8 of 8 images are the same bit for bit" in out and out.endswith("the same, bit for bit\n")
    assert sorted(results.rglob("*")) == before


def test_one_other_image_on_the_same_platform_is_different(results, monkeypatch, capsys):
    assert again(results, monkeypatch, spoilt=(3,)) == 1
    assert "7 of 8 images are the same" in capsys.readouterr().out


def test_elsewhere_numbers_within_their_intervals_will_do(results, monkeypatch, capsys):
    there = {"torch_version": "3.0"}
    assert again(results, monkeypatch, now={**there, "clip_score": 90.9}, spoilt=(1, 2)) == 0
    out = capsys.readouterr().out
    assert "torch_version: was 2.0, is 3.0" in out and "within its interval" in out
    assert again(results, monkeypatch, now={**there, "clip_score": 91.1}, spoilt=(1, 2)) == 1
    assert "outside its interval" in capsys.readouterr().out


def test_what_is_counted_must_be_equal_everywhere(results, monkeypatch, capsys):
    assert again(results, monkeypatch, now={"torch_version": "3.0", "nfe": 21.0}) == 1
    assert "nfe" in capsys.readouterr().out


def test_another_commit_is_named_and_excuses_nothing(results, monkeypatch, capsys):
    assert again(results, monkeypatch, now={"git_commit": "def"}) == 0
    assert "git_commit: was abc, is def" in capsys.readouterr().out
    assert again(results, monkeypatch, now={"git_commit": "def"}, spoilt=(0,)) == 1


def test_a_number_that_moved_though_the_images_did_not_is_different(results, monkeypatch):
    assert again(results, monkeypatch, now={"clip_score": 90.0}) == 1


def test_a_record_without_hashes_is_judged_by_its_numbers(results, monkeypatch, capsys):
    record = Session(str(results)).run(cell(0, work_s=0), lambda what, count: None)
    for row in record.images:
        del row["image_sha256"]
    Store(results).write(record.cell, record.images)
    assert again(results, monkeypatch) == 0
    assert "no hashes" in capsys.readouterr().out


def test_what_cannot_be_told_is_code_2_and_one_line(results, monkeypatch, capsys, tmp_path):
    store = Store(results)
    store.write({**cell(1, work_s=0).columns(), "status": "failed", "error": "out of memory"})
    store.write({**cell(2, "nan", work_s=0).columns(), "status": "ok"})
    old = json.loads(cell(3).canonical()) | {"colour": "red"}
    store.write({**cell(3).columns(), "status": "ok", "cell": json.dumps(old)})
    for words, said in {
        ("",): "is the beginning of 4 cells",
        ("zz",): "none of the 4 cells",
        (cell(1, work_s=0).cell_id,): "recorded as failed (out of memory)",
        (cell(2, "nan", work_s=0).cell_id,): "could not be run: ValueError: image 3 is bad",
        (cell(3).cell_id,): "cannot be read any more",
    }.items():
        assert again(results, monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert again(tmp_path / "none", monkeypatch, "a") == 2
    assert "no records" in capsys.readouterr().err


def test_images_that_are_missing_now_are_not_the_same():
    then = pd.DataFrame({"image_index": [0, 1], "image_sha256": ["a", "b"], "image_sketch": [None, None]})
    found = reproduce.Comparison([], same_platform=True)
    reproduce._compare_images(found, then, then.iloc[:1])
    assert found.images_same is False and found.images.startswith("1 of 2")


def test_the_session_of_a_sweep_is_the_default():
    assert reproduce.SESSION == "harness.measure.session:Session" != SESSION


def test_interrupted_it_ends_with_one_line(tmp_path):
    """Ctrl-C while the cell runs: no traceback, code 130."""
    record = Session(str(tmp_path)).run(cell(0, work_s=0), lambda what, count: None)
    Store(tmp_path).write(record.cell, record.images, record.timings)
    code = "import os, signal, sys, time; from harness import reproduce; from harness.errors import interruptible\n"
    code += "class Stopped:\n    def __init__(self, folder): pass\n"
    code += "    def run(self, cell, report): os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
    code += "sys.modules['stopped'] = sys.modules['__main__']\n"
    code += "main = lambda: reproduce.main(sys.argv[1:], session='stopped:Stopped')\nsys.exit(interruptible(main))"
    words = [record.cell["cell_id"], "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "\ninterrupted: what was written before is whole\n"


def test_every_command_can_be_interrupted():
    commands = [path for folder in ("harness", "reports") for path in (ROOT / folder).rglob("*.py")]
    commands = [path for path in commands if '__name__ == "__main__"' in path.read_text()]
    # `guarded` says that the sweep goes on; a worker is its parent's; the console runs a command, which says it; what a
    # pilot's signals mean is the queue's.
    own = {"harness/__main__.py", "harness/sweep/__main__.py", "harness/bench/fake_cells.py"}
    own |= {"harness/compare/worker.py", "harness/sweep/pilot.py"}
    without = [path for path in commands if "interruptible(" not in path.read_text().split('"__main__"')[1]]
    assert len(commands) > 15 and {path.relative_to(ROOT).as_posix() for path in without} == own
