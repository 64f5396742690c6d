"""What a folder of images says about itself: which captions belong to which files. Imports no torch."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.data.resize import FITS
from harness.errors import InputError, nearest

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What a picture may really be, whatever it is called: Pillow hands a PostScript file to another program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS = 1 << 26  # of one picture: decoded it takes 3 or 4 bytes a pixel, several times over
CAPTION_SUFFIXES = (".csv", ".jsonl", ".parquet", ".json")
IMAGE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "filepath", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "captions", "description", "sentence")
SMALL_FOLDER = 64 << 20  # bytes; folders up to this are fingerprinted by content, larger ones by names, sizes and times


@dataclass(frozen=True)
class Entry:
    """One prompt and its image; no image where the data is a list of prompts."""

    caption: str
    image: Path | None


def entries(spec: Mapping[str, Any]) -> list[Entry]:
    """Every prompt of the data in the order of its file. Raises InputError; opens no image."""
    files = [spec["captions"], spec["prompts"]]
    if spec["path"] is not None and Path(spec["path"]).is_dir():
        files += [p for p in sorted(Path(spec["path"]).iterdir()) if p.suffix.lower() in CAPTION_SUFFIXES]
    stamp = tuple(_stamp(file) for file in [spec["path"], *files])
    keys = ("path", "captions", "prompts", "image_column", "caption_column")
    return list(_entries(tuple(spec[key] for key in keys), stamp))


@lru_cache(maxsize=8)
def _entries(asked: tuple, stamp: tuple) -> tuple[Entry, ...]:
    path, captions, prompts, image_column, caption_column = asked
    if prompts is not None:
        return tuple(Entry(line, None) for line in _prompt_lines(Path(prompts)))
    if path is None:
        raise InputError("data=folder needs data.path=FOLDER_OF_IMAGES or data.prompts=FILE_WITH_A_PROMPT_A_LINE")
    folder = _folder(path, "data.path")
    file = Path(captions) if captions is not None else _caption_file(folder)
    if file is None:
        found = tuple(_beside_images(folder))
    elif not file.is_file():
        raise InputError(
            f"data.captions={str(file)!r} is not a file; valid: a .csv, .jsonl, .parquet or COCO .json file"
        )
    elif file.suffix.lower() == ".json":
        found = tuple(_coco(file, folder))
    else:
        found = tuple(_table(file, folder, image_column, caption_column))
    if not found:
        raise InputError(f"no captioned image in {str(file or folder)!r}: a caption file has a row for each image")
    return found


def images_of(spec: Mapping[str, Any]) -> list[Path]:
    """The folder's images: those with captions, else (prompts come from elsewhere) all of them, by name."""
    if spec["path"] is None:
        return []
    if spec["prompts"] is None:
        return list(dict.fromkeys(entry.image for entry in entries(spec)))  # COCO has five captions an image
    return _all_images(_folder(spec["path"], "data.path"))


def check(spec: Mapping[str, Any], n_images: int | None, task: str | None) -> None:
    if spec["fit"] not in FITS:
        raise InputError(f"data.fit={spec['fit']!r} is not valid; {nearest(spec['fit'], FITS)}")
    if spec["masks"] not in (None, "center"):
        _folder(spec["masks"], "data.masks")
    known = entries(spec)
    if n_images is not None and n_images > len(known):
        raise InputError(
            f"n_images={n_images} is more than the {len(known)} prompts of the data: use n_images={len(known)}"
        )
    if task in ("img2img", "inpaint") and known[0].image is None:
        raise InputError(
            f"task={task} needs an image for each prompt, data.prompts has none: give data.path and captions"
        )


# ------------------------------------------------------------------------------------------------------ readers


def _folder(given: Any, name: str) -> Path:
    folder = Path(str(given)).expanduser()
    if not folder.is_dir():
        raise InputError(f"{name}={str(given)!r} is not a folder (looked at {folder.absolute()})")
    return folder


def _prompt_lines(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"data.prompts={str(file)!r} is not a file: give a text file with one prompt a line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"data.prompts={str(file)!r} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"data.prompts={str(file)!r} has no prompt in it: write one prompt a line")
    return lines


def _caption_file(folder: Path) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in CAPTION_SUFFIXES and not p.name.startswith("."))
    if len(found) > 1:
        listed = ", ".join(p.name for p in found)
        raise InputError(f"{str(folder)!r} has several caption files ({listed}): choose with data.captions=FILE")
    return found[0] if found else None


def _all_images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _beside_images(folder: Path) -> Iterable[Entry]:
    images = _all_images(folder)
    if not images:
        raise InputError(f"{str(folder)!r} has no image in it; valid: {', '.join(IMAGE_SUFFIXES)}")
    captioned = [p for p in images if p.with_suffix(".txt").is_file()]
    if not captioned:
        raise InputError(
            f"{str(folder)!r} has {len(images)} images and no captions: add captions.csv (columns file_name, caption), "
            "a .jsonl, .parquet or COCO .json file, a .txt file beside each image, or give data.captions=FILE"
        )
    for path in captioned:
        file = path.with_suffix(".txt")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{str(file)!r} cannot be read as UTF-8 text: {first_line(error)}") from None
        yield Entry(" ".join(text.split()), path)


def _rows(file: Path) -> list[dict[str, Any]]:
    kind = file.suffix.lower()
    try:
        if kind == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as opened:
                return list(csv.DictReader(opened))
        if kind == ".jsonl":
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            return [json.loads(line) for line in lines if line.strip()]
        if kind == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{str(file)!r} cannot be read as {kind[1:]}: {first_line(error)}") from None
    raise InputError(f"data.captions={str(file)!r} is of no known kind; valid: {', '.join(CAPTION_SUFFIXES)}")


def _table(file: Path, folder: Path, image_column: str | None, caption_column: str | None) -> Iterable[Entry]:
    rows = _rows(file)
    if not rows:
        raise InputError(f"{str(file)!r} has no rows in it: it needs one for each image")
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{str(file)!r} has a line that is not an object: each is {{'file_name': ..., 'caption': ...}}"
        )
    have = list(rows[0])
    image = _column(file, have, "image_column", image_column, IMAGE_COLUMNS)
    caption = _column(file, have, "caption_column", caption_column, CAPTION_COLUMNS)
    for number, row in enumerate(rows, 1):
        text, name = row.get(caption), row.get(image)
        if isinstance(text, list):
            text = text[0] if text else None
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"row {number} of {str(file)!r} has no file name in column {image!r}")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"row {number} of {str(file)!r} has no caption in column {caption!r}")
        yield Entry(_caption(text, file), _inside(folder, name.strip(), file))


def _caption(text: str, file: Path) -> str:
    """Half of a surrogate pair, which JSON can write, is no text: neither tokenizers nor parquet take it."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{str(file)!r} has a caption that is not valid text: {ascii(text.strip())[:80]}")
    return text.strip()


def _column(file: Path, have: list[str], knob: str, asked: str | None, customary: tuple[str, ...]) -> str:
    if asked is not None:
        if asked not in have:
            raise InputError(f"data.{knob}={asked!r} is not a column of {str(file)!r}; {nearest(asked, have)}")
        return asked
    for name in customary:
        for column in have:
            if str(column).lower() == name:
                return column
    raise InputError(
        f"{str(file)!r} has no column {customary[0]!r}: choose with data.{knob}=, columns: {', '.join(map(str, have))}"
    )


def _coco(file: Path, folder: Path) -> Iterable[Entry]:
    """COCO's captions: the first caption of each image (its lowest annotation id), images by id."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        notes = sorted(content["annotations"], key=lambda note: (note["image_id"], note["id"]))
        captions: dict[Any, str] = {}
        for note in notes:
            captions.setdefault(note["image_id"], _caption(note["caption"], file))
        names = {image: str(name) for image, name in names.items()}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{str(file)!r} is not in COCO's caption format (images, annotations): {first_line(error)}"
        ) from None
    places: dict[str, Path] | None = None
    for image, caption in captions.items():
        if image not in names:
            raise InputError(f"{str(file)!r} captions image {image!r}, which is not among its images")
        path = folder / names[image]
        if not path.is_file():  # COCO keeps images in val2017/ and the like, beside annotations/
            places = {p.name: p for p in _all_images(folder)} if places is None else places
            path = places.get(Path(names[image]).name, path)
        yield Entry(caption, _inside(folder, os.path.relpath(path, folder), file))


def _inside(folder: Path, name: str, file: Path) -> Path:
    """The image's path; a caption file names images of its folder and nothing else on the machine."""
    relative = os.path.normpath(name)
    if os.path.isabs(relative):
        relative = os.path.relpath(relative, folder.absolute())
    if relative.split(os.sep)[0] == os.pardir:
        raise InputError(f"{str(file)!r} names {name!r}, which is outside of data.path={str(folder)!r}")
    path = folder / relative
    if not path.is_file():
        raise InputError(f"{str(file)!r} names {name!r}, which is not in {str(folder)!r}")
    return path


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# -------------------------------------------------------------------------------------------------- fingerprints


def fingerprint(spec: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([spec["fit"], spec["source"], spec["masks"] == "center"]).encode())
    for entry in entries(spec):
        digest.update(f"{entry.caption}\0{entry.image.name if entry.image else ''}\0".encode("utf-8", "surrogatepass"))
    files = images_of(spec)
    if spec["masks"] not in (None, "center"):
        files += _all_images(_folder(spec["masks"], "data.masks"))
    small = sum(path.stat().st_size for path in files) <= SMALL_FOLDER
    for path in files:
        facts = path.stat()
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        digest.update(_content(path) if small else f"{facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    return _content_at(path, *_stamp(path))


@lru_cache(maxsize=65_536)
def _content_at(path: Path, *stamp: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _stamp(path: Any) -> tuple[int, ...]:
    try:
        facts = os.stat(path)
    except (OSError, TypeError, ValueError):
        return ()
    return facts.st_size, facts.st_mtime_ns


def world_fingerprint(spec: Mapping[str, Any]) -> str:
    """Of the embedded world: the code that draws, and the knobs."""
    here = Path(__file__).resolve()
    digest = hashlib.sha256(json.dumps(dict(spec), sort_keys=True).encode())
    for source in (here.parents[1] / "embedded" / "world.py", here.with_name("embedded.py")):
        digest.update(_content(source))
    return digest.hexdigest()[:16]
