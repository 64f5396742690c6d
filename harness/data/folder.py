"""A folder of captioned images (or a file of prompts) as data, every image cut to one size in an explicit way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data import captions, resize, statistics
from harness.data.masks import check_masks, mask_file, read_mask
from harness.data.pictures import read_rgb
from harness.errors import InputError


class FolderData:
    """Opens an image when it is asked for and keeps none; see conf/data/folder.yaml for the knobs."""

    name = "folder"

    def __init__(self, spec: Mapping[str, Any], size: tuple[int, int], fingerprint: str) -> None:
        self.size, self.fingerprint = (int(size[0]), int(size[1])), fingerprint
        self.fit, self.source, self.mask_folder, self.top = spec["fit"], spec["source"], spec["masks"], spec["path"]
        self.resizer = resize.name(self.fit)
        self.entries = captions.entries(spec)
        self._reference = captions.images_of(spec)
        self.reference_size = len(self._reference)
        self.statistics = statistics.given(spec)

    def __len__(self) -> int:
        return len(self.entries)

    def prompts(self, indices: Sequence[int]) -> list[str]:
        return [self._entry(i).caption for i in indices]

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        return self._stack([self._path(i) for i in indices])

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        return self.images(self._of_sources(indices, task))

    def drawn(self, folder: str, indices: Sequence[int], task: str) -> torch.Tensor:
        """The images of a folder that have the names of the sources, uint8 RGB (N, 3, H, W): control images."""
        sources = [self._path(i) for i in self._of_sources(indices, task)]
        return self._stack([mask_file(folder, path, self.top, "control image") for path in sources])

    def _of_sources(self, indices: Sequence[int], task: str) -> Sequence[int]:
        if task in ("img2img", "edit") and self.source == "other":
            return [(int(i) + 1) % len(self) for i in indices]
        return indices

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        masks = [self._mask(self._path(i)) for i in indices]
        return torch.from_numpy(np.stack(masks))[:, None]

    def mask_name(self, index: int) -> str:
        """How a message names the mask of a prompt: its file, or the image under the box in the middle."""
        path = self._path(index)
        return path.name if self.mask_folder == "center" else str(mask_file(self.mask_folder, path, self.top))

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        """`n` images spread evenly over the folder; all of them where it has no more."""
        count = min(n, len(self._reference))
        chosen = [self._reference[k * len(self._reference) // count] for k in range(count)]
        for first in range(0, count, batch):
            yield self._stack(chosen[first : first + batch])

    def _entry(self, index: int) -> captions.Entry:
        if not 0 <= index < len(self.entries):
            raise InputError(
                f"prompt {index} was asked for, the data has {len(self.entries)}: use n_images={len(self.entries)}"
            )
        return self.entries[index]

    def _path(self, index: int) -> Path:
        path = self._entry(index).image
        if path is None:
            raise InputError(
                "this task needs an image for each prompt, data.prompts has none: give data.path and captions"
            )
        return path

    def _stack(self, paths: list[Path]) -> torch.Tensor:
        pixels = [np.asarray(resize.fit_image(read_rgb(path), self.size, self.fit)) for path in paths]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def _mask(self, path: Path) -> np.ndarray:
        """uint8 (H, W), 1 = repaint."""
        height, width = self.size
        if self.mask_folder == "center":
            mask = np.zeros(self.size, np.uint8)
            mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
            return mask
        if self.mask_folder is None:
            raise InputError("inpaint needs masks: give data.masks=FOLDER (white = repaint) or data.masks=center")
        check_masks(self.mask_folder, (path,), self.top)
        from PIL import Image

        mask = Image.fromarray(read_mask(mask_file(self.mask_folder, path, self.top)).astype(np.uint8) * 255)
        return (np.asarray(resize.fit_image(mask, self.size, self.fit, nearest=True)) >= 128).astype(np.uint8)
