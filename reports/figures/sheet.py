"""The same prompts in every cell: prompts as rows, the values of one axis as columns."""

from __future__ import annotations

import textwrap
import warnings

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.store import layout
from harness.store.records import Store
from harness.store.tiles import Tiles, has_grid, load_grid, load_sources
from reports.records import VARIANT, Group, Selection, plain
from reports.style import PRECISIONS, WIDTH, Drawing, titled

AXES = {"label": "sampler", "steps": "steps", "cfg": "CFG scale", "strength": "strength", "precision": "precision"}
MOST_COLUMNS, MOST_ROWS = 8, 6
BODY_INCHES = 5.6
HEADS_INCHES, MARGIN = 0.36, 0.08
LETTERS_AN_INCH = 13  # of 8 pt text, where most of them are wide


def draw(group: Group, store: Store) -> list[Drawing]:
    """A sheet for each axis with two or more values; where there is none, one sheet of the one cell."""
    name = f"sheet-{group.slug}"
    have = [has_grid(store.place, cell_id) for cell_id in group.cells["cell_id"]]
    shown = Group(group.task, group.model, group.cells[np.array(have, bool)])
    if shown.cells.empty:
        return [Drawing(name, None, f"no image grids in {store.place}/{layout.GRIDS}")]
    sheets = []
    for axis, title in AXES.items():
        held = [] if axis == "label" else VARIANT
        selection = shown.select(axis, needs=["cell_id"], axes=held, lines=False)
        if selection is not None and selection.cells[axis].nunique() > 1:
            sheets.append(
                _sheet(f"{name}-{'sampler' if axis == 'label' else axis}", group, axis, title, selection, store)
            )
    if not sheets:
        only = Selection(shown.cells.tail(1), "", f"{len(shown.cells) - 1} other cells" if len(shown.cells) > 1 else "")
        sheets.append(_sheet(name, group, "label", "sampler", only, store))
    return sheets


def _sheet(name: str, group: Group, axis: str, title: str, selection: Selection, store: Store) -> Drawing:
    order = {name: str(k) for k, name in enumerate(PRECISIONS)}
    cells = selection.cells.sort_values(axis, key=lambda column: column.replace(order))
    if len(cells) > MOST_COLUMNS:
        cells = cells.iloc[np.linspace(0, len(cells) - 1, MOST_COLUMNS).round().astype(int)]
    grids = _grids(cells, store)
    cells = cells[cells["cell_id"].isin(list(grids))]
    indices = sorted(set.intersection(*(set(grid.indices) for grid in grids.values())))[:MOST_ROWS] if grids else []
    if not indices:
        return Drawing(name, None, "the image grids are damaged or have no image in common")
    prompts = _prompts(store, cells.iloc[0]["cell_id"], indices)
    several = f"{len(cells)} of {len(selection.cells)} values shown" if len(cells) < len(selection.cells) else ""
    held = f"held: {selection.held}" if selection.held else ""
    notes = [f"columns: {title}; rows: prompts, with the same noise in every column", held, several]
    heads = [plain(value) for value in cells[axis]]
    tiles = [[grids[cell_id].images[grids[cell_id].indices.index(k)] for cell_id in cells["cell_id"]] for k in indices]
    begun = _sources(store, list(cells["cell_id"]), grids, indices)
    if begun is not None:
        heads = ["source, mask outlined" if group.task == "inpaint" else "source", *heads]
        tiles = [[first, *row] for first, row in zip(begun, tiles, strict=True)]
    elif group.task != "txt2img":
        notes.append("no sources: the records are of a version that did not keep them")
    figure = _layout(f"Images by {title}: {group.task}, {group.model}", notes, heads, prompts, tiles)
    return Drawing(name, figure, several)


def _layout(
    title: str, notes: list[str], heads: list[str], prompts: list[str], tiles: list[list[np.ndarray]]
) -> Figure:
    """`tiles[row][column]` as one picture, under `heads` and beside `prompts`, wrapped to the room there is."""
    picture, (across, down) = _picture(tiles)
    side = min(1.15, BODY_INCHES / len(heads))
    beside = min(WIDTH - side * len(heads) - MARGIN, 3.0)
    wide, high = (pixels * side / across for pixels in (picture.shape[1], picture.shape[0]))
    figure = titled(title, notes, high + HEADS_INCHES + MARGIN, width=beside + wide + MARGIN)
    figure.set_layout_engine("none")  # every size is known, and measuring text for a layout takes its time
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((beside / full_width, MARGIN / full_height, wide / full_width, high / full_height))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    style = {"fontsize": 8, "annotation_clip": False}
    for k, prompt in enumerate(prompts):
        text = _wrapped(prompt, int(LETTERS_AN_INCH * (beside - 2 * MARGIN)))
        axes.annotate(text, (-0.06 / side * across, down * (k + 0.5)), ha="right", va="center", **style)
    for k, head in enumerate(heads):
        text = "\n".join(textwrap.wrap(head, int(LETTERS_AN_INCH * side), max_lines=2, placeholder="…"))
        axes.annotate(text, (across * (k + 0.5), -0.05 / side * across), ha="center", va="bottom", **style)
    axes.set_axis_off()
    return figure


def _picture(tiles: list[list[np.ndarray]]) -> tuple[np.ndarray, tuple[int, int]]:
    """All tiles on white with a small gap, and the pitch from one to the next: (across, down) in pixels."""
    height, width = tiles[0][0].shape[:2]
    gap = max(1, round(0.03 * width))
    across, down = width + gap, height + gap
    sheet = np.full((down * len(tiles) - gap, across * len(tiles[0]) - gap, 3), 255, np.uint8)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            sheet[i * down : i * down + height, j * across : j * across + width] = tile
    return sheet, (across, down)


def _grids(cells: pd.DataFrame, store: Store) -> dict[str, Tiles]:
    """The readable grids; a damaged one costs its column and a line of warning."""
    grids = {}
    for cell_id in cells["cell_id"]:
        try:
            grid = load_grid(store.place, cell_id)
            first = next(iter(grids.values()), grid)
            if grid.images.shape[1:] != first.images.shape[1:]:
                raise ValueError("its tiles have another size than those of the same images")
            grids[cell_id] = grid
        except (OSError, ValueError) as error:
            warnings.warn(f"image grid of {cell_id} is damaged: {plain(error)}", stacklevel=2)
    return grids


def _sources(store: Store, cell_ids: list[str], grids: dict[str, Tiles], indices: list[int]) -> list[np.ndarray] | None:
    """What the images `indices` began with, of the first cell that kept it, with the outline of what is repainted."""
    for cell_id in cell_ids:
        grid = grids[cell_id]
        try:
            kept = load_sources(store.place, cell_id, len(grid.indices))
        except (OSError, ValueError) as error:
            warnings.warn(f"sources of {cell_id} are damaged: {plain(error)}", stacklevel=2)
            continue
        if kept is not None and kept[0].shape == grid.images.shape:
            sources, masks = kept
            rows = [grid.indices.index(index) for index in indices]
            return [sources[k] if masks is None else outlined(sources[k], masks[k]) for k in rows]
    return None


def outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of `picture` (H, W, 3) with the edge of `mask` (H, W) in black on white, seen on any ground."""
    inner = _eroded(mask)
    outer = ~_eroded(~mask)
    out = picture.copy()
    out[outer & ~mask] = 255
    out[mask & ~inner] = 0
    return out


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Without the pixels that touch one outside, by an edge; the border of the picture is no outside."""
    wide = np.pad(mask, 1, mode="edge")
    return mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]


def _prompts(store: Store, cell_id: str, indices: list[int]) -> list[str]:
    rows = store.images(["image_index", "prompt"], [cell_id]).dropna()
    known = dict(zip(rows["image_index"].astype(int), rows["prompt"], strict=True))
    return [known.get(index, f"image {index}") for index in indices]


def _wrapped(prompt: str, width: int, most_lines: int = 5) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in prompt)
    return "\n".join(textwrap.wrap(text, width, max_lines=most_lines, placeholder=" …"))
