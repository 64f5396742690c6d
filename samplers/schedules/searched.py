"""Schedules found by optimisation for a model: published tables (AYS), and a search over a stored trajectory (GITS)."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from samplers.core.levels import DiscreteVP, NoiseLevels, Process
from samplers.schedules.ramp import ENDS, above, checked, from_ratios, one_of

# Align Your Steps (2404.14507), 10 steps: timesteps of Stable Diffusion's training schedule, and σ of the video model.
AYS_TIMES = {
    "sd": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
AYS_SIGMAS = {"svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)}

MOST_BYTES, MOST_LEVELS = 64 << 20, 4000  # limits of a trajectory's file, whose table has a number per pair of levels

SHIPPED = Path(__file__).resolve().parent / "data"


def ays(process: Process, steps: int, *, table: str = "sd", end: str = "zero") -> NoiseLevels:
    """Align Your Steps (2404.14507): levels that bound the error of 10 steps, found for Stable Diffusion, SDXL or SVD.

    Other numbers of steps interpolate log σ over the index, as the authors do. On a model whose trained range is not
    the table's, the table is stretched in log σ.
    """
    to_zero = one_of("end", end, ENDS) == "zero"
    if one_of("table", table, (*AYS_TIMES, *AYS_SIGMAS)) in AYS_SIGMAS:
        logs = np.log(AYS_SIGMAS[table])
    else:
        logs = np.log(DiscreteVP.scaled_linear().ratio(np.array(AYS_TIMES[table])))
    # N+1 points of which the last is the end: N = 10 is the table itself, whichever end.
    where = np.linspace(0, len(logs) - 1, checked(steps) + 1)
    ratios = _stretched(process, np.interp(where, np.arange(len(logs)), logs), logs)
    return from_ratios(process, ratios[:-1] if to_zero else ratios, end)


def gits(
    process: Process,
    steps: int,
    *,
    file: str = "embedded",
    sha256: str | None = None,
    coeff: float = 1.15,
    end: str = "zero",
) -> NoiseLevels:
    """The N jumps of least cost along a reference trajectory (GITS, 2405.11326), by dynamic programming.

    `file` is what `python -m harness.gits` wrote for a model, or the name of one that ships with the project. A jump
    costs the distance between where an Euler step lands and where the trajectory is, and counts `coeff` times as much
    as the jump before it (the paper's γ). On a model with another trained range the levels are stretched in log σ.
    `sha256`: digest that the file must have, so that a record names what it was made with.
    """
    to_zero = one_of("end", end, ENDS) == "zero"
    trajectory = _read(_data(file, sha256))
    last = len(trajectory.ratios) - (1 if to_zero else 2)
    if checked(steps) > last:
        raise ValueError(
            f"the trajectory {file!r} of the gits schedule has {len(trajectory.ratios)} levels: at most {last} steps "
            f"with end={end}"
        )
    path = cheapest_path(trajectory.cost[: last + 1, : last + 1], steps, above("coeff", coeff))
    logs = np.log(trajectory.ratios[:-1])
    ratios = _stretched(process, logs[path[:-1] if to_zero else path], logs)
    return from_ratios(process, ratios, end)


class Trajectory(NamedTuple):
    """Ratios (M,) of a reference trajectory, falling to 0, and cost (M, M) of an Euler jump from row to column."""

    ratios: np.ndarray
    cost: np.ndarray


def settle(*, file: str, sha256: str | None = None) -> dict[str, str]:
    """The knobs with the digest filled in: what identifies a run is what is in the file, not what it is called."""
    return {"file": file, "sha256": hashlib.sha256(_data(file, sha256)).hexdigest()}


def _data(file: str, sha256: str | None) -> bytes:
    """The content of a trajectory file, a shipped one where `file` is a bare name. ValueError in one line."""
    path = SHIPPED / f"gits_{file}.json" if Path(file).name == file and "." not in file else Path(file).expanduser()
    if not path.is_file():
        shipped = ", ".join(sorted(known.stem.removeprefix("gits_") for known in SHIPPED.glob("gits_*.json")))
        raise ValueError(
            f"schedule.file={file!r} of the gits schedule is not there: give what `python -m harness.gits` wrote, or "
            f"the name of a shipped one ({shipped})"
        )
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"the trajectory {file!r} of the gits schedule has {path.stat().st_size >> 20} MiB: too many")
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"the trajectory {file!r} of the gits schedule is not the one with sha256 {sha256}")
    return data


@lru_cache(maxsize=8)
def _read(data: bytes) -> Trajectory:
    """Levels and costs of a trajectory file; a ValueError in one line where it is not such a file."""
    try:
        content = json.loads(data)
        ratios = np.array(content["ratios"], np.float64)
        if ratios.ndim != 1 or len(ratios) > MOST_LEVELS:
            raise ValueError(f"its ratios are not a list of at most {MOST_LEVELS}")
        cost = np.full((len(ratios), len(ratios)), np.inf)
        for start, row in enumerate(content["cost"]):
            cost[start, start + 1 :] = row
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"the gits schedule's file was not written by `python -m harness.gits`: {error}") from error
    jumps = cost[np.triu_indices(len(ratios), 1)]
    if not ((np.diff(ratios) < 0).all() and ratios[-1] == 0 and len(ratios) > 2 and np.isfinite(jumps).all()):
        raise ValueError("the ratios of a gits trajectory must fall to 0 and its costs be finite")
    return Trajectory(ratios, cost)


def cheapest_path(cost: np.ndarray, jumps: int, coeff: float) -> np.ndarray:
    """The cheapest path from the first level to the last in so many jumps, as indices (jumps + 1,).

    `cost` is (M, M), from row to column, and jump k costs coeffᵏ times its entry.

    >>> cost = np.array([[np.inf, 1, 9], [np.inf, np.inf, 1], [np.inf, np.inf, np.inf]])
    >>> cheapest_path(cost, jumps=2, coeff=1.0)
    array([0, 1, 2])
    """
    best, follows = cost[:, -1], []  # best[i]: the cheapest way from i to the end in the jumps counted so far
    for _ in range(jumps - 1):
        through = cost + coeff * best
        follows.append(through.argmin(1))
        best = through.min(1)
    path = [0]
    for choice in reversed(follows):
        path.append(int(choice[path[-1]]))
    return np.array([*path, len(cost) - 1])


def _stretched(process: Process, logs: np.ndarray, of: np.ndarray) -> np.ndarray:
    """σ from log σ chosen between of[0] and of[-1], laid affinely over the trained range of the process."""
    low, high = np.log(process.ratio_min), np.log(process.ratio_max)
    return np.exp(low + (logs - of[-1]) * ((high - low) / (of[0] - of[-1])))
