"""Leases: a cell belongs to one process at a time, whoever dies, sleeps or comes at the same moment."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.store import layout
from harness.store.leases import STALE_S, Leases

ROOT = Path(__file__).resolve().parents[1]
CELL, OTHER = "00000000000000aa", "00000000000000bb"


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "leases").glob("*/*"))


def elsewhere(leases: Leases) -> Leases:
    """A holder that this machine cannot look up: only its age speaks."""
    leases.owner = replace(leases.owner, machine="another machine", host="far")
    return leases


def age(root: Path, seconds: float) -> None:
    for path in (root / "leases").glob("*/*.json"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_cell_is_held_once_and_given_back(tmp_path):
    with Leases(tmp_path) as one, Leases(tmp_path) as other:
        assert one.take(CELL) and not other.take(CELL) and other.take(OTHER)
        assert one.holds(CELL) and not other.holds(CELL)
        assert other.other(CELL).pid == os.getpid() and one.other(CELL) is None
        one.release(CELL)
        assert other.take(CELL)
    assert files(tmp_path) == []


def test_leaving_gives_back_what_is_held_also_by_an_exception(tmp_path):
    with pytest.raises(KeyboardInterrupt), Leases(tmp_path) as leases:
        leases.take(CELL)
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_a_lease_goes_stale_by_age_alone(tmp_path):
    with elsewhere(Leases(tmp_path)) as far, Leases(tmp_path) as near:
        assert far.take(CELL)
        age(tmp_path, STALE_S - 10)
        assert not near.take(CELL)
        age(tmp_path, STALE_S + 10)
        assert near.take(CELL)
        # It was asleep, not dead: it finds that the cell is no longer its own, and gives back nothing of ours.
        assert not far.holds(CELL) and near.holds(CELL)
        far.release(CELL)
        assert near.holds(CELL)


def test_the_heartbeat_keeps_it_fresh(tmp_path):
    with elsewhere(Leases(tmp_path, beat_s=0.01)) as far, Leases(tmp_path) as near:
        far.take(CELL)
        age(tmp_path, STALE_S + 10)
        path = next((tmp_path / "leases").glob("*/*.json"))
        until(lambda: time.time() - path.stat().st_mtime < STALE_S / 2)
        assert not near.take(CELL)


DIES = """
import os, signal, sys
from harness.store.leases import Leases
leases = Leases(sys.argv[1]).__enter__()
assert leases.take(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path), CELL], cwd=ROOT)
    with Leases(tmp_path, stale_s=1e9):
        assert files(tmp_path) == []  # cleared on the way in
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path), CELL], cwd=ROOT)
    leases = Leases(tmp_path, stale_s=1e9)
    assert len(files(tmp_path)) == 1 and leases.take(CELL)


def test_a_pid_that_was_given_again_is_not_its_old_owner(tmp_path):
    with Leases(tmp_path) as old, Leases(tmp_path) as new:
        old.owner = replace(old.owner, born=old.owner.born - 1000)  # our pid, in the life of another process
        assert old.take(CELL) and new.take(CELL)


def race(root: str, barrier, won) -> None:
    leases = Leases(root)
    for round_ in range(40):
        cell = f"{round_:016x}"
        barrier.wait()
        if leases.take(cell):
            won.put((round_, os.getpid()))
        barrier.wait()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_wins(tmp_path, stale):
    (tmp_path / "leases").mkdir()
    if stale:
        dead = elsewhere(Leases(tmp_path))
        assert all(dead.take(f"{round_:016x}") for round_ in range(40))
        age(tmp_path, STALE_S + 10)
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(4), context.SimpleQueue()
    racers = [context.Process(target=race, args=(str(tmp_path), barrier, won)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winners = []
    while not won.empty():
        winners.append(won.get()[0])
    assert sorted(winners) == list(range(40))
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_a_lease_that_cannot_be_read_counts_by_its_age(tmp_path):
    with Leases(tmp_path) as leases:
        (tmp_path / "leases" / CELL[:2]).mkdir()
        (tmp_path / layout.lease(CELL, 0)).write_text("half a li")
        assert not leases.take(CELL)
        age(tmp_path, STALE_S + 10)
        assert leases.take(CELL)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*leases"):
        Leases(tmp_path / "file").__enter__()


def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
