"""Latency, peak memory, FLOPs: how a cell's cost is measured. Protocol: timing is a pass of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.statistics import median_interval

MIB = 1024**2
Row = dict[str, Any]  # one record: column name to plain value


@dataclass(frozen=True)
class Preset:
    """How long to warm up and to measure: at least `runs` *and* at least `seconds`."""

    warmup_runs: int
    warmup_seconds: float
    runs: int
    seconds: float


PRESETS = {
    # Short on purpose: enough for a table, too little for a tail. Records name their preset.
    "quick": Preset(warmup_runs=1, warmup_seconds=0.0, runs=8, seconds=1.0),
    "full": Preset(warmup_runs=10, warmup_seconds=10.0, runs=10, seconds=10.0),
}


class Marks:
    """Named points in time of one run. CUDA marks are events, so nothing waits until `seconds` is asked for."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.device = device
        self.names: list[str] = []
        self.points: list[Any] = []

    def mark(self, name: str) -> None:
        if self.cuda:
            import torch

            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.points.append(event)
        else:
            self.points.append(time.perf_counter())
        self.names.append(name)

    def seconds(self) -> list[tuple[str, float]]:
        """Time since the mark before, for each mark but the first; the names are those of the later marks."""
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)
            spans = [a.elapsed_time(b) / 1e3 for a, b in zip(self.points, self.points[1:], strict=False)]
        else:
            spans = [b - a for a, b in zip(self.points, self.points[1:], strict=False)]
        return list(zip(self.names[1:], spans, strict=True))


def one_run(run: Callable[[Marks], None], device: str) -> Row:
    """One timed run and its parts, s."""
    marks = Marks(device)
    run(marks)
    spans = marks.seconds()
    steps = [seconds for name, seconds in spans if name == "step"]
    part = {name: sum(s for n, s in spans if n == name) for name in ("text", "denoise", "decode")}
    return {
        "total_s": sum(seconds for _, seconds in spans),
        "text_s": part["text"],
        "denoise_s": sum(steps) + part["denoise"],
        "decode_s": part["decode"],
        "steps": steps,
    }


def summarise(rows: list[Row]) -> Row:
    """Cell columns from timing rows: quantiles of the timed runs, an interval of the median, the parts.

    The parts are means over the runs in the middle by their total (without a fifth on either side): they add up to a
    whole, and one run that a neighbour slowed down tenfold does not make 30 steps dearer than 50.
    """
    timed = [row for row in rows if row["kind"] == "timed"]
    total = np.array([row["total_s"] for row in timed])
    low, high = median_interval(total) if len(total) > 1 else (None, None)
    aside = len(timed) // 5
    middle = np.argsort(total, kind="stable")[aside : len(timed) - aside]
    part = {name: float(np.mean([timed[k][name] for k in middle])) for name in ("text_s", "denoise_s", "decode_s")}
    return {
        "latency_s": float(np.median(total)),
        "latency_low": low,
        "latency_high": high,
        "latency_p90_s": float(np.quantile(total, 0.90)),
        "latency_p95_s": float(np.quantile(total, 0.95)),
        "first_call_s": rows[0]["total_s"],
        "step_s": float(np.median([s for row in timed for s in row["steps"]] or [np.nan])),
        "other_s": max(0.0, round(float(total[middle].mean()) - sum(part.values()), 9)),  # the clock's nanoseconds
        "timing_runs": len(timed),
        **part,
    }


class PeakMemory:
    """Peak memory of a stretch of work: `with PeakMemory(device) as peak: ...; peak.columns()`."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> PeakMemory:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        self.resettable = _reset_peak_rss()
        return self

    def __exit__(self, *_: object) -> None:
        self.rss = _peak_rss()
        self.allocated = self.reserved = None
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)
            self.allocated = torch.cuda.max_memory_allocated(self.device) / MIB
            self.reserved = torch.cuda.max_memory_reserved(self.device) / MIB

    def columns(self) -> Row:
        on_gpu = self.allocated is not None
        kind = "cuda_allocated" if on_gpu else "rss" if self.resettable else "rss_of_process_life"
        return {
            "peak_memory_mib": self.allocated if on_gpu else self.rss,
            "peak_memory_kind": kind,
            "cuda_allocated_mib": self.allocated,
            "cuda_reserved_mib": self.reserved,
            "process_peak_mib": self.rss,
        }


def _reset_peak_rss() -> bool:
    """Linux: writing 5 to clear_refs sets VmHWM back to the present resident set."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_rss() -> float:
    """Peak resident set in MiB since the last reset, or since the process began where there is no reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work` (torch's counter, exact)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops()


@cache
def environment() -> Row:
    """Where this process runs: libraries, machine, commit. The same for every cell of a worker."""
    import torch

    return {
        "torch_version": str(torch.__version__),
        "diffusers_version": version("diffusers"),  # which takes seconds to import, and a formula has no use for it
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "hostname": platform.node(),
        **commit(),
    }


@cache
def hardware(device: str) -> str:
    """The processor's or GPU's own name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def commit() -> Row:
    """Commit of the checkout and whether it has uncommitted changes; nulls outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
