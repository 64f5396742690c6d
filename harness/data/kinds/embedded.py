"""The embedded world as data, before it is drawn. No torch at its top."""

from __future__ import annotations

import hashlib
import json

from harness.data.base import Data, Kind, Knobs
from harness.embedded import WORLD_VERSION
from harness.errors import InputError


class Embedded(Kind):
    def check(self, knobs: Knobs, n_images: int | None = None, task: str | None = None) -> None:
        start, share = knobs["start"], knobs["two_objects"]
        if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < 1 << 40:
            raise InputError(f"data.start={start!r} is not valid: give a whole number from 0 to 2^40")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise InputError(f"data.two_objects={share!r} is not valid: give a share from 0 to 1")

    def fingerprint(self, knobs: Knobs) -> str:
        """The world's version stands for all that is drawn."""
        return hashlib.sha256(json.dumps([WORLD_VERSION, dict(knobs)], sort_keys=True).encode()).hexdigest()[:16]

    def load(self, knobs: Knobs, size: tuple[int, int]) -> Data:
        from harness.data.embedded import EmbeddedData

        return EmbeddedData(knobs, size, self.fingerprint(knobs))


KIND = Embedded()
