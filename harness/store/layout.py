"""Every path under a results folder. Whoever wants a file there asks here. Imports no torch.

    cells/<cell_id>.parquet         one row; its presence says that the cell is recorded (harness/store/records.py)
    images/, timings/               the same names, a row an image and a row a timed run
    */compacted-<n>.parquet         the same of many cells, written or put together (harness/store/upkeep.py)
    quarantine/<table>-<file>       damaged files, set aside; in quarantine/examined/ once a repair has seen them
    leases/<2>/<cell_id>.<n>.json   who is running which cell (harness/store/leases.py), by the first 2 digits of its id
    numbers/<n>                     numbers of files of many cells that were given out (harness/store/numbers.py)
    grids/<cell_id>.png             a cell's first images (harness/store/tiles.py); grids/sources/ what they began with
    plans/<plan_id>.json            what a sampler did, once however many cells did the same
    sweeps/<sweep_id>.json          what a command asked for, and how to give it again (harness/store/sweeps.py)

These are names in a `Place`, which may be a bucket. What follows is on this machine's disk, beside them or elsewhere:

    cache/runs/, cache/statistics/  what is dear to compute and can be computed again
    jobs/<job>/                     what was submitted to a cluster, and what it said (harness/executors/slurm/job.py)
    plots/                          figures and tables of reports
    page.html, page-images/         the page of all records (reports/page.py)
    trackers/                       what tracker=NAME writes on this machine (harness/trackers)
    parity/, gits/, learned/, races/, gate/, overhead.parquet    what other commands write unless told otherwise
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

CELL_ID = re.compile(r"[0-9a-f]{16}")
LEASES, GRIDS, PLANS, QUARANTINE, EXAMINED = "leases/", "grids/", "plans/", "quarantine/", "quarantine/examined/"
SWEEPS = "sweeps/"
NUMBERS, COMPACTED = "numbers/", "numbers/compacted"
LEASE = re.compile(rf"{LEASES}[0-9a-f]{{2}}/([0-9a-f]{{16}})\.(\d+)\.json")


def checked_cell_id(cell_id: Any) -> str:
    """`cell_id`; ValueError unless it is one. Its form makes a file name that cannot leave its folder."""
    if not isinstance(cell_id, str) or not CELL_ID.fullmatch(cell_id):
        raise ValueError(f"cell_id={cell_id!r} is not valid: 16 hexadecimal digits")
    return cell_id


# ------------------------------------------------------------------------------------------------ names in a Place


def record(table: str, stem: str) -> str:
    """The file of `table` (cells, images, timings) called `stem`: a cell's id, or compacted-<n> for many cells.

    >>> record("images", "0123456789abcdef")
    'images/0123456789abcdef.parquet'
    """
    return f"{table}/{stem}.parquet"


def records(table: str) -> str:
    """The prefix of the files of a table."""
    return f"{table}/"


def is_record(name: str) -> bool:
    """Whether a file in the folder of a table is one of its own."""
    return name.endswith(".parquet") and _file(name)[0] not in "._"


def table_of(name: str) -> str:
    """The table that a record belongs to."""
    return name.partition("/")[0]


def stem_of(name: str) -> str:
    """A record's file without folder and ending; also of one in the quarantine."""
    return _file(name).removesuffix(".parquet")


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def set_aside(name: str) -> str:
    """Where the damaged record `name` goes."""
    return f"{QUARANTINE}{table_of(name)}-{_file(name)}"


def examined(name: str) -> str:
    """Where a file of the quarantine goes once a repair has seen it."""
    return EXAMINED + _file(name)


def lease(cell_id: str, generation: int) -> str:
    """A cell's lease. Of several, the one with the highest generation is valid."""
    return f"{leases(cell_id)}{generation}.json"


def leases(cell_id: str) -> str:
    """What the names of all leases of a cell begin with. Their folder is small, however many cells are being run."""
    return f"{LEASES}{checked_cell_id(cell_id)[:2]}/{cell_id}."


def number(number: int) -> str:
    """Says that the files of many cells of that number are somebody's."""
    return f"{NUMBERS}{number:06d}"


def grid(cell_id: str) -> str:
    """A cell's first images as one picture."""
    return f"{GRIDS}{checked_cell_id(cell_id)}.png"


def sources(cell_id: str) -> str:
    """What the images of the cell's grid began with."""
    return f"{GRIDS}sources/{checked_cell_id(cell_id)}.png"


def plan(plan_id: str) -> str:
    """A plan's file. ValueError unless its id has the form of a cell's."""
    if not CELL_ID.fullmatch(plan_id):
        raise ValueError(f"plan_id={plan_id!r} is not valid: 16 hexadecimal digits")
    return f"{PLANS}{plan_id}.json"


def sweep(sweep_id: str) -> str:
    """What one command asked for. ValueError unless its id has the form of a cell's."""
    if not CELL_ID.fullmatch(sweep_id):
        raise ValueError(f"sweep_id={sweep_id!r} is not valid: 16 hexadecimal digits")
    return f"{SWEEPS}{sweep_id}.json"


# --------------------------------------------------------------------------------------- folders of this machine


def is_remote(results: object) -> bool:
    """Whether records lie in a bucket; pathlib makes `s3:/bucket` of `s3://bucket`, which is the same one."""
    return scheme(results) == "s3"


def scheme(results: object) -> str:
    """`s3` of `s3://bucket/run`, nothing of a folder; a single letter is a drive.

    >>> scheme("s3://bucket"), scheme("gs:/bucket"), scheme("s3:"), scheme("C:/runs"), scheme("/runs/a:b")
    ('s3', 'gs', 's3', '', '')
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/|$)", str(results))
    return found[1] if found else ""


def beside(results: Path | str) -> Path:
    """The folder of this machine for what belongs to these records: their own, or one named after their bucket.

    >>> beside("s3://bucket/a/run"), beside("/scratch/run")
    (PosixPath('results/bucket-a-run'), PosixPath('/scratch/run'))
    """
    if not is_remote(results):
        return Path(results)
    return Path("results") / "-".join(part for part in str(results).removeprefix("s3:").split("/") if part)


def cache(results: Path | str) -> Path:
    """What can be computed again. Another results folder may use it as well (`borrow_cache`)."""
    return beside(results) / "cache"


def reference_runs(cache: Path) -> Path:
    """Latents that cells are compared with (harness/measure/limits.py)."""
    return cache / "runs"


def statistics(cache: Path) -> Path:
    """Features of reference images (harness/metrics/features/reference_images.py)."""
    return cache / "statistics"


def borrow_cache(of: Path, into: Path) -> None:
    """Let the results folder `into`, which has no cache yet, use that of `of`, unless it cannot be written to."""
    theirs = cache(of).resolve()
    if os.access(theirs, os.W_OK) and not cache(into).exists():
        cache(into).symlink_to(theirs)


def jobs(results: Path | str) -> Path:
    """Jobs of a cluster, a folder each. The machines that run them share it."""
    return beside(results) / "jobs"


def plots(results: Path) -> Path:
    """Figures, unless the user names another folder."""
    return beside(results) / "plots"


def page(results: Path) -> Path:
    """The HTML page of everything recorded; where its pictures are many, page-images/ lies beside it."""
    return beside(results) / "page.html"


def trackers(results: Path) -> Path:
    """What a tracker keeps on this machine: a folder or a database each."""
    return beside(results) / "trackers"


def parity(results: Path) -> Path:
    """Tables of `harness.parity`, one a set of versions."""
    return beside(results) / "parity"


def gits(results: Path, model: str) -> Path:
    """The reference trajectory that `harness.gits` makes of a model."""
    return results / "gits" / f"{model}.json"


def learned(results: Path) -> Path:
    """Plans that `harness.learn` makes, its reports, and in steps/ what it goes on from."""
    return results / "learned"


def races(results: Path) -> Path:
    """How the races of `harness.race` ended, a file each."""
    return results / "races"


def diagnoses(results: Path) -> Path:
    """What `harness.diagnose` found, a file a cell by its id."""
    return results / "diagnoses"


def speed_pairs(results: Path) -> Path:
    """What `harness.bench.speed_gate` timed."""
    return results / "gate" / "pairs.parquet"


def overhead(results: Path) -> Path:
    """What `harness.overhead` timed."""
    return results / "overhead.parquet"
