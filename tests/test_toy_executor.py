"""An executor is one file and its YAML: the command line finds it with its knobs, and a sweep runs by it."""

from __future__ import annotations

import sys

import pytest

from harness.bench.fake_cells import SESSION, cell
from harness.errors import InputError
from harness.executors import kinds
from harness.paths import CONF
from harness.store.records import Store
from harness.sweep import commandline
from harness.sweep.enumerate import Asked, enumerate_cells
from harness.sweep.run import Outcome, run

# It runs the cells in the sweep's own process, the last one first if asked: no worker, nothing of the local executor.
TOY = """
from importlib import import_module

from harness.errors import InputError
from harness.executors.base import Kind, Progress
from harness.executors.share import run_shared


class Here:
    def __init__(self, session, backwards):
        self.session, self.backwards = session, backwards

    def run(self, cells, claim):
        for cell in reversed(cells) if self.backwards else cells:
            if claim(cell):
                words = []
                record = self.session.run(cell, lambda *word: words.append(Progress(cell.cell_id, *word)))
                yield from words
                yield record.checked()


class Toy(Kind):
    def check(self, knobs):
        if not isinstance(knobs["backwards"], bool):
            raise InputError(f"executor.backwards={knobs['backwards']!r} is not valid: give true or false")

    def run(self, work, knobs):
        module, _, name = work.session.partition(":")
        session = getattr(import_module(module), name)(str(work.store.place))
        yield from run_shared(Here(session, knobs["backwards"]), work.store, work.cells, work.before)


KIND = Toy()
"""
YAML = "name: toy\nbackwards: false    # the last cell first\n"
VOLATILE = ("started_at", "ended_at", "workers", "attempts")


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The two files in folders beside the project's own, which are told of them and otherwise as they are."""
    for folder in ("kinds", "conf/executor"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "kinds" / "toy.py").write_text(TOY)
    for path in (*CONF.iterdir(), *(CONF / "executor").iterdir()):
        if path.name != "executor":
            (tmp_path / "conf" / path.relative_to(CONF)).symlink_to(path)
    (tmp_path / "conf" / "executor" / "toy.yaml").write_text(YAML)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "kinds")])
    monkeypatch.setattr(commandline, "CONF", tmp_path / "conf")
    commandline.choices.cache_clear()
    yield
    commandline.choices.cache_clear()
    sys.modules.pop("harness.executors.kinds.toy", None)
    vars(kinds).pop("toy", None)


def asked(results, *words: str) -> Asked:
    return enumerate_cells(["steps=5,10", "device=cpu", "threads=1", f"results_dir={results}", *words])


def recorded(results, *words: str) -> dict[int, dict]:
    """Rows of three cells by their seed, run as the words say."""
    cells = [cell(seed, work_s=0) for seed in range(3)]
    assert run(cells, asked(results, *words).settings, session=SESSION) == Outcome(0, 3)
    rows = Store(results).rows([one.cell_id for one in cells])
    return {row["seed"]: {name: value for name, value in row.items() if name not in VOLATILE} for row in rows}


def test_who_runs_a_cell_is_no_part_of_it(tmp_path):
    ids = [list(asked(tmp_path, *words).cells) for words in ([], ["executor=toy"], ["executor=toy", "workers=2"])]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) == 2


def test_it_runs_a_sweep_and_leaves_the_records_of_any_other(tmp_path, capfd):
    here = recorded(tmp_path / "toy", "executor=toy", "executor.backwards=true")
    done = [line.split()[1] for line in capfd.readouterr().out.splitlines() if line.startswith("ok ")]
    assert done == [cell(seed, work_s=0).cell_id for seed in (2, 1, 0)]
    assert here == recorded(tmp_path / "local") and len(here) == 3


def test_it_goes_on_where_another_executor_stopped(tmp_path):
    recorded(tmp_path, "executor=local")
    cells = [cell(seed, work_s=0) for seed in range(4)]
    assert run(cells, asked(tmp_path, "executor=toy").settings, session=SESSION) == Outcome(0, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["executor=tyo"], "did you mean 'toy'? valid: local"),
        (["executor=toy", "executor.backward=true"], "did you mean 'executor.backwards'"),
        (["executor.backwards=true"], "executor local has no knob 'executor.backwards'; executor=toy has it"),
        (["executor=toy,local"], "executor says how the whole sweep runs and takes one value"),
        (["executor=toy", "executor.backwards=true,false"], "how the whole sweep runs and takes one value"),
    ],
)
def test_a_name_or_a_knob_that_cannot_be_is_said(tmp_path, words, said):
    with pytest.raises(InputError) as error:
        asked(tmp_path, *words)
    assert said in str(error.value)


def test_what_it_cannot_do_is_said_before_anything_runs(tmp_path):
    settings = asked(tmp_path / "results", "executor=toy", "executor.backwards=3").settings
    with pytest.raises(InputError, match="backwards=3 is not valid: give true or false"):
        run([cell(0)], settings, session=SESSION)
    assert not (tmp_path / "results").exists()
