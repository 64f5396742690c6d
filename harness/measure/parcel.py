"""What a part of a cell carries from worker to worker, through files as well: read back without running any code."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import torch

from harness.measure.quality import Gathered
from harness.metrics.base import Samples

_TYPES = tuple(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")
# What a parcel may be made of beside plain values and tensors.
_KNOWN = [Gathered, Samples, datetime, timedelta, timezone, np.ndarray, np.dtype, *dict.fromkeys(_TYPES)]
_KNOWN += [np._core.multiarray._reconstruct, np._core.multiarray.scalar]


def packed(content: Any) -> bytes:
    """`content` as bytes for `unpacked`."""
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def unpacked(content: bytes) -> Any:
    """What was packed. UnpicklingError for anything that is not made of plain values, arrays, tensors and our rows."""
    with torch.serialization.safe_globals(_KNOWN):
        return torch.load(io.BytesIO(content), weights_only=True)
