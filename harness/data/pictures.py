"""Pictures in files: which kinds are taken, and their pixels as people see them. Imports no torch."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What a picture may really be, whatever it is called: Pillow hands a PostScript file to another program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS = 1 << 26  # the largest picture: decoded it takes 3 or 4 bytes a pixel, several times over
# Pictures that people have and that are not taken: by suffix, and by what their first bytes say.
OTHER_SUFFIXES = (".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".ico", ".tga")
OTHER_SUFFIXES += (".ppm", ".pgm", ".exr", ".dng", ".npy")
MAGIC = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "ICO",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\x93NUM": "numpy",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\0\0\0\x0cJXL": "JPEG XL",
    **{b"P%d" % k: "PNM" for k in range(1, 7)},
}
BOXED = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: these orientations swap width and height


def read_rgb(path: Path) -> Image:
    """The picture as people see it: turned as its EXIF says, transparency over white, 16 bits by their upper 8."""
    from PIL import Image as pil

    image = opened(path)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = pil.fromarray(_upper_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upper_bits(levels: np.ndarray) -> np.ndarray:
    """uint8 of 16-bit levels, whose range is 0 to 65535 whatever of it is used."""
    return (np.clip(levels.astype(np.int64), 0, 65535) >> 8).astype(np.uint8)


def opened(path: Path) -> Image:
    """The decoded picture, turned as its EXIF says. InputError where it is none, damaged or too large."""
    from PIL import Image as pil
    from PIL import ImageOps

    try:
        with pil.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS}")
            return ImageOps.exif_transpose(image)
    except Exception as error:  # what a damaged file makes a decoder raise has no common type
        raise _unreadable(path, error) from None


def size(path: Path) -> tuple[int, int]:
    """(width, height) as people see the picture; read once as long as the file stays as it is."""
    try:
        facts = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return _read_size(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=100_000)
def _read_size(path: Path, modified: int, length: int) -> tuple[int, int]:
    from PIL import Image as pil

    try:
        with pil.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:  # before its EXIF is looked for, which may decode the picture
                raise ValueError(f"{width}x{height} pixels are more than {MOST_PIXELS}")
            turned = image.getexif().get(ORIENTATION) in TURNED
    except Exception as error:  # what a damaged file makes a decoder raise has no common type
        raise _unreadable(path, error) from None
    return (height, width) if turned else (width, height)


def check_kind(path: Path) -> None:
    """InputError for a picture of another kind, by its first bytes; a damaged one is found when it is read."""
    try:
        facts = os.stat(path)
    except OSError:
        return
    if kind := _kind_at(path, facts.st_mtime_ns, facts.st_size):
        raise _of_other_kind(path, kind)


@lru_cache(maxsize=100_000)
def _kind_at(path: Path, modified: int, length: int) -> str | None:
    return other_kind(path)


def other_kind(path: Path) -> str | None:
    """The name of the kind that is not taken, None for one that is or that is not known."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return BOXED.get(head[8:12])
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def _unreadable(path: Path, error: Exception) -> InputError:
    if path.is_file() and (kind := other_kind(path)):
        return _of_other_kind(path, kind)
    reason = (str(error) or type(error).__name__).splitlines()[0][:150]
    return InputError(f"image {str(path)!r} cannot be read ({reason}): mend or remove it")


def _of_other_kind(path: Path, kind: str) -> InputError:
    return InputError(
        f"image {str(path)!r} cannot be read: it is a {kind} file, taken are {', '.join(IMAGE_FORMATS)}: convert it"
    )
