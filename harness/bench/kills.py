"""What a sweep survives: `python -m harness.bench.kills --kills 200`, or in a bucket: `--results s3://BUCKET/NAME`.

Cells that compute nothing (bench/fake_cells.py) run through the real sweep, with two workers and compactions on the
way, in rounds: workers and the sweep itself are killed (SIGKILL) at random moments, the same command is started again,
and so on until the round's cells are done. After every kill all files are read. At the end the table must equal that of
a sweep nobody disturbed. Then a disk that fills, a read-only folder, cut files, and every fault of a worker.
In a bucket (each round under a name of its own, which stays) it is the kills alone, and records are never compacted.
`--state FILE` keeps finished rounds, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.parquet as pq

from harness.bench.fake_cells import FAULTS, IMAGES
from harness.errors import interruptible
from harness.paths import ROOT
from harness.store import layout, places
from harness.store.place import Place
from harness.store.records import Store
from harness.store.schema import TABLES

CELLS, WORK_S, WORKERS, COMPACT_EVERY = 80, 0.02, 2, 15
LONGEST_S = 0.25  # between two kills
WELL = ("none", "subclass")  # faults whose cell is recorded as good: a value of a library's own type is made plain
VOLATILE = ["started_at", "ended_at", "attempts", "workers"]


@dataclass
class Tally:
    """What a round of kills did and found."""

    parents: int = 0
    workers: int = 0
    damaged: int = 0
    duplicates: int = 0
    forgotten: int = 0  # cells whose record was announced and is not there
    most_lost: int = 0  # cells that one kill of a sweep cost, of WORKERS running
    problems: list[str] = field(default_factory=list)


Results = Path | str  # a folder, or the address of a bucket


def sweep(folder: Results, *words: str, cells: int = CELLS, **options: Any) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "harness.bench.fake_cells",
        str(folder),
        "--cells",
        str(cells),
        "--workers",
        str(WORKERS),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--work", str(WORK_S), *words], cwd=ROOT, env=environment, **pipes, **options)


def finished(folder: Results, *words: str, cells: int = CELLS) -> tuple[int, str]:
    """Exit code and all output of a sweep left alone."""
    process = sweep(folder, *words, cells=cells)
    out, err = process.communicate()
    return process.returncode, out + err


def table(folder: Results) -> dict[str, pd.DataFrame]:
    """Everything recorded that does not depend on the moment."""
    store = Store(folder)
    frames = {"cells": store.cells(), "images": store.images(), "timings": store.timings()}
    found = {}
    for name, frame in frames.items():
        keys = [key for key in ("cell_id", "image_index", "run") if key in frame]
        frame = frame.drop(columns=[column for column in VOLATILE if column in frame])
        found[name] = frame.sort_values(keys).reset_index(drop=True)
    return found


def same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> bool:
    return all(one[name].equals(other[name]) for name in TABLES)


# ------------------------------------------------------------------------------------------------------------ kills


def kill_round(seed: int, most: int, undisturbed: dict[str, pd.DataFrame], results: str | None = None) -> Tally:
    """One sweep, killed and started again until it is done or `most` kills were made; then finished and compared.

    In a folder that is removed, or under a name of this round in the bucket `results`.
    """
    chance, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as name:
        folder: Results = f"{results}/{seed}-{uuid.uuid4().hex[:6]}" if results else Path(name)
        place = places.at(folder)
        compacts = ("--compact-every", str(COMPACT_EVERY)) if place.lockable else ()
        announced: set[str] = set()
        while tally.parents + tally.workers < most:
            process = sweep(folder, *compacts)
            _disturb(process, chance, tally, most)
            out, _ = process.communicate()
            announced |= {line.split()[1] for line in out.splitlines() if line.startswith("ok ")}
            _inspect(place, announced, tally)
            if process.returncode == 0:
                break
        code, said = finished(folder)
        if code == 1:  # a cell whose worker was killed each time it was tried
            code, said = finished(folder)
        if code != 0:
            tally.problems.append(f"did not finish: {said[-300:]}")
        if not same(table(folder), undisturbed):
            tally.problems.append("the table differs from the undisturbed one")
        tally.problems += [f"left over: {name}" for name in place.below(layout.LEASES)]
    return tally


def _disturb(process: subprocess.Popen[str], chance: random.Random, tally: Tally, most: int) -> None:
    """Kill up to three workers, then the sweep, at random moments after the first worker is there."""
    while process.poll() is None and not _workers(process):
        time.sleep(0.005)
    for _ in range(chance.randint(0, 3)):
        time.sleep(chance.uniform(0, LONGEST_S))
        found = _workers(process)
        if found and tally.parents + tally.workers < most:
            with suppress(psutil.NoSuchProcess):
                chance.choice(found).kill()
                tally.workers += 1
    time.sleep(chance.uniform(0, LONGEST_S))
    if process.poll() is None and tally.parents + tally.workers < most:
        process.kill()
        tally.parents += 1


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    return []


def _inspect(place: Place, announced: set[str], tally: Tally) -> None:
    """Read every file there is; count what must not be."""
    for name in (name for table in TABLES for name in place.names(layout.records(table))):
        try:
            with place.open(name) as source:
                pq.ParquetFile(source).read()
        except Exception as error:
            tally.damaged += 1
            tally.problems.append(f"{name}: {error}")
    store = Store(place)
    cells, images, timings = store.cells(), store.images(["cell_id"]), store.timings(["cell_id"])
    good = cells[cells["status"] == "ok"]["cell_id"]
    tally.duplicates += int(cells["cell_id"].duplicated().sum())
    for frame, expected in ((images, IMAGES), (timings, 2)):
        counts = frame["cell_id"].value_counts()
        tally.duplicates += int((counts > expected).sum())
        tally.forgotten += sum(1 for cell_id in good if counts.get(cell_id, 0) < expected)
    tally.forgotten += len(announced - set(cells["cell_id"]))
    running = {match[1] for match in map(layout.LEASE.fullmatch, place.below(layout.LEASES)) if match}
    tally.most_lost = max(tally.most_lost, len(running - set(cells["cell_id"])))


def kills(
    count: int, seed: int, state: Path | None, undisturbed: dict[str, pd.DataFrame], results: str | None = None
) -> Tally:
    done = [Tally(**json.loads(line)) for line in state.read_text().splitlines()] if state and state.exists() else []
    while (made := sum(tally.parents + tally.workers for tally in done)) < count:
        done.append(kill_round(seed + len(done), count - made, undisturbed, results))
        if state:
            with state.open("a") as file:
                file.write(json.dumps(asdict(done[-1])) + "\n")
        print(f"  {made + done[-1].parents + done[-1].workers} kills in {len(done)} sweeps", file=sys.stderr)
    total = Tally(most_lost=max(tally.most_lost for tally in done))
    for name in ("parents", "workers", "damaged", "duplicates", "forgotten", "problems"):
        for tally in done:
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    return total


# ------------------------------------------------------------------------------------------------------ other faults


@contextmanager
def small_disk() -> Iterator[tuple[Path, bool]]:
    """A folder on a disk of 4 MiB, and True; where none can be mounted, any folder and False."""
    with tempfile.TemporaryDirectory() as name:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", name], capture_output=True)
        try:
            yield Path(name), mounted.returncode == 0
        finally:
            if mounted.returncode == 0:
                subprocess.run(["umount", name], check=True)


def expect(problems: list[str], good: bool, what: str) -> None:
    if not good:
        problems.append(what)


def full_disk(undisturbed: dict[str, pd.DataFrame]) -> tuple[str, list[str]]:
    problems: list[str] = []
    with small_disk() as (disk, mounted):
        folder = disk / "results"
        expect(problems, finished(folder, cells=10)[0] == 0, "the first ten cells did not run")
        filler = disk / "filler"
        if mounted:
            free = os.statvfs(disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 300_000))
        code, said = finished(folder, *(() if mounted else ("--largest-file", "20000")))
        line = next((line for line in said.splitlines() if line.startswith("error:")), "")
        expect(problems, code == 2 and ("No space left" in line or "too large" in line), f"code {code}: {said[-200:]}")
        expect(problems, not list(folder.rglob(".*.tmp")), "temporary files are left")
        kept = Store(folder).recorded()
        expect(problems, len(kept) >= 10 and set(kept.values()) == {"ok"}, f"kept {kept}")
        filler.unlink(missing_ok=True)
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        expect(problems, finished(folder)[0] == 0 and same(table(folder), undisturbed), "the resumed table differs")
    return f"{line[:60]}…, {len(kept)} cells kept ({'tmpfs' if mounted else 'file size limit'})", problems


def read_only(undisturbed: dict[str, pd.DataFrame]) -> tuple[str, list[str]]:
    problems: list[str] = []
    with small_disk() as (disk, mounted):
        folder = disk / "results"
        finished(folder, cells=10)
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro,size=64m", str(disk)], check=True)
        elif os.geteuid() == 0:
            return "not tried: nothing can be mounted, and nothing is read-only to root", []
        else:
            for path in [folder, *folder.iterdir()]:
                path.chmod(0o555)
        code, said = finished(folder)
        line = next((line for line in said.splitlines() if line.startswith("error:")), "")
        expect(problems, code == 2 and "cannot write to" in line, f"code {code}: {said[-200:]}")
        expect(problems, len(Store(folder).recorded()) == 10, "records were lost")
        if mounted:
            subprocess.run(["mount", "-o", "remount,rw,size=64m", str(disk)], check=True)
        else:
            for path in [folder, *folder.iterdir()]:
                path.chmod(0o755)
        expect(problems, finished(folder)[0] == 0 and same(table(folder), undisturbed), "the resumed table differs")
    return f"{line[:60]}…", problems


def cut_files(undisturbed: dict[str, pd.DataFrame]) -> tuple[str, list[str]]:
    """A record cut short is restored from its images; images cut short cost their cell; both are said."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finished(folder)
        records, images = (sorted((folder / part).glob("[0-9a-f]*.parquet")) for part in ("cells", "images"))
        for path in (records[0], records[1], images[2]):
            os.truncate(path, path.stat().st_size // 2)
        (folder / "images" / records[1].name).unlink()
        repair = subprocess.run(
            [sys.executable, "-m", "harness.store", "repair", str(folder)], cwd=ROOT, capture_output=True, text=True
        )
        counts = [repair.stderr.count("damaged record"), repair.stdout.count("restored:")]
        counts.append(repair.stdout.count("must run again"))
        expect(problems, repair.returncode == 1 and counts == [3, 1, 2], f"{counts}: {repair.stdout}{repair.stderr}")
        code, said = finished(folder)
        expect(problems, code == 0 and "2 cells run" in said, said[-300:])
        expect(problems, same(table(folder), undisturbed), "the table differs")
    return f"{counts[0]} said, {counts[1]} restored, {counts[2]} run again", problems


def broken_worker(fault: str) -> tuple[str, list[str]]:
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, said = finished(folder, "--fault", fault, "--timeout", "2", cells=6)
        rows = Store(folder).cells()
        bad = rows[rows["status"] == "failed"]
        expect(
            problems, code == 1 and len(rows) == 6 and len(bad) == 1, f"code {code}, {len(rows)} rows: {said[-300:]}"
        )
        expect(problems, not list(folder.rglob(".*.tmp")), "temporary files are left")
        return str(bad["error"].iloc[0])[:90] if len(bad) else "", problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="file that keeps finished rounds")
    parser.add_argument("--results", metavar="s3://BUCKET/NAME", help="make the kills there, and no other faults")
    asked = parser.parse_args()
    began, bad = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name:
        code, said = finished(Path(name))
        if code != 0:
            print(said, file=sys.stderr)
            return 2
        undisturbed = table(Path(name))
    tally = kills(asked.kills, asked.seed, asked.state, undisturbed, asked.results)
    print(f"{tally.parents} kills of the sweep and {tally.workers} of a worker, at random moments:")
    for what, count in {
        "damaged files": tally.damaged,
        "duplicate cells": tally.duplicates,
        "announced records missing": tally.forgotten,
        f"most cells lost by one kill ({WORKERS} were running)": tally.most_lost,
    }.items():
        print(f"  {what}: {count}")
    bad += tally.damaged + tally.duplicates + tally.forgotten + (tally.most_lost > WORKERS) + len(tally.problems)
    print("  resumed tables equal the undisturbed one" if not tally.problems else f"  PROBLEMS: {tally.problems}")
    of_folders: dict[str, Callable[[], tuple[str, list[str]]]] = {
        "a disk that fills": lambda: full_disk(undisturbed),
        "a read-only folder": lambda: read_only(undisturbed),
        "cut files": lambda: cut_files(undisturbed),
        **{f"worker: {fault}": (lambda fault=fault: broken_worker(fault)) for fault in FAULTS if fault not in WELL},
    }
    for name, attempt in () if asked.results else of_folders.items():
        outcome, problems = attempt()
        print(f"{name}: {'as it should be' if not problems else f'PROBLEMS: {problems}'} ({outcome})")
        bad += len(problems)
    print(f"{time.perf_counter() - began:.0f} s in all; {'nothing was lost' if not bad else f'{bad} problems'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
