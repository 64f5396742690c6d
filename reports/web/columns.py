"""Tables as the page reads them: JSON that refers to typed arrays, in one deflated block.

    uint32 length of the JSON, the JSON (UTF-8), padding to 8 bytes, the arrays one after another, each padded to 8

In the JSON an array is {"at": offset, "type": "f4" | "f8" | "i4" | "u1" | "u2", "n": count}. Numbers go as float32 (7
digits, more than any interval leaves meaningful) with NaN for null, text as codes into a list of its values.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

ALIGNED = 8
TYPES = {"float32": "f4", "float64": "f8", "int32": "i4", "uint8": "u1", "uint16": "u2"}
NULL_CODE = -1
NULL_BOOL = 255


class Block:
    """Collects arrays; `ref` gives what stands for one in the JSON."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def ref(self, array: np.ndarray) -> dict[str, Any]:
        """A reference to a one-dimensional array of one of TYPES."""
        flat = np.ascontiguousarray(array).reshape(-1)
        content = flat.tobytes()
        at, padding = self._size, -len(content) % ALIGNED
        self._parts.append(content + b"\0" * padding)
        self._size += len(content) + padding
        return {"at": at, "type": TYPES[str(flat.dtype)], "n": len(flat)}

    def floats(self, values: Any) -> dict[str, Any]:
        array = np.asarray(values, np.float64)
        with np.errstate(over="ignore", under="ignore"):
            return self.ref(array.astype(np.float32))

    def codes(self, values: Sequence[object] | pd.Series) -> dict[str, Any]:
        """Text (None: null) as its distinct values and a code each."""
        codes, levels = pd.factorize(np.asarray(values, dtype=object))  # what is missing has the code -1
        return {"levels": [str(level) for level in levels], "codes": self.ref(codes.astype(np.int32))}

    def column(self, values: pd.Series, kind: str) -> dict[str, Any]:
        """A column of a table, `kind` as in harness/store/schema.py; one value in all rows is said once."""
        if kind in ("text", "json"):
            return self.codes(values.astype(object).map(str, na_action="ignore"))
        if kind == "bool":
            flags = [NULL_BOOL if pd.isna(value) else int(value) for value in values]
            return {"flags": self.ref(np.array(flags, np.uint8))}
        if kind == "time":
            moments = pd.to_datetime(values, utc=True)
            milliseconds = moments.astype("datetime64[ms, UTC]").astype("int64").to_numpy(float)
            return {"numbers": self.ref(np.where(moments.isna().to_numpy(), np.nan, milliseconds))}
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
        exact = kind == "int" and bool((np.abs(numbers[~np.isnan(numbers)]) > 2**24).any())
        return {"numbers": self.ref(numbers) if exact else self.floats(numbers)}

    def packed(self, header: dict[str, Any]) -> bytes:
        """The whole block, deflated (zlib's format)."""
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-(len(text) + 4) % ALIGNED)
        return zlib.compress(len(text).to_bytes(4, "little") + text + b"".join(self._parts), 6)


def unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the arrays' bytes again: what the page does, for tests."""
    raw = zlib.decompress(content)
    size = int.from_bytes(raw[:4], "little")
    return json.loads(raw[4 : 4 + size]), raw[4 + size :]


def array(ref: dict[str, Any], content: bytes) -> np.ndarray:
    names = {short: name for name, short in TYPES.items()}
    return np.frombuffer(content, names[ref["type"]], ref["n"], ref["at"])
