"""Workers that die, sweeps that are killed or run side by side: real processes, cells that compute nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from harness.bench.fake_cells import SESSION, cell
from harness.errors import InputError
from harness.executors.base import Progress, Record
from harness.executors.local import LocalExecutor
from harness.executors.worker import reason
from harness.store.records import Store

ROOT = Path(__file__).resolve().parents[1]
VOLATILE = ["started_at", "ended_at", "workers", "attempts"]


def run(folder: Path, cells, **options) -> tuple[dict[int, dict], list[Progress]]:
    """Rows by seed, and what was said on the way."""
    messages = list(LocalExecutor(str(folder), session=SESSION, **options).run(cells))
    records = [message for message in messages if isinstance(message, Record)]
    assert len(records) == len(cells)
    return {record.cell["seed"]: record.cell for record in records}, [m for m in messages if isinstance(m, Progress)]


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "harness.bench.fake_cells", str(folder), *words]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *words), cwd=ROOT, capture_output=True, text=True, timeout=600)


def start(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, *words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def until(condition, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def record(folder: Path, count: int) -> Store:
    """What a sweep of so many cells would have recorded, so far as it matters here."""
    store = Store(folder)
    for seed in range(count):
        store.write({**cell(seed).columns(), "status": "ok", "ended_at": 1_900_000_000_000})
    return store


def recorded(folder: Path) -> int:
    return len(list((folder / "cells").glob("[0-9a-f]*.parquet")))


def leftovers(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.tmp"), *(folder / "leases").glob("*/*")]


# ---------------------------------------------------------------------------------------------- one worker that dies


def test_each_kind_of_end_is_one_failed_row_with_its_reason_and_the_others_finish(tmp_path):
    said = {
        "memory": "out of memory (try a smaller batch_size): MemoryError",
        "kill": "the worker process died, 2 times: signal SIGKILL (often the system out of memory",
        "segfault": "the worker process died, 2 times: signal SIGSEGV",
        "exit": "asked the process to exit: SystemExit: 3",
        "os_exit": "the worker process died, 2 times: exit code 4",
        "nan": "ValueError: image 3 is bad",
        "none": "",
    }
    cells = [cell(seed, fault, work_s=0) for seed, fault in enumerate(["none", *said])]
    rows, _ = run(tmp_path, cells)
    for seed, fault in enumerate(["none", *said]):
        assert rows[seed]["status"] == ("ok" if fault == "none" else "failed"), fault
        assert said[fault] in rows[seed].get("error", ""), (fault, rows[seed].get("error"))
    attempts = {cells[seed].model["fault"]: row["attempts"] for seed, row in rows.items()}
    # Tried again: lost workers. Not: what the cell itself brought about.
    assert attempts == {"none": 1, "memory": 1, "exit": 1, "nan": 1, "kill": 2, "segfault": 2, "os_exit": 2}
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_worker_lost_once_costs_nothing(tmp_path):
    rows, words = run(tmp_path, [cell(0, "kill:1", work_s=0), cell(1, work_s=0)])
    assert {row["status"] for row in rows.values()} == {"ok"} and rows[0]["attempts"] == 2
    (word,) = [word for word in words if word.notable]
    assert "SIGKILL" in word.what and "trying again" in word.what


def test_without_retries_a_lost_worker_fails_its_cell(tmp_path):
    rows, _ = run(tmp_path, [cell(0, "kill:1", work_s=0), cell(1, work_s=0)], retries=0)
    assert [rows[seed]["status"] for seed in (0, 1)] == ["failed", "ok"]
    assert rows[0]["error"].startswith("the worker process died: signal SIGKILL")


def test_a_cell_that_takes_too_long_is_ended_and_the_next_one_runs(tmp_path):
    rows, _ = run(tmp_path, [cell(0, "hang", work_s=0), cell(1, work_s=0)], cell_timeout=2)
    assert rows[0]["status"] == "failed" and "cell_timeout=2 s" in rows[0]["error"] and rows[0]["attempts"] == 1
    assert rows[1]["status"] == "ok"


def test_an_idle_worker_that_dies_is_replaced(tmp_path):
    executor, killed = LocalExecutor(str(tmp_path), session=SESSION, retries=0), []

    def claim(one) -> bool:
        """Right before the second cell is given out."""
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                killed.append(child)
                child.kill()
                until(lambda child=child: not alive(child))
        return True

    rows = [m.cell for m in executor.run([cell(0, work_s=0), cell(1, work_s=0)], claim) if isinstance(m, Record)]
    assert [row["status"] for row in rows] == ["ok", "ok"] and len(killed) == 1


def test_memory_errors_of_any_library_are_called_by_their_name():
    class OutOfMemoryError(RuntimeError):
        """As torch's is."""

    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    for error in (MemoryError(), OutOfMemoryError("CUDA out of memory"), cpu):
        assert reason(error).startswith("out of memory (try a smaller batch_size): ")
    assert reason(ValueError("bad")) == "ValueError: bad"


# ------------------------------------------------------------------------------------------------- timed in turn


def timed(seed: int, fault: str = "none"):
    return cell(seed, work_s=0, timing="quick", sampler={"name": "fake", "timing_fault": fault})


def blocks(folder: Path, cells, **options) -> tuple[dict[int, dict], dict[int, int], list[Progress]]:
    """Rows by seed, the seed of the first cell of each one's block, and what was said."""
    messages = list(LocalExecutor(str(folder), session=SESSION, **options).run(cells))
    seed = {c.cell_id: c.seed for c in cells}
    records = [message for message in messages if isinstance(message, Record)]
    found = {r.cell["seed"]: seed[r.timings[0]["block"]] for r in records if r.timings}
    words = [message for message in messages if isinstance(message, Progress)]
    return {r.cell["seed"]: r.cell for r in records}, found, words


def test_cells_of_one_model_are_timed_in_turn_and_others_are_not(tmp_path):
    other = cell(3, "none", work_s=0.001, timing="quick")  # another model
    rows, found, _ = blocks(tmp_path, [timed(0), timed(1), timed(2), other])
    assert found == {0: 0, 1: 0, 2: 0, 3: 3} and {row["status"] for row in rows.values()} == {"ok"}


def test_workers_that_share_a_processor_time_each_cell_by_itself(tmp_path):
    _, found, _ = blocks(tmp_path, [timed(seed) for seed in range(4)], workers=2)
    assert found == {seed: seed for seed in range(4)}


def test_a_worker_lost_while_it_times_several_fails_the_guilty_cell_alone(tmp_path):
    cells = [timed(0), timed(1, "kill"), timed(2)]
    rows, found, words = blocks(tmp_path, cells, retries=0)
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "ok", 1: "failed", 2: "ok"}
    assert "SIGKILL" in rows[1]["error"] and {row["attempts"] for row in rows.values()} == {1}
    assert found == {0: 0, 2: 2} and "one by one" in next(word.what for word in words if word.notable)


def test_an_error_while_several_are_timed_is_that_of_the_cell_at_hand(tmp_path):
    rows, _, _ = blocks(tmp_path, [timed(0, "nan:1"), timed(1)])
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "failed", 1: "ok"}


def test_a_hang_while_several_are_timed_fails_the_guilty_cell_alone(tmp_path):
    rows, found, _ = blocks(tmp_path, [timed(0), timed(1, "hang"), timed(2)], cell_timeout=2)
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "ok", 1: "failed", 2: "ok"}
    assert "cell_timeout=2 s" in rows[1]["error"] and found == {0: 0, 2: 2}


# --------------------------------------------------------------------------------------------------- several workers


def test_two_workers_run_side_by_side_and_record_what_one_does(tmp_path):
    cells = [cell(seed, work_s=0.05) for seed in range(8)]
    one, _ = run(tmp_path / "one", cells)
    running, most, two = set(), 0, {}
    for message in LocalExecutor(str(tmp_path / "two"), workers=2, session=SESSION).run(cells):
        if isinstance(message, Progress):
            running.add(message.cell_id)
            most = max(most, len(running))
        else:
            running.discard(message.cell["cell_id"])
            two[message.cell["seed"]] = message.cell
    assert most == 2 and {row["workers"] for row in two.values()} == {2}
    for seed, row in one.items():
        assert {k: v for k, v in row.items() if k not in VOLATILE} == {
            k: v for k, v in two[seed].items() if k not in VOLATILE
        }


def test_each_device_has_its_own_worker(tmp_path):
    cells = [cell(seed, work_s=0.1, device=device) for seed in (0, 1) for device in ("cuda:0", "cuda:1", "cuda")]
    order, running, together = [], set(), set()
    for message in LocalExecutor(str(tmp_path), session=SESSION).run(cells):
        device = {c.cell_id: c.device for c in cells}[
            message.cell_id if isinstance(message, Progress) else message.cell["cell_id"]
        ]
        if isinstance(message, Progress):
            running.add(device)
            together.add(frozenset(running))
        else:
            running.discard(device)
            order.append(device)
    assert len(order) == 6
    assert any({"cuda:1"} < devices for devices in together)
    assert not any({"cuda", "cuda:0"} <= devices for devices in together), "cuda is cuda:0"


def test_cells_that_are_refused_do_not_run(tmp_path):
    cells = [cell(seed, work_s=0) for seed in range(4)]
    messages = LocalExecutor(str(tmp_path), session=SESSION).run(cells, lambda c: c.seed % 2 == 0)
    assert [message.cell["seed"] for message in messages if isinstance(message, Record)] == [0, 2]


# ---------------------------------------------------------------------------------------------------- whole sweeps


def test_two_sweeps_share_the_work(tmp_path):
    words = ("--cells", "30", "--work", "0.05")
    first, second = start(tmp_path, *words), start(tmp_path, *words)
    outs = [process.communicate(timeout=600) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    ran = [{line.split()[1] for line in out.splitlines() if line.startswith("ok ")} for out, _ in outs]
    assert len(ran[0]) + len(ran[1]) == 30 and not ran[0] & ran[1] and min(map(len, ran)) > 0
    assert len(pd.read_parquet(tmp_path / "cells")) == 30 and not leftovers(tmp_path)


def test_a_sweep_waits_for_the_cell_that_another_runs_and_takes_it_over_when_that_one_is_killed(tmp_path):
    first = start(tmp_path, "--cells", "2", "--fault", "hang:1")
    until(lambda: recorded(tmp_path) == 1 and len(list((tmp_path / "leases").glob("*/*.json"))) == 1)
    second = start(tmp_path, "--cells", "2", "--fault", "hang:1")
    line = next(line for line in second.stdout if "another sweep" in line)
    assert f"being run by pid {first.pid}" in line
    first.kill()
    first.wait()
    out, _ = second.communicate(timeout=600)
    assert second.returncode == 0 and "1 cells run, 1 already recorded" in out
    assert len(Store(tmp_path).recorded()) == 2 and not leftovers(tmp_path)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_leaves_nothing_behind(tmp_path, how, code):
    process = start(tmp_path, "--cells", "200", "--work", "0.05", "--workers", "2")
    until(lambda: recorded(tmp_path) >= 3)
    workers = psutil.Process(process.pid).children()
    process.send_signal(how)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code and "goes on from here" in err and "Traceback" not in out + err
    assert not leftovers(tmp_path)
    until(lambda: not [worker for worker in workers if alive(worker)])
    assert set(Store(tmp_path).recorded().values()) == {"ok"}


def test_workers_do_not_outlive_a_killed_sweep(tmp_path):
    process = start(tmp_path, "--cells", "2", "--fault", "hang", "--workers", "2")
    until(lambda: recorded(tmp_path) == 1)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    until(lambda: not [worker for worker in workers if alive(worker)])


def test_a_disk_that_fills_ends_the_sweep_with_one_line_and_loses_no_record(tmp_path):
    store = record(tmp_path, 2)
    done = sweep(tmp_path, "--cells", "6", "--workers", "2", "--largest-file", "20000")
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "cannot write to results_dir=" in line and "File too large" in line
    assert len(store.recorded()) == 2 and not leftovers(tmp_path)


def test_force_runs_again_what_is_recorded_and_keeps_one_row(tmp_path):
    before = record(tmp_path, 3).versions()
    assert "3 cells run" in sweep(tmp_path, "--cells", "3", "--force").stdout
    after = Store(tmp_path).versions()
    assert before.keys() == after.keys() and all(before[key] != after[key] for key in before)
    assert len(pd.read_parquet(tmp_path / "cells")) == 3


def test_what_failed_is_tried_again_and_what_is_recorded_is_not(tmp_path):
    words = ("--cells", "2", "--fault", "kill:1", "--retries", "0")
    assert sweep(tmp_path, *words).returncode == 1
    before = Store(tmp_path).versions()
    again = sweep(tmp_path, *words)
    assert again.returncode == 0 and "1 cells run, 1 already recorded" in again.stdout
    after = Store(tmp_path).versions()
    assert [key for key in after if after[key] == before[key]] == [cell(0).cell_id]
    assert set(Store(tmp_path).recorded().values()) == {"ok"}


# ---------------------------------------------------------------------------------------- records that do not fit


def test_a_record_that_does_not_fit_fails_its_own_cell_in_the_worker(tmp_path):
    rows, _ = run(tmp_path, [cell(0), cell(1, "column"), cell(2, "type"), cell(3)])
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "ok", 1: "failed", 2: "failed", 3: "ok"}
    assert "'colour' is not a column of cells" in rows[1]["error"] and "steps_run" in rows[2]["error"]


def test_a_record_arrives_with_plain_values_alone(tmp_path):
    records = [m for m in LocalExecutor(str(tmp_path), session=SESSION).run([cell(0, "subclass")]) if _is_record(m)]
    (one,) = records
    assert one.cell["torch_version"] == "2.0"
    values = [v for row in (one.cell, *one.images, *one.timings) for v in row.values()]
    assert {type(value) for value in values} <= {str, int, float, bool, type(None), list}


def _is_record(message) -> bool:
    return isinstance(message, Record)


@pytest.mark.parametrize("end", [KeyboardInterrupt, InputError("no worker could be started")])
def test_what_waits_to_be_written_with_others_is_written_when_the_sweep_is_cut_off(tmp_path, end):
    from harness.executors.share import run_shared

    class CutOff:
        def run(self, cells, claim):
            for one in cells[:2]:
                assert claim(one)
                yield Record({**one.columns(), "status": "ok"}, [{"image_index": 0}], more=True)
            raise end

    store = Store(tmp_path)
    store.check_writable()
    with pytest.raises(type(end) if isinstance(end, Exception) else end):
        list(run_shared(CutOff(), store, [cell(0), cell(1), cell(2)], {}))
    assert sorted(store.recorded()) == sorted(cell(seed).cell_id for seed in range(2))
    assert not list((tmp_path / "leases").rglob("*.json"))


def test_an_executor_that_sends_what_does_not_fit_costs_that_cell_alone(tmp_path):
    """Another executor may not check its records: the parent does not fall over one of them."""
    from harness.executors.share import run_shared

    class Unchecked:
        def run(self, cells, claim):
            for one in cells:
                assert claim(one)
                odd = {"colour": "red"} if one.seed == 1 else {}
                yield Record({**one.columns(), "status": "ok", **odd}, [{"image_index": 0}])

    store = Store(tmp_path)
    store.check_writable()
    messages = list(run_shared(Unchecked(), store, [cell(0), cell(1), cell(2)], {}))
    assert [message.cell["status"] for message in messages] == ["ok", "failed", "ok"]
    assert sorted(store.recorded().values()) == ["failed", "ok", "ok"]
    assert "'colour' is not a column" in store.rows([cell(1).cell_id])[0]["error"]
    assert len(store.images(["cell_id"])) == 2
