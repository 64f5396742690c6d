"""Masks of a folder: which file belongs to which image, and which of its pixels are repainted. Imports no torch.

A mask is read by its own range: black is kept, and what is not black (1 of 1, 255 of 255, 65535 of 65535, or one
colour) is repainted; where levels lie between, the upper half of the range is. Alpha counts where the colours say
nothing. What can be understood in two ways is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.data.pictures import IMAGE_SUFFIXES, opened, size
from harness.errors import InputError
from harness.knob_paths import expanded

DARK = 1 / 8  # share of the full range: below it a lossy picture is black, and a colour is no colour
FAINT = 1 / 4  # share of the full range: several levels that all lie below it number classes and are no soft edge
HUE = 0.3  # how far a pixel's colour, its largest part scaled to 1, may lie from the mask's own
STRAY = 0.02  # share of a lossy picture's coloured pixels that may lie farther

HOW = "black is keep, white or one other colour is repaint"


def mask_file(folder: str, image: Path, top: str | Path | None = None, what: str = "mask") -> Path:
    """The mask of an image (or `what` else): at the place of the image below `top`, else by name, of any suffix."""
    place = expanded(folder)
    where = [place]
    if top is not None and (below := os.path.relpath(image.parent, expanded(top))) != os.curdir:
        where.insert(0, place / below)
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]
    for spot in where:
        for name in (image.name, *(image.stem + suffix for suffix in suffixes)):
            if (spot / name).is_file():
                return spot / name
    where_to_look = f"{'data.masks=' if what == 'mask' else ''}{str(place)!r}"
    raise InputError(f"no {what} for {image.name!r} in {where_to_look}: it needs an image of the same name")


def check_masks(folder: str, images: Iterable[Path], top: str | Path | None = None) -> None:
    """Every image has a mask of its own size that can be understood; each is read once while it stays as it is."""
    for image in images:
        file = mask_file(folder, image, top)
        (width, height), (image_width, image_height) = size(file), size(image)
        if (width, height) != (image_width, image_height):
            raise InputError(
                f"mask {str(file)!r} is {width}x{height} pixels, its image {image.name!r} is "
                f"{image_width}x{image_height}: they must be equal"
            )
        facts = file.stat()
        _understood(file, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=100_000)
def _understood(file: Path, modified: int, length: int) -> None:
    read_mask(file)


def read_mask(file: Path) -> np.ndarray:
    """bool (height, width) as people see the picture, True = repaint. InputError where its meaning is not clear."""
    image = opened(file)
    lossy = _is_lossy(file)
    if image.mode == "1":
        return np.asarray(image)
    if image.mode.startswith("I"):
        return _numbers(np.asarray(image).astype(np.int64), file)
    if image.mode == "L" and "transparency" not in image.info:
        return _by_level(np.asarray(image), 255, file, lossy)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return _with_alpha(pixels[..., :3], pixels[..., 3], file, lossy)
    return _by_colour(np.asarray(image.convert("RGB")), file, lossy)


def _is_lossy(file: Path) -> bool:
    """Whether the picture is stored approximately: its black is rarely 0 everywhere."""
    with file.open("rb") as opened_file:
        head = opened_file.read(64)
    return head.startswith(b"\xff\xd8") or (head[8:12] == b"WEBP" and b"VP8L" not in head)


def _numbers(levels: np.ndarray, file: Path) -> np.ndarray:
    """Levels of 16 bits, which a file may use up to 1, 255 or 65535."""
    levels = np.clip(levels, 0, 65535)
    return _by_level(levels, 255 if levels.max() <= 255 else 65535, file, lossy=False)


def _by_level(levels: np.ndarray, full: int, file: Path, lossy: bool) -> np.ndarray:
    peak = int(levels.max())
    if lossy:
        half = peak / 2 if DARK * full < peak < full / 2 else full / 2
        return levels >= half
    above = np.flatnonzero(np.bincount(levels.ravel())[1:]) + 1
    if len(above) <= 1:
        return levels > 0
    if peak >= FAINT * full:
        return levels >= (full if 2 * peak > full else peak) / 2
    raise InputError(
        f"mask {str(file)!r} has the levels {_few(above)} of {full} besides black, and it is not clear which are "
        f"repainted: {HOW}"
    )


def _by_colour(colours: np.ndarray, file: Path, lossy: bool) -> np.ndarray:
    """Pixels (height, width, 3): levels by the largest part; all that are not dark must have one colour."""
    strength = colours.max(-1)
    bright = colours[strength >= DARK * 255].astype(np.float32)
    if len(bright):
        hues = bright / bright.max(-1, keepdims=True)
        off = np.abs(hues - np.median(hues, 0)).max(-1) > HUE
        if off.mean() > (STRAY if lossy else 0):
            shown = np.unique(bright[:: max(1, len(bright) // 1000)].astype(int), axis=0)
            raise InputError(
                f"mask {str(file)!r} has several colours besides black ({_few(map(tuple, shown.tolist()))}), and it "
                f"is not clear which are repainted: {HOW}"
            )
    return _by_level(strength, 255, file, lossy)


def _with_alpha(colours: np.ndarray, alpha: np.ndarray, file: Path, lossy: bool) -> np.ndarray:
    """Alpha counts where it varies and the colours do not; where both vary, what is seen over black."""
    seen = alpha > 0
    if not seen.any():  # all of it is transparent: only colours that vary can be meant
        mask = _by_colour(colours, file, lossy)
        return mask if mask.any() and not mask.all() else np.zeros_like(mask)
    opaque = _by_level(alpha, 255, file, lossy)
    if opaque.all() or not opaque.any():
        return _by_colour(colours, file, lossy)
    here = colours[seen].astype(int)
    one_colour = (np.ptp(here, axis=0) <= DARK * 255).all()
    elsewhere = colours[~seen]
    if one_colour and (here.max() >= DARK * 255 or not len(elsewhere) or elsewhere.max() < DARK * 255):
        return opaque
    if len(elsewhere) and elsewhere.max() >= DARK * 255:
        raise InputError(
            f"mask {str(file)!r} says one thing with its colours and another with its transparency: save it without "
            f"an alpha channel; {HOW}"
        )
    over_black = (colours.astype(np.float32) * (alpha[..., None] / np.float32(255))).round().astype(np.uint8)
    return _by_colour(over_black, file, lossy)


def _few(values: Iterable[object], most: int = 4) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
