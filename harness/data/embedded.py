"""The embedded world as data: prompt i is the i-th held-out scene, every drawing is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.data import resize
from harness.embedded import world

# Three stretches of image numbers that never meet: prompts' own drawings, drawings to edit, reference drawings.
OTHERS_FROM, REFERENCE_FROM = 1 << 42, 1 << 43
MASK_GRID = 4  # mask edges lie on multiples of this many pixels: whole cells of the 16x16 latent
MASK_MARGIN = 2.0  # pixels round the object that are repainted too


class EmbeddedData:
    """img2img edits the drawing of *another* held-out scene (`source: other`), so that there is something to change:
    low strength keeps the source, high strength follows the prompt. Inpaint repaints a box over one object of the
    prompt's own drawing, so that what is kept agrees with the prompt and the missing part can be judged.
    """

    name = "embedded"
    reference_size = 1 << 30  # drawn on demand

    def __init__(self, spec: Mapping[str, Any], size: tuple[int, int], fingerprint: str) -> None:
        self.start, self.two_objects, self.source = int(spec["start"]), float(spec["two_objects"]), spec["source"]
        self.size, self.fingerprint = (int(size[0]), int(size[1])), fingerprint
        native = self.size == (world.IMAGE_SIZE, world.IMAGE_SIZE)
        self.resizer = "none" if native else resize.name("squash")
        self._found: dict[int, world.Scenes] = {}

    def __len__(self) -> int:
        return 1 << 30

    def scenes(self, indices: Sequence[int]) -> world.Scenes:
        """What the prompts name, for judging an image attribute by attribute."""
        return self._scenes(self.start, indices)

    def prompts(self, indices: Sequence[int]) -> list[str]:
        return self.scenes(indices).captions()

    def images(self, indices: Sequence[int]) -> torch.Tensor:
        return self._draw(self.scenes(indices))

    def sources(self, indices: Sequence[int], task: str) -> torch.Tensor:
        if task == "img2img" and self.source == "other":
            return self._draw(self._scenes(OTHERS_FROM + self.start, indices))
        return self.images(indices)

    def masks(self, indices: Sequence[int]) -> torch.Tensor:
        """A box over an object and its shadow: 0 where the prompt's number is even or it is alone, else 1."""
        scenes = self.scenes(indices)
        masks = torch.zeros(len(scenes), 1, world.IMAGE_SIZE, world.IMAGE_SIZE, dtype=torch.uint8)
        for n, index in enumerate(indices):
            k = int(index) % 2 if scenes.objects[n] == 2 else 0
            low, high = scenes.box(n, k, MASK_MARGIN)
            low = np.floor(low / MASK_GRID).astype(int) * MASK_GRID
            high = np.ceil(high / MASK_GRID).astype(int) * MASK_GRID
            (x0, y0), (x1, y1) = low.clip(0), high.clip(max=world.IMAGE_SIZE)
            masks[n, 0, y0:y1, x0:x1] = 1
        return torch.nn.functional.interpolate(masks, self.size, mode="nearest-exact")

    def reference(self, n: int, batch: int = 256) -> Iterator[torch.Tensor]:
        """Fresh held-out drawings: of the prompts' kind, none of them the drawing of a prompt."""
        for first in range(0, n, batch):
            yield self._draw(self._scenes(REFERENCE_FROM + self.start, range(first, min(first + batch, n))))

    def _draw(self, scenes: world.Scenes) -> torch.Tensor:
        return resize.resize(world.render(scenes), self.size)

    def _scenes(self, start: int, indices: Sequence[int]) -> world.Scenes:
        rows = np.asarray(indices, dtype=np.int64)
        need = int(rows.max()) + 1 if len(rows) else 1
        if start not in self._found or len(self._found[start]) < need:
            count = max(512, 1 << (need - 1).bit_length())
            self._found[start] = world.split_scenes(count, held_out=True, start=start, two_objects=self.two_objects)
        return self._found[start].take(rows)
