"""Masks of a folder: which file belongs to which image, and whether it fits. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from harness.data.captions import IMAGE_FORMATS, IMAGE_SUFFIXES, MOST_PIXELS, first_line
from harness.errors import InputError

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: these orientations swap width and height


def mask_file(folder: str, image: Path) -> Path:
    """The mask of an image: the file of the same name, or of the same stem and another image suffix."""
    place = Path(folder).expanduser()
    for name in (image.name, *(image.stem + suffix for suffix in IMAGE_SUFFIXES)):
        if (place / name).is_file():
            return place / name
    raise InputError(f"no mask for {image.name!r} in data.masks={str(place)!r}: it needs an image of the same name")


def check_masks(folder: str, images: Iterable[Path]) -> None:
    """Every image has a mask of its own size; looks at the files' headers only."""
    for image in images:
        file = mask_file(folder, image)
        (width, height), (image_width, image_height) = _size(file), _size(image)
        if (width, height) != (image_width, image_height):
            raise InputError(
                f"mask {str(file)!r} is {width}x{height} pixels, its image {image.name!r} is "
                f"{image_width}x{image_height}: they must be equal"
            )


def _size(path: Path) -> tuple[int, int]:
    """(width, height) as people see the picture; read once as long as the file stays as it is."""
    try:
        stamp = path.stat()
    except OSError as error:
        raise InputError(f"image {str(path)!r} cannot be read ({first_line(error)}): mend or remove it") from None
    return _read_size(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=100_000)
def _read_size(path: Path, modified: int, length: int) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:  # before its EXIF is looked for, which may decode the picture
                raise ValueError(f"{width}x{height} pixels are more than {MOST_PIXELS}")
            turned = opened.getexif().get(ORIENTATION) in TURNED
    except Exception as error:  # what a damaged file makes a decoder raise has no common type
        raise InputError(f"image {str(path)!r} cannot be read ({first_line(error)}): mend or remove it") from None
    return (height, width) if turned else (width, height)
