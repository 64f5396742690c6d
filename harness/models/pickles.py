"""Pickled weights can run code when they are read: who may read them, and how. Imports no torch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import InputError

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
FORCED, FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def refuse(path: Path, flag: str) -> None:
    """Say that this file is pickled and which flag (as it is typed) says that its author is trusted."""
    raise InputError(
        f"{path} is a pickled checkpoint, which can run code when it is read: convert it to .safetensors, or say "
        f"{flag}=true if you trust its author"
    )


@contextmanager
def weights_only() -> Iterator[None]:
    """Inside, torch.load makes tensors and runs no code, whichever library calls it and whatever that asks for.

    torchvision and torch-fidelity ask for everything that a pickle can do. Torch looks at these variables at each load.
    """
    before = {name: os.environ.pop(name, None) for name in (FORCED, FORBIDDEN)}
    os.environ[FORCED] = "1"
    try:
        yield
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"a file of weights holds something else than weights, and was not read: {reason}") from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
