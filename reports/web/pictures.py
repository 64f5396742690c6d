"""Thumbnails for the page: a cell's grid as one WebP, a row of tiles; in the file, in a folder beside it, or not.

Of a large sweep the grids lie beside the file as they are recorded: encoding thousands anew would take minutes.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from harness.store import layout
from harness.store.parquet_files import joined
from harness.store.records import Store
from harness.store.schema import IMAGES
from harness.store.tiles import Tiles, has_grid, layout_of_grid, load_grid, load_sources
from reports.figures.sheet import outlined

EMBED, BESIDE, NONE = "embed", "beside", "none"
WAYS = (EMBED, BESIDE, NONE)
LIMIT = 12 << 20  # bytes of pictures that a page holds; more lie beside it
LOSSLESS = 6 << 20  # up to which every pixel is kept, so that differences are the samplers' and not the format's
QUALITY = 88
RECORDED = 24 << 20  # bytes of grids from which on they are taken as they are recorded
SOURCE = "-source"


@dataclass(frozen=True)
class Pictures:
    """`files`: name → WebP; `tiles`: position of a cell → which images its tiles show, of (width, height) pixels.

    `recorded`: cell_id → bytes of the PNG that stands in the records, of the grids that are taken as they are.
    """

    files: dict[str, bytes]
    tiles: dict[int, list[int]]
    sizes: dict[int, tuple[int, int]]
    sourced: set[int]
    lossless: bool
    recorded: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values())) + sum(self.recorded.values())

    def content(self, name: str, store: Store) -> bytes | None:
        """The picture of that name; None where there is none, or none any more."""
        if name not in self.recorded:
            return self.files.get(name)
        try:
            return store.place.read(layout.grid(name))
        except OSError:
            return None


def read(cells: pd.DataFrame, store: Store) -> Pictures:
    """The grids of all good cells that have one; a damaged one costs a warning."""
    found = {
        place: cell_id
        for place, (status, cell_id) in enumerate(zip(cells["status"], cells["cell_id"], strict=True))
        if status == "ok" and has_grid(store.place, cell_id)
    }
    sizes = {cell_id: store.place.look(layout.grid(cell_id)).size for cell_id in found.values()}
    return _encoded(found, store) if sum(sizes.values()) <= RECORDED else _as_recorded(found, sizes, store)


def _as_recorded(found: dict[int, str], sizes: dict[str, int], store: Store) -> Pictures:
    heads = {}
    for place, cell_id in found.items():
        try:
            heads[place] = layout_of_grid(store.place, cell_id)
        except (OSError, ValueError) as error:
            warnings.warn(f"image grid of {cell_id} is damaged: {error}", stacklevel=2)
    tiles, shapes = ({place: head[k] for place, head in heads.items()} for k in (0, 1))
    return Pictures({}, tiles, shapes, set(), True, {found[place]: sizes[found[place]] for place in heads})


def _encoded(found: dict[int, str], store: Store) -> Pictures:
    grids: dict[int, Tiles] = {}
    begun: dict[int, np.ndarray] = {}
    for place, cell_id in found.items():
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
    pixels = sum(grid.images.size for grid in grids.values())
    rows = {found[place]: grid.images for place, grid in grids.items()}
    rows |= {found[place] + SOURCE: images for place, images in begun.items()}
    files = _lossless(rows) if pixels <= 8 * LOSSLESS else None
    lossless = files is not None
    files = {name: _webp(images, False) for name, images in rows.items()} if files is None else files
    tiles = {place: grid.indices for place, grid in grids.items()}
    sizes = {place: (grid.images.shape[2], grid.images.shape[1]) for place, grid in grids.items()}
    return Pictures(files, tiles, sizes, set(begun), lossless)


def _lossless(rows: dict[str, np.ndarray]) -> dict[str, bytes] | None:
    """The rows of tiles to the pixel; None as soon as they are too many bytes."""
    files, size = {}, 0
    for name, images in rows.items():
        files[name] = _webp(images, True)
        size += len(files[name])
        if size > LOSSLESS:
            return None
    return files


def _webp(images: np.ndarray, lossless: bool) -> bytes:
    content = BytesIO()
    row = Image.fromarray(np.concatenate(list(images), axis=1))
    row.save(content, "WEBP", lossless=lossless, quality=20 if lossless else QUALITY, method=2)
    return content.getvalue()


def embedded(pictures: Pictures) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in pictures.files.items()}


def beside(pictures: Pictures, store: Store, folder: Path) -> None:
    """Write them as files; those of a cell that is not on the page any more go."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{name}.webp" for name in pictures.files} | {f"{name}.png" for name in pictures.recorded}
    for old in (*folder.glob("*.webp"), *folder.glob("*.png")):
        if old.name not in wanted:
            old.unlink()
    for name in (*pictures.files, *pictures.recorded):
        content = pictures.content(name, store)
        if content is not None:
            (folder / f"{name}.{'png' if name in pictures.recorded else 'webp'}").write_bytes(content)


def values(cells: pd.DataFrame, pictures: Pictures, store: Store) -> tuple[list[str], pd.DataFrame]:
    """Per-image columns that any has, and the rows (place, image_index, prompt, …) of the images that are shown."""
    shown = {cells["cell_id"].iloc[place]: place for place in pictures.tiles}
    numbers = [column.name for column in IMAGES if column.kind == "float"]
    columns, some = (
        ["cell_id", "image_index", "prompt", *numbers],
        sorted({i for t in pictures.tiles.values() for i in t}),
    )
    tables = store.tables("images", columns, list(shown)) if shown else []
    few = [table.filter(pc.is_in(table["image_index"], pa.array(some, pa.int64()))) for table in tables]
    rows = joined("images", few, columns).to_pandas()  # of a million rows those of the tiles are few
    if rows.empty:
        return [], pd.DataFrame(columns=["place", "image_index", "prompt"])
    rows["place"] = rows["cell_id"].map(shown)
    wanted = {(place, index) for place, indices in pictures.tiles.items() for index in indices}
    keep = [pair in wanted for pair in zip(rows["place"], rows["image_index"], strict=True)]
    rows = rows[np.array(keep, bool)].sort_values(["place", "image_index"], kind="stable")
    return [name for name in numbers if rows[name].notna().any()], rows


def names(ways: Sequence[str] = WAYS) -> str:
    return ", ".join(ways)
