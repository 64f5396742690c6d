"""Does the embedded world tell samplers apart, as models of photographs do? `python -m harness.bench.ruler`

Runs about a hundred cells of 256 images (what is recorded is not run again), then asks of them what is known of
Stable Diffusion (2302.04867, 2211.01095): first-order samplers need calls, high-order ones fewer, guidance has a
valley. Every difference is paired, image by image, with its 95 % interval. Exit code 1 where a statement does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from harness.errors import interruptible
from harness.models.load import named
from harness.paths import ROOT

IMAGES = 256
CALLS = (5, 8, 10, 20)
FIRST_ORDER = ("euler", "ddim")
HIGH_ORDER = ("unipc", "dpmpp")
SCHEDULES = ("karras", "time_uniform", "trailing")  # a high-order sampler is judged on its better one
GUIDANCE = (1, 2, 3, 5, 8, 12)
CONVERGED = ("sampler=dpmpp", "steps=100")
RANK = 0.8  # Spearman's correlation of FID above the converged run's with the discretisation error
COMMON = (
    *("model=embedded", f"n_images={IMAGES}", "batch_size=32", "timing=off", "reference_count=4096"),
    *("metrics=[fid,clip_score,discretisation,attributes]", "plots=false"),
)


@dataclass(frozen=True)
class Finding:
    """One statement, what was measured, and whether it holds."""

    statement: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Difference:
    """A metric of one cell less that of another, with its paired 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3g} ({self.low:+.3g} … {self.high:+.3g})"


def deterministic() -> list[str]:
    """The samplers of conf/sampler that have a plan of their own, draw no noise and run on any noise process."""
    from samplers import registry

    def fits(name: str) -> bool:
        solver = registry.solver(name)
        own = solver.own_levels or solver.adaptive or name.startswith("flow_")
        return not own and not solver.declares(10).stochastic

    return list(filter(fits, registry.names()))


def customary() -> float:
    """The guidance scale that the embedded model is used with."""
    return float(named("embedded")["default_cfg"])


def command_lines(cfg: float) -> list[list[str]]:
    """What is swept: every deterministic sampler on its customary levels, the two on others, guidance, the limit."""
    calls, at = f"nfe={','.join(map(str, CALLS))}", f"cfg={cfg:g}"
    return [
        [f"sampler={','.join(deterministic())}", calls, at],
        [f"sampler={','.join(HIGH_ORDER)}", f"schedule={','.join(SCHEDULES)}", calls, at],
        ["sampler=dpmpp", "steps=20", f"cfg={','.join(f'{scale:g}' for scale in sorted({*GUIDANCE, cfg}))}"],
        [*CONVERGED, at],
    ]


class Records:
    """The ruler's cells at one guidance scale (and its row of guidance scales), found by what was asked of them."""

    def __init__(self, cells: pd.DataFrame, images: pd.DataFrame, cfg: float) -> None:
        self.cells, self.images, self.cfg = cells, images, cfg

    def cell(self, **asked: object) -> pd.Series:
        """The one cell with these values of its columns."""
        rows = self.cells
        for column, value in asked.items():
            rows = rows[rows[column] == value]
        if len(rows) == 0:
            raise LookupError(f"no cell was recorded with {asked}")
        return rows.iloc[0]

    def best(self, sampler: str, calls: int) -> pd.Series:
        """The cell of a high-order sampler on its better schedule, by FID."""
        rows = self.cells[(self.cells["sampler"] == sampler) & (self.cells["calls"] == calls)]
        return rows.loc[rows[rows["cfg"] == self.cfg]["fid"].idxmin()]

    def difference(self, metric: str, one: pd.Series, other: pd.Series) -> Difference:
        """`one` − `other`, paired by image."""
        from harness.verdict.paired import differences

        two = self.cells[self.cells["cell_id"].isin([one["cell_id"], other["cell_id"]])]
        found = differences(two, self.images, metric, to=other["cell_id"], free=("cfg",))
        row = found[found["cell_id"] == one["cell_id"]].iloc[0]
        return Difference(float(row["difference"]), float(row["low"]), float(row["high"]))


def first_order_needs_calls(records: Records) -> Iterator[Finding]:
    for sampler in FIRST_ORDER:
        for few, more in pairwise(CALLS):
            cells = [records.cell(sampler=sampler, calls=n, own_levels=True) for n in (more, few)]
            change = records.difference("fid", *cells)
            yield Finding(f"FID of {sampler} falls from {few} to {more} calls", str(change), change.high < 0)


def high_order_needs_fewer(records: Records) -> Iterator[Finding]:
    for calls in (8, 10):
        for sampler in HIGH_ORDER:
            own = records.best(sampler, calls)
            for rival in FIRST_ORDER:
                gap = records.difference("fid", own, records.cell(sampler=rival, calls=calls, own_levels=True))
                said = f"FID of {sampler} ({own['schedule']}) is below {rival}'s at {calls} calls"
                yield Finding(said, str(gap), gap.high < 0)
    at_5 = records.cells[(records.cells["calls"] == 5) & ~records.cells["sampler"].isin(FIRST_ORDER)]
    best = at_5.loc[at_5["fid"].idxmin()]
    gap = records.difference("fid", best, records.cell(sampler="ddim", calls=5, own_levels=True))
    said = f"at 5 calls the best high-order sampler ({best['sampler']}, {best['schedule']}) is not above ddim in FID"
    yield Finding(said, str(gap), gap.low <= 0)


def fid_follows_the_error(records: Records) -> Iterator[Finding]:
    from scipy import stats

    limit = records.cell(calls=100)
    # All from 5 to 20 calls: a sampler of two calls a step has 7, 9 and 19 where others have 8, 10 and 20.
    rows = records.cells[records.cells["calls"].between(CALLS[0], CALLS[-1]) & (records.cells["cfg"] == records.cfg)]
    rows = rows[rows["discretisation_error"].notna()]
    rank = stats.spearmanr(rows["fid"] - limit["fid"], rows["discretisation_error"]).statistic
    said = f"FID above the converged run's ranks as the discretisation error does (Spearman, {len(rows)} cells)"
    yield Finding(said, f"{rank:.3f} (wanted ≥ {RANK})", bool(rank >= RANK))


def guidance_has_a_valley(records: Records) -> Iterator[Finding]:
    cells = {cfg: records.cell(sampler="dpmpp", steps=20, cfg=cfg, own_levels=True) for cfg in GUIDANCE}
    lowest = min(GUIDANCE, key=lambda cfg: cells[cfg]["fid"])
    for end in (GUIDANCE[0], GUIDANCE[-1]):
        if lowest == end:
            yield Finding(f"FID has its valley between the ends of CFG, not at {end}", f"lowest at {lowest}", False)
            continue
        wall = records.difference("fid", cells[end], cells[lowest])
        yield Finding(f"FID at CFG {end} is above the valley's at {lowest}", str(wall), wall.low > 0)
    own = records.cell(sampler="dpmpp", steps=20, cfg=records.cfg, own_levels=True)
    rise = records.difference("clip_score", own, cells[1])
    yield Finding(f"CLIP score rises from CFG 1 to {records.cfg:g}", str(rise), rise.low > 0)


def drawings_are_better(records: Records) -> Iterator[Finding]:
    limit, real = float(records.cell(calls=100)["fid"]), drawings().clean[0]
    said = f"FID of {IMAGES} real drawings is below half that of {IMAGES} converged samples"
    yield Finding(said, f"{real:.3g} against {limit:.3g} (ratio {real / limit:.2f})", real < limit / 2)


SLIGHT = (("blur", 0.5, "blur of 0.5 pixels"), ("noise", 2.0, "noise of 2/255"))
GROWING = {"blur": (0.35, 0.5, 0.75, 1.0, 1.5, 2.0), "noise": (1.0, 2.0, 4.0, 8.0, 16.0)}


class Drawings:
    """FID of real drawings, as they are and spoilt, to the reference that the cells are held against."""

    def __init__(self, count: int = IMAGES, reference: int = 4096) -> None:
        from harness.data import load
        from harness.metrics.features import files
        from harness.metrics.features.extractors import EmbeddedExtractor
        from harness.metrics.features.moments import Moments

        data = load.load({"name": "embedded"}, (64, 64))
        self.extractor = EmbeddedExtractor(files.embedded_extractor())
        self.images = data.images(range(count))
        moments = Moments(self.extractor.dim)
        for part in data.reference(reference):
            moments.add(self.extractor(part))
        self.target = moments.gaussian()
        self.clean = self.measured(self.images)

    def measured(self, images) -> tuple[float, np.ndarray]:
        """FID of uint8 images (N, 3, 64, 64) and each image's influence on it (N,)."""
        from harness.metrics.features.moments import frechet_distance, gaussian_of
        from harness.metrics.fid import influence

        features = np.concatenate([self.extractor(part) for part in images.split(64)]).astype(np.float64)
        distance = frechet_distance(gaussian_of(features), self.target)
        return float(distance), influence(features, self.target)

    def spoilt(self, flaw: str, strength: float):
        """The drawings with one flaw of embedded/flaws.py."""
        import torch

        from harness.embedded import flaws

        torch.manual_seed(0)
        images = flaws.FLAWS[flaw][0](self.images.float(), torch.full((len(self.images),), strength))
        return images.clamp(0, 255).round().to(torch.uint8)


@cache
def drawings() -> Drawings:
    """Two statements ask for it, and its reference is four thousand drawings."""
    return Drawings()


def fid_sees_flaws(_: Records) -> Iterator[Finding]:
    """FID grows with each flaw, and sees slight ones at this number of images."""
    from harness import statistics

    real = drawings()
    clean, own = real.clean
    for flaw, strength, words in SLIGHT:
        value, moved = real.measured(real.spoilt(flaw, strength))
        low, high = statistics.mean_interval(moved - own + value - clean, differences=True)
        change = Difference(value - clean, float(low), float(high))
        yield Finding(f"FID sees a {words}", str(change), change.low > 0)
    for flaw, strengths in GROWING.items():
        values = [clean, *(real.measured(real.spoilt(flaw, s))[0] for s in strengths)]
        rising = all(a < b for a, b in pairwise(values))
        said = f"FID grows with {flaw} at {', '.join(f'{s:g}' for s in strengths)}"
        yield Finding(said, ", ".join(f"{v:.3g}" for v in values), rising)


QUESTIONS: tuple[Callable[[Records], Iterator[Finding]], ...] = (
    first_order_needs_calls,
    high_order_needs_fewer,
    fid_follows_the_error,
    guidance_has_a_valley,
    drawings_are_better,
    fid_sees_flaws,
)


def sweep(results: Path, cfg: float, words: Sequence[str] = ()) -> Records:
    """Run what is missing of the ruler's cells at this guidance scale and read them all."""
    from harness.errors import InputError
    from harness.store.records import Store
    from harness.sweep.enumerate import enumerate_cells
    from harness.sweep.run import run
    from harness.verdict.paired import read_cells, read_images

    cells: dict = {}
    for line in command_lines(cfg):
        asked = enumerate_cells([*COMMON, f"results_dir={results}", *words, *line])
        cells.update(asked.cells)
    if run(list(cells.values()), asked.settings).code:
        raise InputError(f"cells of the ruler failed: their reasons are in {results}")
    store = Store(results)
    rows = read_cells(store, list(cells))
    rows["calls"] = rows["nfe"]
    levels = {name: _own_schedule(name) for name in rows["sampler"].unique()}
    rows["own_levels"] = rows["schedule"] == rows["sampler"].map(levels)
    return Records(rows, read_images(store, rows, ["fid", "clip_score"]), cfg)


def _own_schedule(sampler: str) -> str:
    from samplers import registry

    return registry.load(sampler)["default_schedule"]


def ask(records: Records) -> list[Finding]:
    """Every statement, in order."""
    return [finding for question in QUESTIONS for finding in question(records)]


def ladder(records: Records) -> Table:
    """FID of the samplers that people choose between, a column a number of calls."""
    table = Table("FID", *(f"{n} calls" for n in CALLS), header_style="bold")
    for sampler in FIRST_ORDER:
        table.add_row(sampler, *(_fid(records.cell(sampler=sampler, calls=n, own_levels=True)) for n in CALLS))
    for sampler in HIGH_ORDER:
        for schedule in SCHEDULES:
            cells = [records.cell(sampler=sampler, schedule=schedule, calls=n, cfg=records.cfg) for n in CALLS]
            table.add_row(f"{sampler}, {schedule}", *map(_fid, cells))
    return table


def _fid(cell: pd.Series) -> str:
    return f"{cell['fid']:.2f}"


def show(findings: Sequence[Finding]) -> Table:
    table = Table("statement", "measured", "holds", header_style="bold")
    for finding in findings:
        table.add_row(finding.statement, finding.measured, "yes" if finding.holds else "[bold red]no[/]")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "outputs" / "ruler", help="where the cells are kept")
    parser.add_argument("--cfg", type=float, help="guidance scale (default: the model's customary one)")
    parser.add_argument("--json", type=Path, help="write the statements there, too")
    parser.add_argument("words", nargs="*", help="more words of the sweep command, such as workers=2 threads=1")
    given = parser.parse_args()
    records = sweep(given.results, customary() if given.cfg is None else given.cfg, given.words)
    findings = ask(records)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(ladder(records), show(findings))
    held = sum(finding.holds for finding in findings)
    console.print(f"{held} of {len(findings)} statements hold", highlight=False)
    if given.json:
        given.json.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    return 0 if held == len(findings) else 1


if __name__ == "__main__":
    sys.exit(interruptible(main))
