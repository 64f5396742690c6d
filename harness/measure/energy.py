"""Energy of generating images: the GPU's own counter through NVML, the processor's through Linux's powercap (RAPL).

Both count joules of the whole device, idle power and other programs on it included. A counter that cannot be read is
no error: its column is null, and `energy_definition` has the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
# Counters of processors begin anew after as little as 65 kJ: two looks may not lie further apart than one turn takes.
LOOK_S = 30.0
EXTRA = "the NVML bindings are not installed: uv pip install nvidia-ml-py (extra energy)"


class Unreadable(Exception):
    """There is no such counter here, or it may not be read. The text is the reason."""


class Counter(Protocol):
    what: str  # what is counted, as a record says it

    def joules(self) -> float:
        """J since some moment; never falls. Unreadable where it cannot be read any more."""
        ...


class _Domain:
    """A package or a bank of memory of powercap: `energy_uj` counts microjoules up to `max_energy_range_uj`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, (folder / "name").read_text().strip()
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last, self.counted = self._read(), 0

    def _read(self) -> int:
        return int((self.folder / "energy_uj").read_text())

    def microjoules(self) -> int:
        """Since the domain was opened, turns of the counter included."""
        now = self._read()
        self.counted += now - self.last + (self.range if now < self.last else 0)
        self.last = now
        return self.counted


class Rapl:
    """All packages of the processors and their memory, as the kernel's powercap shows them.

    A package holds its cores and its graphics, so these are not counted again; memory (dram) it does not hold. `psys`
    is the whole board and would count the packages twice.
    """

    def __init__(self, powercap: Path | None = None) -> None:
        place = POWERCAP if powercap is None else powercap
        zones = sorted(place.glob("intel-rapl:*")) if place.is_dir() else []
        if not zones:
            raise Unreadable(f"no RAPL counter in {place}")
        try:
            named = [(zone, (zone / "name").read_text().strip()) for zone in zones]
            chosen = [zone for zone, name in named if name.startswith("package") or name == "dram"]
            self.domains = [_Domain(zone) for zone in chosen]
        except PermissionError as error:
            raise Unreadable(f"{error.filename} may be read by root alone") from error
        except (OSError, ValueError) as error:
            raise Unreadable(f"RAPL cannot be read: {error}") from error
        if not self.domains:
            raise Unreadable(f"{place} has no package among {', '.join(name for _, name in named)}")
        self.what = f"RAPL {'+'.join(domain.name for domain in self.domains)}"
        self.lock = threading.Lock()  # the watch of a long batch reads as well

    def joules(self) -> float:
        try:
            with self.lock:
                return sum(domain.microjoules() for domain in self.domains) / 1e6
        except (OSError, ValueError) as error:
            raise Unreadable(f"RAPL cannot be read any more: {error}") from error


class Nvml:
    """The energy counter of one NVIDIA GPU (from Volta on), mJ since the driver was loaded."""

    what = "NVML total energy"

    def __init__(self, device: str) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise Unreadable(EXTRA) from error
        self.nvml = pynvml
        try:
            pynvml.nvmlInit()
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{_uuid(device)}")
            self.joules()
        except pynvml.NVMLError as error:
            raise Unreadable(f"NVML has no energy counter of {device}: {error}") from error

    def joules(self) -> float:
        try:
            return self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3
        except self.nvml.NVMLError as error:
            raise Unreadable(f"NVML's energy counter cannot be read: {error}") from error


def _uuid(device: str) -> str:
    """By which NVML knows the GPU that torch calls `device`: CUDA_VISIBLE_DEVICES numbers them anew."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


class Energy:
    """Joules of several stretches of work on one device: `with energy: …`, then `energy.columns(n_images)`."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.counters: dict[str, Counter] = {}
        self.reasons: dict[str, str] = {}
        self.used: dict[str, float] = {}
        wanted: dict[str, Callable[[], Counter]] = {"cpu": Rapl}
        if device.startswith("cuda"):
            wanted = {"gpu": partial(Nvml, device), **wanted}
        elif device != "cpu":
            self.reasons["gpu"] = f"no energy counter of device {device} is known"
        for part, make in wanted.items():
            try:
                self.counters[part], self.used[part] = make(), 0.0
            except Unreadable as error:
                self.reasons[part] = str(error)

    def __enter__(self) -> Energy:
        self.before = self._now()
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._look, args=(self.over,), daemon=True)
        if "cpu" in self.before:
            self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for part, joules in self._now().items():
            self.used[part] += joules - self.before[part]

    def _look(self, over: threading.Event) -> None:
        """Read the processor's counter so often that it cannot have begun anew twice."""
        while not over.wait(LOOK_S):
            with suppress(Unreadable):  # the end of the stretch finds it, and says so
                self.counters["cpu"].joules()

    def _now(self) -> dict[str, float]:
        """What each counter says; one that fails is given up for good."""
        found = {}
        for part in list(self.counters):
            try:
                found[part] = self.counters[part].joules()
            except Unreadable as error:
                self.reasons[part] = str(error)
                del self.counters[part]
        return found

    def gathered(self) -> tuple[dict[str, float], dict[str, str]]:
        """What `take` adds: joules by part and reasons, of a worker's share of a cell."""
        return {part: self.used[part] for part in self.counters}, self.reasons

    def take(self, gathered: tuple[dict[str, float], dict[str, str]]) -> None:
        """Add what another worker has used; a part that one of them could not read is not known of the whole."""
        used, reasons = gathered
        self.reasons |= reasons
        for part in list(self.counters):
            if part in used:
                self.used[part] += used[part]
            else:
                del self.counters[part]

    def columns(self, images: int) -> dict[str, Any]:
        """J an image, and what was counted. The sum is null where the device that made the images was not read."""
        for part in [part for part in self.counters if not self.used[part] > 0]:
            self.reasons[part] = f"{self.counters.pop(part).what} did not move: too short a time"
        each = {part: self.used[part] / images for part in self.counters}
        makes = "cpu" if self.device == "cpu" else "gpu"
        said = [f"{part}: {counter.what}" for part, counter in self.counters.items()]
        return {
            "energy_j_per_image": sum(each.values()) if makes in each else None,
            "gpu_j_per_image": each.get("gpu"),
            "cpu_j_per_image": each.get("cpu"),
            "energy_definition": "; ".join([*said, *(f"{part}: none, {why}" for part, why in self.reasons.items())]),
        }
