"""Do our samplers do what the peers' do? The table that `python -m harness.parity` prints.

Every sampler of conf/sampler is run beside every counterpart that diffusers and k-diffusion have, on the same levels,
from the same start, with the same noise and denoiser: in float64 with the peers' float32 casts taken out, and in
float32 with the peers as they are. Known faults of the peers are reproduced one by one (known_differences.py).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from harness.atomic import written_whole
from harness.parity import known_differences
from harness.parity.side_by_side import CHURN, far, ours, theirs
from harness.store import layout
from samplers import registry, schedules
from samplers.core.levels import DiscreteVP, NoiseLevels, Process, RectifiedFlow
from samplers.peers import load as peers
from samplers.peers.counterparts import TABLES, Counterpart, Knobs, NotThere
from samplers.peers.widened import float64
from samplers.registry import Asked, Sampler

LIMITS = {"float64": 1e-12, "stock": 5e-6}
# A method that divides by a small σ' after a long step magnifies rounding (Heun in two steps from σ 15 to 0.03:
# thousandfold), in our float32 as in theirs. A stock run may differ by so many times what ours is off our own float64,
# or by what ours and theirs are off their own together: how a library's exp and log round differs by processor.
ROUNDING = 8.0
STEPS = (1, 2, 3, 10, 20)
ENDS = ("zero", "sigma_min")
# Knobs beside those of the YAML: every knob that a peer has is turned once.
VARIANTS: dict[str, list[Knobs]] = {
    "ddim": [{"eta": 0.7}],
    "ddpm": [{"variance": "fixed_large"}],
    "deis": [{"order": 1}, {"order": 2}, {"lower_order_final": False}],
    "dpm2": [CHURN],
    "dpm2_a": [{"eta": 0.6, "s_noise": 1.01}],
    "dpm_adaptive": [{"order": 2}, {"eta": 0.5}, {"rtol": 0.01, "pcoeff": 0.2, "dcoeff": 0.1}],
    "dpm_fast": [{"eta": 0.5}],
    "dpm_multistep": [{"order": 1}, {"order": 3}, {"solver_type": "heun"}, {"lower_order_final": False}],
    "dpmpp": [{"order": 1}, {"solver_type": "heun"}, {"lower_order_final": False}],
    "dpmpp_2m_sde": [{"solver_type": "heun"}, {"eta": 0.5, "s_noise": 1.01}, {"order": 1}],
    "dpmpp_2s": [{"nodes": "levels"}, {"nodes": "levels", "solver_type": "heun", "lower_order_final": False}],
    "dpmpp_2s_a": [{"eta": 0.6, "s_noise": 1.01}],
    "dpmpp_3m": [{"lower_order_final": False}],
    "dpmpp_3m_sde": [{"eta": 0.5}],
    "dpmpp_3s": [{"nodes": "levels"}, {"nodes": "levels", "solver_type": "heun", "lower_order_final": False}],
    "dpmpp_sde": [{"s_noise": 1.01}, {"eta": 0.6, "r": 0.4}],
    "euler": [CHURN],
    "euler_a": [{"eta": 0.6, "s_noise": 1.01}, {"clock": "flow", "eta": 0.6, "s_noise": 1.01}],
    "heun": [CHURN],
    "lcm": [{"timestep_scaling": 5.0}, {"sigma_data": 0.0}],
    "lms": [{"order": 1}, {"order": 2}, {"order": 3}],
    "plms": [{"warmup": "prk"}],
    "sa_solver": [
        {"tau": 0.0},
        {"tau": 0.5, "s_tmin": 0.2, "s_tmax": 8.0},
        {"predictor_order": 3, "corrector_order": 4},
        {"lower_order_final": False},
    ],
    "tcd": [{"rounding": "diffusers"}, {"rounding": "diffusers", "eta": 0.0}],
    "unipc": [
        {"order": 1},
        {"order": 3},
        {"variant": "bh1"},
        {"corrector": False},
        {"order": 3, "disable_corrector": 2},
        {"lower_order_final": True},
        {"order": 4, "lower_order_final": False},
    ],
}
PASSES = ("agrees", "by design", "absent", "not there")


@dataclass(frozen=True)
class Comparison:
    """One run beside one counterpart. `difference`: largest, over the largest of theirs; NaN where none was run."""

    sampler: str
    knobs: str
    peer: str
    counterpart: str
    precision: str
    end: str
    steps: int
    difference: float
    limit: float
    verdict: str  # agrees | differs | by design | fault gone | absent | not there | no peer
    reason: str


def process(asked: Asked) -> Process:
    flow = str(registry.sampler(asked).default_schedule).startswith("flow")
    return RectifiedFlow() if flow else DiscreteVP.scaled_linear()


@cache
def _levels(flow: bool, schedule: str, steps: int, end: str) -> NoiseLevels:
    return schedules.build(schedule, RectifiedFlow() if flow else DiscreteVP.scaled_linear(), steps, end=end)


def levels_of(asked: Asked, steps: int, end: str) -> NoiseLevels:
    """The sampler's own schedule."""
    sampler = registry.sampler(asked)
    return _levels(isinstance(process(sampler), RectifiedFlow), str(sampler.default_schedule), steps, end)


# ------------------------------------------------------------------------------------------------------- comparisons


def compare(
    names: Sequence[str], precisions: Sequence[str], steps: Sequence[int] = STEPS, peer_names: Sequence[str] = ()
) -> Iterator[Comparison]:
    """Every sampler × variant of knobs × counterpart × precision × end × steps."""
    for name in names:
        for knobs in ({}, *VARIANTS.get(name, [])):
            sampler = registry.sampler({**registry.load(name), **knobs})
            for peer in peer_names or tuple(TABLES):
                yield from _by_peer(sampler, knobs, peer, precisions, steps)


def table(
    names: Sequence[str], precisions: Sequence[str], steps: Sequence[int] = STEPS, peer_names: Sequence[str] = ()
) -> pd.DataFrame:
    return pd.DataFrame([asdict(found) for found in compare(names, precisions, steps, peer_names)])


def _by_peer(
    sampler: Sampler, turned: Knobs, peer: str, precisions: Sequence[str], steps: Sequence[int]
) -> Iterator[Comparison]:
    rows = TABLES[peer].get(sampler.solver.called(), ())
    words = " ".join(f"{key}={value}" for key, value in turned.items())
    if not rows:
        why = f"samplers/peers/counterparts.py knows no counterpart in {peer}"
        yield Comparison(sampler.name, words, peer, "", "", "", 0, math.nan, math.nan, "absent", why)
        return
    missing = _missing(peer)
    all_knobs = sampler.knobs
    for row in rows:
        if missing or row.refusal(all_knobs):
            why, verdict = (missing, "no peer") if missing else (row.refusal(all_knobs), "absent")
            yield Comparison(sampler.name, words, peer, row.name, "", "", 0, math.nan, math.nan, verdict, why)
            continue
        for precision in precisions:
            for end in ENDS:
                for n in steps:
                    found = _one(sampler, row, peer, precision, end, n)
                    if found is not None:
                        yield Comparison(sampler.name, words, peer, row.name, precision, end, n, *found)


def _one(
    sampler: Sampler, row: Counterpart, peer: str, precision: str, end: str, steps: int
) -> tuple[float, float, str, str] | None:
    """(difference, limit, verdict, reason), or None where the two have nothing to compare at these levels."""
    dtype = torch.float64 if precision == "float64" else torch.float32
    try:
        levels = levels_of(sampler, steps, end)
        mine = ours(sampler, levels, dtype)
    except ValueError:
        return None  # no such levels, or none that our sampler takes
    if row.refusal(sampler.knobs, levels):
        return None
    try:
        with float64() if precision == "float64" else nullcontext():
            other = theirs(peer, row, sampler, levels, dtype)
            found = far(mine, other)
    except NotThere as error:
        return math.nan, math.nan, "not there", str(error)
    except Exception as error:
        return math.inf, LIMITS[precision], "differs", f"{row.name} raised {type(error).__name__}: {error}"
    limit, reason = LIMITS[precision], ""
    if row.coarse is not None and precision in row.coarse[0] and found > limit:
        limit, reason = row.coarse[0][precision], row.coarse[1]
    if row.differs is not None and all(sampler.knobs[k] == v for k, v in row.differs.where.items()):
        if steps < row.differs.from_steps:
            return None
        inside = row.differs.low <= found <= row.differs.high
        gone = "fault gone" if found < row.differs.low else "differs"
        return found, row.differs.high, "by design" if inside else gone, row.differs.why
    if precision == "stock" and found > limit:
        with float64():
            peers_own = far(other, theirs(peer, row, sampler, levels, torch.float64))
        own = far(mine, ours(sampler, levels, torch.float64))
        limit = max(limit, ROUNDING * own, 1.1 * (own + peers_own))
        reason = f"this run magnifies rounding: float32 is {own:.1e} off float64 with us, {peers_own:.1e} with the peer"
    return found, limit, "agrees" if found <= limit else "differs", reason


@cache
def _missing(peer: str) -> str:
    """Why this peer cannot be asked at all, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peers.load(peer)
    except ImportError as error:
        return f"{peer} cannot be imported: {error}"
    return ""


# ------------------------------------------------------------------------------------------------- what is shown, kept


def versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "diffusers", "k-diffusion"):
        try:
            found[package.replace("-", "_")] = version(package)
        except PackageNotFoundError:
            found[package.replace("-", "_")] = "none"
    return found


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a sampler, its knobs and counterpart: the largest difference in either precision."""
    keys = ["sampler", "knobs", "peer", "counterpart"]
    table = []
    for key, rows in frame.groupby(keys, sort=False):
        worst = {p: rows.loc[rows["precision"] == p, "difference"].max() for p in LIMITS}
        bad = rows[~rows["verdict"].isin(PASSES)]
        first = (bad if len(bad) else rows.sort_values("reason", key=lambda r: r == "")).iloc[0]
        runs = int(rows["difference"].notna().sum())
        table.append(
            {**dict(zip(keys, key, strict=True)), **worst, "runs": runs} | first[["verdict", "reason"]].to_dict()
        )
    return pd.DataFrame(table)


def show(frame: pd.DataFrame, faults: Sequence[known_differences.Found], console: Console) -> None:
    table = Table(title="sampler beside counterpart: largest relative difference over all runs", title_justify="left")
    for column in ("sampler", "counterpart", "float64", "stock float32", "runs", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for row in summary(frame).to_dict("records"):
        name = f"{row['sampler']} {row['knobs']}".strip()
        if row["verdict"] == "absent":
            continue
        numbers = [f"{row[p]:.1e}" if row[p] == row[p] else "–" for p in LIMITS]
        colour = "" if row["verdict"] in PASSES else "bold red"
        table.add_row(name, row["counterpart"], *numbers, str(row["runs"]), row["verdict"], row["reason"], style=colour)
    console.print(table)
    for peer, rows in frame.groupby("peer"):
        compared = set(rows.loc[rows["verdict"] != "absent", "sampler"])
        without = [name for name in rows["sampler"].unique() if name not in compared]
        console.print(f"no counterpart in {peer}: {', '.join(without) or 'none'}", highlight=False)
    if faults:
        known = Table(title="known differences, reproduced", title_justify="left")
        for column in ("", "where", "what", "found", "expected", "verdict"):
            known.add_column(column, overflow="fold")
        for fault in faults:
            colour = "" if fault.verdict in PASSES else "bold red"
            expected = f"{fault.low:.3g} to {fault.high:.3g}"
            cells = (str(fault.number), fault.where, fault.what, f"{fault.size:.3g}", expected, fault.verdict)
            known.add_row(*cells, style=colour)
        console.print(known)


def write(frame: pd.DataFrame, faults: Sequence[known_differences.Found], out: Path) -> Path:
    """One file a set of versions, so that two releases of a peer lie side by side."""
    extra = pd.DataFrame([fault.row() for fault in faults])
    both = pd.concat([frame, extra], ignore_index=True).assign(**versions())
    named = "_".join(f"{name}-{value}" for name, value in versions().items())
    path = layout.parity(out) / f"{named.replace('+', '-').replace('/', '-')}.parquet"
    with written_whole(path) as file:
        both.to_parquet(file)
    return path
