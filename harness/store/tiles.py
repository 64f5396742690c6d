"""A cell's first images as one small PNG: a row of tiles that a report can cut apart again."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.store import layout
from harness.store.place import Keeps, Place

TEXT_KEY = "image-grid"  # the PNG's text chunk with the layout
LONGEST_SIDE = 256  # pixels of a tile: a 512² image is halved, one of the embedded model's 64² kept as it is


class Tiles(NamedTuple):
    """`images` uint8 N×H×W×3; tile k shows image `indices[k]` of the cell."""

    images: np.ndarray
    indices: list[int]


def save_grid(images: Any, keeps: Keeps, cell_id: str, indices: Sequence[int] | None = None) -> None:
    """Put `images` (uint8 N×3×H×W, array or CPU tensor) as the cell's row of tiles; whole or not at all."""
    keeps.put(layout.grid(cell_id), _png(images, indices))


def has_grid(place: Place, cell_id: str) -> bool:
    return place.exists(layout.grid(cell_id))


def load_grid(place: Place, cell_id: str) -> Tiles:
    """The tiles of the cell's grid. A ValueError or OSError where that is missing or something else."""
    return _tiles(place, layout.grid(cell_id))


def layout_of_grid(place: Place, cell_id: str) -> tuple[list[int], tuple[int, int]]:
    """Which images the cell's grid shows and the (width, height) of a tile, read from its head: no pixel is decoded.

    A ValueError or OSError where it is missing or something else.
    """
    try:
        with Image.open(BytesIO(place.read(layout.grid(cell_id))), formats=("PNG",)) as sheet:
            cut = json.loads(sheet.info[TEXT_KEY])
            return [operator.index(index) for index in cut["image_indices"]], (cut["tile_width"], cut["tile_height"])
    except (KeyError, TypeError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        raise ValueError(f"the grid of {cell_id} is none: {type(error).__name__}: {error}") from error


def save_sources(sources: Any, masks: Any | None, keeps: Keeps, cell_id: str) -> None:
    """Keep what the images of the cell's grid began with: uint8 N×3×H×W, masks N×1×H×W with 1 = repainted.

    The sources and, where there are masks, as many tiles more, white where an image was repainted.
    """
    tiles = np.asarray(sources)
    if masks is not None:
        tiles = np.concatenate([tiles, np.repeat(255 * (np.asarray(masks) > 0).astype(np.uint8), 3, axis=1)])
    keeps.put(layout.sources(cell_id), _png(tiles, None))


def load_sources(place: Place, cell_id: str, count: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Sources N×H×W×3 and masks N×H×W (bool, None for a task without) of the cell's grid, which has `count` tiles.

    None where an older run kept none; a ValueError or OSError for a file that is damaged.
    """
    name = layout.sources(cell_id)
    if not place.exists(name):
        return None
    tiles = _tiles(place, name).images
    if len(tiles) not in (count, 2 * count):
        raise ValueError(f"{place}/{name} has {len(tiles)} tiles for {count} images")
    return tiles[:count], tiles[count:, :, :, 0] > 127 if len(tiles) > count else None


def _png(images: Any, indices: Sequence[int] | None) -> bytes:
    tiles = np.asarray(images)
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != 3 or not len(tiles):
        raise ValueError(f"a grid takes uint8 N×3×H×W with N ≥ 1, given {tiles.dtype} {tiles.shape}")
    shown = [_shrunk(Image.fromarray(tile)) for tile in np.ascontiguousarray(tiles.transpose(0, 2, 3, 1))]
    width, height = shown[0].size
    sheet = Image.new("RGB", (width * len(shown), height))
    for k, tile in enumerate(shown):
        sheet.paste(tile, (k * width, 0))
    text = PngInfo()
    indices = list(range(len(shown))) if indices is None else [int(index) for index in indices]
    text.add_text(TEXT_KEY, json.dumps({"tile_width": width, "tile_height": height, "image_indices": indices}))
    content = BytesIO()
    sheet.save(content, format="PNG", pnginfo=text)
    return content.getvalue()


def _tiles(place: Place, name: str) -> Tiles:
    try:
        with Image.open(BytesIO(place.read(name)), formats=("PNG",)) as sheet:
            cut = json.loads(sheet.info[TEXT_KEY])
            pixels = np.asarray(sheet.convert("RGB"))
        indices = [operator.index(index) for index in cut["image_indices"]]
        tiles = pixels.reshape(cut["tile_height"], len(indices), cut["tile_width"], 3).transpose(1, 0, 2, 3)
    except (KeyError, TypeError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        raise ValueError(f"{place}/{name} is not a grid of images: {type(error).__name__}: {error}") from error
    return Tiles(tiles, indices)


def _shrunk(tile: Image.Image) -> Image.Image:
    scale = LONGEST_SIDE / max(tile.size)
    if scale >= 1:
        return tile
    return tile.resize((round(tile.width * scale), round(tile.height * scale)), Image.Resampling.LANCZOS)
