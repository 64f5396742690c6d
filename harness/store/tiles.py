"""A cell's first images as one small PNG: a row of tiles that a report can cut apart again."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.atomic import whole

TEXT_KEY = "image-grid"  # the PNG's text chunk with the layout
LONGEST_SIDE = 256  # pixels of a tile: a 512² image is halved, one of the embedded model's 64² kept as it is


class Tiles(NamedTuple):
    """`images` uint8 N×H×W×3; tile k shows image `indices[k]` of the cell."""

    images: np.ndarray
    indices: list[int]


def save_grid(images: Any, path: Path | str, indices: Sequence[int] | None = None) -> None:
    """Write `images` (uint8 N×3×H×W, array or CPU tensor) as a row of tiles; whole or not at all."""
    tiles = np.asarray(images)
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != 3 or not len(tiles):
        raise ValueError(f"a grid takes uint8 N×3×H×W with N ≥ 1, given {tiles.dtype} {tiles.shape}")
    shown = [_shrunk(Image.fromarray(tile)) for tile in np.ascontiguousarray(tiles.transpose(0, 2, 3, 1))]
    width, height = shown[0].size
    sheet = Image.new("RGB", (width * len(shown), height))
    for k, tile in enumerate(shown):
        sheet.paste(tile, (k * width, 0))
    layout = PngInfo()
    indices = list(range(len(shown))) if indices is None else [int(index) for index in indices]
    layout.add_text(TEXT_KEY, json.dumps({"tile_width": width, "tile_height": height, "image_indices": indices}))
    with whole(Path(path)) as file:
        sheet.save(file, format="PNG", pnginfo=layout)


def load_grid(path: Path | str) -> Tiles:
    """The tiles of a grid that `save_grid` wrote. A ValueError or OSError for any other file."""
    try:
        with Image.open(path, formats=("PNG",)) as sheet:
            layout = json.loads(sheet.info[TEXT_KEY])
            pixels = np.asarray(sheet.convert("RGB"))
        indices = [operator.index(index) for index in layout["image_indices"]]
        tiles = pixels.reshape(layout["tile_height"], len(indices), layout["tile_width"], 3).transpose(1, 0, 2, 3)
    except (KeyError, TypeError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a grid of images: {type(error).__name__}: {error}") from error
    return Tiles(tiles, indices)


def save_sources(sources: Any, masks: Any | None, path: Path | str) -> None:
    """Keep what the images of the grid at `path` began with beside it: uint8 N×3×H×W, masks N×1×H×W with 1 = repainted.

    The sources and, where there are masks, as many tiles more, white where an image was repainted.
    """
    tiles = np.asarray(sources)
    if masks is not None:
        tiles = np.concatenate([tiles, np.repeat(255 * (np.asarray(masks) > 0).astype(np.uint8), 3, axis=1)])
    save_grid(tiles, beside(path))


def load_sources(path: Path | str, count: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Sources N×H×W×3 and masks N×H×W (bool, None for a task without) of the grid at `path`, which has `count` tiles.

    None where an older run kept none; a ValueError or OSError for a file that is damaged.
    """
    if not beside(path).is_file():
        return None
    tiles = load_grid(beside(path)).images
    if len(tiles) not in (count, 2 * count):
        raise ValueError(f"{beside(path)} has {len(tiles)} tiles for {count} images")
    return tiles[:count], tiles[count:, :, :, 0] > 127 if len(tiles) > count else None


def beside(path: Path | str) -> Path:
    """Where the sources of a grid are kept."""
    return Path(path).parent / "sources" / Path(path).name


def _shrunk(tile: Image.Image) -> Image.Image:
    scale = LONGEST_SIDE / max(tile.size)
    if scale >= 1:
        return tile
    return tile.resize((round(tile.width * scale), round(tile.height * scale)), Image.Resampling.LANCZOS)
