"""What this machine lets a cell have: its device, a precision there, threads. Imports torch only where it must."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.axes import AXIS
from harness.cell import allowed_cores
from harness.errors import InputError

VALID = "valid: auto, cpu, cuda, cuda:N, mps"
ELSEWHERE = ("cpu", "cuda")  # a GPU of a cluster's machine has no number: its worker sees no other


@dataclass(frozen=True)
class Machine:
    """The machine that a cell will run on. `cores`: those of one of a cluster; None: it is this machine.

    >>> Machine(cores=8, workers=2).threads(None, "cpu")
    4
    """

    cores: int | None = None
    workers: int = 1  # processes that run cells there at once, and divide its cores

    def device(self, given: Any) -> str:
        """The device that `given` means, `auto` resolved. InputError for one that is not there."""
        if not isinstance(given, str):
            raise InputError(f"device={given!r} is not valid; {VALID}")
        if self.cores is None:
            return _device(given)
        if given not in ELSEWHERE:
            raise InputError(
                f"device={given!r} is not valid where cells run on other machines than this one; give device=cuda "
                "(the GPU that a worker is given there) or device=cpu"
            )
        return given

    def check_precision(self, precision: str, device: str) -> None:
        """InputError for a precision that the device does not have; another machine's GPU cannot be asked from here."""
        if self.cores is None:
            _check_precision(precision, device)

    def threads(self, given: Any, device: str) -> int | None:
        """By default a worker's share of the cores; None on a GPU, whose images do not depend on the CPU's threads."""
        if given is not None:
            return AXIS["threads"].valid(given)
        cores = allowed_cores() if self.cores is None else self.cores
        return max(1, cores // self.workers) if device == "cpu" or self.workers > 1 else None


@cache
def _device(given: str) -> str:
    """torch is imported only where the machine shows a GPU, or one is asked for."""
    if given == "cpu":
        return "cpu"
    shows_gpu = os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd") or os.uname().sysname == "Darwin"
    if given == "auto" and not shows_gpu:
        return "cpu"
    import torch

    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = given.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "mps" and torch.backends.mps.is_available())
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise InputError(f"device={given!r} is not valid; {VALID}")
    if int(number or 0) >= count:
        raise InputError(f"device={given!r} is not on this machine (it has {count}); use device=cpu or device=auto")
    return given


@cache
def _check_precision(precision: str, device: str) -> None:
    """InputError for a precision that the device does not have."""
    if device.startswith("cuda") and precision == "bf16":
        import torch

        if torch.cuda.get_device_capability(device)[0] < 8:
            raise InputError(f"precision=bf16 is beyond {torch.cuda.get_device_name(device)}; use fp32 or fp16")
    if device == "mps" and precision == "bf16":
        raise InputError("precision=bf16 is not supported on mps; use fp32 or fp16")
