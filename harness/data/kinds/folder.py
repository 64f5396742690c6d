"""A folder of captioned images as data, before one is opened. No torch at its top."""

from __future__ import annotations

from harness.data import captions, fingerprints, statistics
from harness.data.base import Data, Kind, Knobs


class Folder(Kind):
    def check(self, knobs: Knobs, n_images: int | None = None, task: str | None = None) -> None:
        captions.check(knobs, n_images, task)
        statistics.check(knobs)
        if task == "inpaint" and knobs["masks"] not in (None, "center"):
            from harness.data.masks import check_masks

            known = (entry.image for entry in captions.entries(knobs)[:n_images] if entry.image is not None)
            check_masks(knobs["masks"], dict.fromkeys(known), knobs["path"])

    def remarks(self, knobs: Knobs) -> tuple[str, ...]:
        return captions.remarks(knobs)

    def fingerprint(self, knobs: Knobs) -> str:
        return fingerprints.of_folder(knobs)

    def load(self, knobs: Knobs, size: tuple[int, int]) -> Data:
        from harness.data.folder import FolderData

        return FolderData(knobs, size, self.fingerprint(knobs))


KIND = Folder()
