"""What `python -m harness.status` says of records, leases and sweeps that were made up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.bench.fake_cells import cell
from harness.store import layout, places, sweeps
from harness.store.leases import STALE_S, Leases, Owner, running
from harness.store.records import Store
from harness.sweep.status import Look, lines, main

HOUR = 3600.0


def elsewhere() -> Owner:
    return Owner("node7", "another boot", 4321, 1.0, time.time() - 600)


@pytest.fixture
def results(tmp_path) -> Path:
    """Ten cells an hour after they were asked for: five good, three failed for two reasons, one running."""
    cells = [cell(seed) for seed in range(10)]
    store = Store(tmp_path)
    store.check_writable()
    sweeps.keep(store.place, cells, "slurm")
    begun(tmp_path, time.time() - HOUR)
    errors = ["", "", "", "", "", "took 31 s of 30", "took 77 s of 30", "ValueError: bad"]
    for seed, error in enumerate(errors):
        status = {"status": "failed", "error": error} if error else {"status": "ok"}
        store.write({**cells[seed].columns(), **status, "ended_at": time.time() - HOUR + 300 * (seed + 1)})
    lease(tmp_path, cells[8].cell_id, elsewhere())
    return tmp_path


def begun(folder: Path, when: float) -> None:
    (path,) = folder.glob("sweeps/*.json")
    noted = json.loads(path.read_text())
    noted["owner"]["started"] = when
    path.write_text(json.dumps(noted))


def lease(folder: Path, cell_id: str, owner: Owner, age: float = 0.0) -> None:
    path = folder / layout.lease(cell_id, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))


def said(folder: Path) -> str:
    return "\n".join(lines(Look.at(folder)))


def test_it_says_how_far_a_sweep_is_and_how_to_go_on(results):
    text = said(results)
    assert "8 cells recorded, 3 of them failed; 1 running; 1 sweeps not done, 0 done" in text
    assert "10 cells, 5 good, 3 failed, 1 running, 1 not begun; about 10 min left" in text  # 8 in 40 min, 2 left
    assert re.search(r"started 60 min ago by pid \d+ on .*, executor=slurm", text)
    (command,) = re.findall(r"to go on: (cd .*)", text)
    assert os.getcwd() in command and sys.orig_argv[-1] in command


def test_it_says_where_a_cell_runs_since_when_and_when_it_was_heard_of(results):
    (line,) = [line for line in said(results).splitlines() if "node7" in line]
    assert cell(8).cell_id in line and cell(8).label in line
    assert "pid 4321 on node7, for 10 min" in line and re.search(r"heard of \d\.\d s ago$", line)


def test_a_silent_owner_is_called_lost_and_counts_as_nobody(results):
    lease(results, cell(8).cell_id, elsewhere(), age=STALE_S + 60)
    text = said(results)
    assert "heard of 3 min ago: lost" in text and "0 running, 2 not begun; nothing of it is running" in text


def test_a_dead_process_of_this_machine_is_lost_at_once(results):
    lease(results, cell(9).cell_id, Owner(**{**asdict(Owner.me()), "born": 1.0}))
    assert {one.cell_id: one.lost for one in running(places.at(results))} == {
        cell(8).cell_id: False,
        cell(9).cell_id: True,
    }


def test_failures_are_grouped_by_their_reason_whatever_the_numbers(results):
    _, _, part = said(results).partition("failed, by reason:\n")
    first, second = part.splitlines()
    assert first.startswith("  2 × took ") and second.startswith("  1 × ValueError: bad (as in ")


def test_a_sweep_that_is_done_is_counted_and_no_more(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    sweeps.keep(store.place, [cell(0)], "local")
    store.write({**cell(0).columns(), "status": "ok", "ended_at": time.time()})
    assert said(tmp_path).splitlines()[1:] == [] and "0 sweeps not done, 1 done" in said(tmp_path)


def test_files_of_others_break_nothing_and_say_no_terminal_commands(results):
    bad = json.loads(next(results.glob("sweeps/*.json")).read_text())
    bad["command"] = "echo \x1b[31m"
    (results / "sweeps" / "0123456789abcdef.json").write_text(json.dumps(bad))
    (results / "sweeps" / "1123456789abcdef.json").write_text('{"cells": [1]}')
    (results / "sweeps" / "2123456789abcdef.json").write_text("[" * 5000)
    unreadable = results / layout.lease(cell(9).cell_id, 0)
    unreadable.parent.mkdir(parents=True, exist_ok=True)
    unreadable.write_text("no lease")
    text = said(results)
    assert "\x1b" not in text and "by an owner that cannot be read" in text and "2 sweeps not done" in text


def test_a_lease_that_was_taken_over_is_its_new_owners(tmp_path):
    lease(tmp_path, cell(0).cell_id, elsewhere(), age=STALE_S + 1)
    with Leases(tmp_path) as leases:
        assert leases.take(cell(0).cell_id)
        (one,) = running(places.at(tmp_path))
        assert one.owner is not None and one.owner.pid == os.getpid() and not one.lost


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_needs_neither_torch_nor_a_queue(results):
    (results / "jobs" / "a").mkdir(parents=True)
    (results / "jobs" / "a" / "pilot.json").write_text("{}")
    code = "import sys; from harness.sweep.status import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(results)], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": ""},
    )  # fmt: skip
    assert "the queue cannot be asked" in done.stdout and done.stdout.endswith("False\n")
