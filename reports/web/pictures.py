"""Thumbnails for the page: a cell's grid as one WebP, a row of tiles; in the file, in a folder beside it, or not."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from harness.store.records import Store
from harness.store.schema import IMAGES
from harness.store.tiles import Tiles, has_grid, load_grid, load_sources
from reports.figures.sheet import outlined

EMBED, BESIDE, NONE = "embed", "beside", "none"
WAYS = (EMBED, BESIDE, NONE)
LIMIT = 12 << 20  # bytes of pictures that a page holds; more lie beside it
LOSSLESS = 6 << 20  # up to which every pixel is kept, so that differences are the samplers' and not the format's
QUALITY = 88
SOURCE = "-source"


@dataclass(frozen=True)
class Pictures:
    """`files`: name → WebP; `tiles`: position of a cell → which images its tiles show, of (width, height) pixels."""

    files: dict[str, bytes]
    tiles: dict[int, list[int]]
    sizes: dict[int, tuple[int, int]]
    sourced: set[int]
    lossless: bool

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


def read(cells: pd.DataFrame, store: Store) -> Pictures:
    """The grids of all good cells that have one; a damaged one costs a warning."""
    grids: dict[int, Tiles] = {}
    begun: dict[int, np.ndarray] = {}
    for place, (status, cell_id) in enumerate(zip(cells["status"], cells["cell_id"], strict=True)):
        if status != "ok" or not has_grid(store.place, cell_id):
            continue
        try:
            grids[place] = load_grid(store.place, cell_id)
            kept = load_sources(store.place, cell_id, len(grids[place].indices))
        except (OSError, ValueError) as error:
            warnings.warn(f"image grid of {cell_id} is damaged: {error}", stacklevel=2)
            continue
        if kept is not None and len(kept[0]):
            sources, masks = kept
            begun[place] = np.stack(
                [one if masks is None else outlined(one, masks[k]) for k, one in enumerate(sources)]
            )
    ids = list(cells["cell_id"])
    pixels = sum(grid.images.size for grid in grids.values())
    for lossless in (True, False):
        if lossless and pixels > 8 * LOSSLESS:
            continue
        files = {ids[place]: _webp(grid.images, lossless) for place, grid in grids.items()}
        files |= {ids[place] + SOURCE: _webp(images, lossless) for place, images in begun.items()}
        if not lossless or sum(map(len, files.values())) <= LOSSLESS:
            break
    tiles = {place: grid.indices for place, grid in grids.items()}
    sizes = {place: (grid.images.shape[2], grid.images.shape[1]) for place, grid in grids.items()}
    return Pictures(files, tiles, sizes, set(begun), lossless)


def _webp(images: np.ndarray, lossless: bool) -> bytes:
    content = BytesIO()
    row = Image.fromarray(np.concatenate(list(images), axis=1))
    row.save(content, "WEBP", lossless=lossless, quality=20 if lossless else QUALITY, method=2)
    return content.getvalue()


def embedded(pictures: Pictures) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in pictures.files.items()}


def beside(pictures: Pictures, folder: Path) -> None:
    """Write them as files; those of a cell that is not on the page any more go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        if old.stem not in pictures.files:
            old.unlink()
    for name, content in pictures.files.items():
        (folder / f"{name}.webp").write_bytes(content)


def values(cells: pd.DataFrame, pictures: Pictures, store: Store) -> tuple[list[str], pd.DataFrame]:
    """Per-image columns that any has, and the rows (place, image_index, prompt, …) of the images that are shown."""
    shown = {cells["cell_id"].iloc[place]: place for place in pictures.tiles}
    numbers = [column.name for column in IMAGES if column.kind == "float"]
    rows = store.images(["cell_id", "image_index", "prompt", *numbers], list(shown)) if shown else pd.DataFrame()
    if rows.empty:
        return [], pd.DataFrame(columns=["place", "image_index", "prompt"])
    rows["place"] = rows["cell_id"].map(shown)
    wanted = {(place, index) for place, indices in pictures.tiles.items() for index in indices}
    keep = [pair in wanted for pair in zip(rows["place"], rows["image_index"], strict=True)]
    rows = rows[np.array(keep, bool)].sort_values(["place", "image_index"], kind="stable")
    return [name for name in numbers if rows[name].notna().any()], rows


def names(ways: Sequence[str] = WAYS) -> str:
    return ", ".join(ways)
