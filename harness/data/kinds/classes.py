"""Names of classes as prompts, before they are loaded. No torch at its top."""

from __future__ import annotations

import hashlib
import json

from harness.data.base import Data, Kind, Knobs
from harness.errors import InputError


class Classes(Kind):
    def check(self, knobs: Knobs, n_images: int | None = None, task: str | None = None) -> None:
        names = knobs["classes"]
        if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
            raise InputError(f"data.classes={names!r} is not valid: give a list of names, as data.classes=[left,right]")

    def fingerprint(self, knobs: Knobs) -> str:
        return hashlib.sha256(json.dumps(knobs["classes"]).encode()).hexdigest()[:16]

    def load(self, knobs: Knobs, size: tuple[int, int]) -> Data:
        from harness.data.classes import ClassData

        return ClassData(knobs, size, self.fingerprint(knobs))


KIND = Classes()
