"""Prompts of a folder and of a list: which captions belong to which images. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from harness.bounds import MOST_SEED, Whole
from harness.data import listing, tables
from harness.data.pictures import IMAGE_SUFFIXES, check_kind
from harness.data.resize import FITS
from harness.data.textfile import lines, read_text
from harness.errors import InputError, nearest
from harness.knob_paths import expanded

T = TypeVar("T")
MOST_NAMED = 3  # files that a message lists
PICKS = ("first", "all")  # captions of an image that COCO has several of


@dataclass(frozen=True)
class Entry:
    """One prompt and its image; no image where the data is a list of prompts."""

    caption: str
    image: Path | None


@dataclass(frozen=True)
class _Found:
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]


def entries(spec: Mapping[str, Any]) -> list[Entry]:
    """Every prompt of the data in the order of its file, or in the order of `order_seed`. Opens no image."""
    found, seed = list(_read(spec).entries), spec.get("order_seed")
    return found if seed is None else in_order_of(seed, found)


def in_order_of(seed: int, found: list[T]) -> list[T]:
    """A random order that is the same everywhere and for ever: by the hashes of the places."""
    keys = [hashlib.sha256(f"{seed} {place}".encode()).digest() for place in range(len(found))]
    return [found[place] for place in sorted(range(len(found)), key=keys.__getitem__)]


def remarks(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """A line each on what a reader may not expect of the folder: images left out, rows that repeat others."""
    return _read(spec).remarks


def images_of(spec: Mapping[str, Any]) -> list[Path]:
    """The folder's images: those with captions, else (prompts come from elsewhere) all of them, by name."""
    if spec["path"] is None:
        return []
    if spec.get("prompts") is None:
        return list(dict.fromkeys(entry.image for entry in entries(spec)))  # COCO has five captions an image
    return listing.images(listing.folder(spec["path"], "data.path"))


def check(spec: Mapping[str, Any], n_images: int | None, task: str | None) -> None:
    if spec["fit"] not in FITS:
        raise InputError(f"data.fit={spec['fit']!r} is not valid; {nearest(spec['fit'], FITS)}")
    kind = spec.get("sidecars")
    if kind is not None and kind not in listing.SIDECARS:
        raise InputError(f"data.sidecars={kind!r} is not valid; {nearest(str(kind), listing.SIDECARS)}")
    if spec.get("pick", "first") not in PICKS:
        raise InputError(f"data.pick={spec['pick']!r} is not valid; {nearest(str(spec['pick']), PICKS)}")
    if spec.get("order_seed") is not None:
        Whole(0, MOST_SEED)("data.order_seed", spec["order_seed"])
    if kind is not None and (spec["captions"] is not None or spec.get("prompts") is not None):
        raise InputError(f"data.sidecars={kind} and data.captions or data.prompts exclude each other: give one")
    if spec["masks"] not in (None, "center"):
        listing.folder(spec["masks"], "data.masks")
    known = entries(spec)
    if n_images is not None and n_images > len(known):
        raise InputError(
            f"n_images={n_images} is more than the {len(known)} prompts of the data: use n_images={len(known)}"
        )
    if task in ("img2img", "inpaint", "edit", "invert") and known[0].image is None:
        raise InputError(
            f"task={task} needs an image for each prompt, data.prompts has none: give data.path and captions"
        )
    for image in images_of(spec):
        check_kind(image)


# ------------------------------------------------------------------------------------------------------- what is read


def _read(spec: Mapping[str, Any]) -> _Found:
    """Read once as long as every file that may say something stays as it is."""
    asked = tuple(
        spec.get(key) for key in ("path", "captions", "prompts", "image_column", "caption_column", "sidecars", "pick")
    )
    path, captions, prompts = asked[:3]
    told = [captions, prompts]
    if path is not None and expanded(path).is_dir():
        told += _may_say_something(expanded(path), captions is None and prompts is None)
    return _found(asked, tuple((str(file), _stamp(file)) for file in (path, *told)))


def _may_say_something(folder: Path, alone: bool) -> list[Path]:
    """Caption files and folders; where nothing else is given also the texts beside the images."""
    listed = listing.files(folder) if alone else []
    kinds = (*tables.CAPTION_SUFFIXES, *(f".{kind}" for kind in listing.SIDECARS))
    return [*dict.fromkeys(path.parent for path in listed), *(p for p in listed if p.suffix.lower() in kinds)]


@lru_cache(maxsize=8)
def _found(asked: tuple, stamp: tuple) -> _Found:
    path, captions, prompts, image_column, caption_column, sidecars, pick = asked
    if prompts is not None:
        return _Found(tuple(Entry(line, None) for line in prompt_lines(expanded(prompts), caption_column)), ())
    if path is None:
        raise InputError("data=folder needs data.path=FOLDER_OF_IMAGES or data.prompts=FILE_WITH_A_PROMPT_A_LINE")
    folder = listing.folder(path, "data.path")
    listed = listing.files(folder)
    file = expanded(captions) if captions is not None else None if sidecars else _caption_file(folder, listed)
    if file is None:
        return _beside_images(folder, listed, sidecars, caption_column)
    if not file.is_file():
        raise InputError(
            f"data.captions={str(file)!r} is not a file; valid: a {', '.join(tables.CAPTION_SUFFIXES)} file"
        )
    found = tuple(_of_file(file, folder, image_column, caption_column, pick == "all"))
    if not found:
        raise InputError(f"no captioned image in {str(file)!r}: a caption file has a row for each image")
    return _Found(found, tuple(_on_rows(file, found, listed)))


def _on_rows(file: Path, found: tuple[Entry, ...], listed: list[Path]) -> Iterable[str]:
    if repeated := len(found) - len(set(found)):
        yield f"{repeated} of {len(found)} rows of {str(file)!r} repeat another row: each is a prompt of its own"
    there = [path for path in listed if path.suffix.lower() in IMAGE_SUFFIXES]
    named = {entry.image for entry in found}
    if left := sum(path not in named for path in there):
        yield f"{left} of {len(there)} images have no caption in {str(file)!r}: they are left out"


def prompt_lines(file: Path, column: str | None = None) -> list[str]:
    """The prompts of a table (`column` of it), or of a text file with one a line."""
    if not file.is_file():
        raise InputError(
            f"data.prompts={str(file)!r} is not a file: give a text file with one prompt a line, or a "
            f"{', '.join(tables.CAPTION_SUFFIXES)} file"
        )
    if file.suffix.lower() in tables.CAPTION_SUFFIXES:
        return tables.prompts(file, column)
    found = [line.strip() for line in lines(read_text(file))]
    found = [line for line in found if line]
    if not found:
        raise InputError(f"data.prompts={str(file)!r} has no prompt in it: write one prompt a line")
    return found


def _caption_file(folder: Path, listed: list[Path]) -> Path | None:
    """The one caption file of the folder; what has the name of an image beside it is that image's."""
    stems = {path.stem for path in listed if path.parent == folder and path.suffix.lower() in IMAGE_SUFFIXES}
    found = [
        path
        for path in listed
        if path.parent == folder
        and path.suffix.lower() in tables.CAPTION_SUFFIXES
        and not (path.suffix.lower() == ".json" and path.stem in stems)
    ]
    if len(found) > 1:
        raise InputError(f"{str(folder)!r} has several caption files ({_named(found)}): choose with data.captions=FILE")
    return found[0] if found else None


def _named(files: list[Path]) -> str:
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    return ", ".join(path.name for path in files[:MOST_NAMED]) + more


def _beside_images(folder: Path, listed: list[Path], asked: str | None, column: str | None) -> _Found:
    texts = listing.beside(listed)
    others = listing.of_other_kinds(listed)
    if not texts:
        what = f"but {others}: convert them" if others else f"valid: {', '.join(IMAGE_SUFFIXES)}"
        raise InputError(f"{str(folder)!r} has no image in it; {what}")
    kinds = [kind for kind in listing.SIDECARS if any(kind in found for found in texts.values())]
    if asked is not None and asked not in kinds:
        raise InputError(f"data.sidecars={asked}: no image in {str(folder)!r} has a .{asked} file beside it")
    if not kinds:
        raise InputError(
            f"{str(folder)!r} has {len(texts)} images and no captions: add captions.csv (columns file_name, caption), "
            "a .jsonl, .parquet or .json file, a .txt file beside each image, or give data.captions=FILE"
        )
    kind = asked or kinds[0]
    captioned = {image: found[kind] for image, found in texts.items() if kind in found}
    found = tuple(Entry(_text_beside(file, column), image) for image, file in captioned.items())
    said = []
    if left := len(texts) - len(captioned):
        first = next(image for image, found_there in texts.items() if kind not in found_there)
        said.append(
            f"{left} of {len(texts)} images have no caption: without a .{kind} file beside them they are left out "
            f"(the first is {first.relative_to(folder).as_posix()!r})"
        )
    if asked is None and len(kinds) > 1:
        rest = " or ".join(f"data.sidecars={one}" for one in kinds if one != kind)
        said.append(f"captions are read from the .{kind} files beside the images; {rest} takes the others")
    if others:
        said.append(f"{str(folder)!r} has {others}: they are left out")
    return _Found(found, tuple(said))


def _text_beside(file: Path, column: str | None) -> str:
    """The caption in a file of its own: a text of any number of lines, or an object with a caption in it."""
    if file.suffix.lower() == ".json":
        content = tables.read_json(file)
        text = tables.caption_of_object(content, column) if isinstance(content, dict) else content
        wanted = column or ", ".join(tables.CAPTION_COLUMNS)
        return tables.checked(text, f"{str(file)!r} has no caption (an object with one of: {wanted})", file)
    text = re.sub(r"[ \t]*(\r\n|\r|\n)\s*", " ", read_text(file).strip())
    return tables.checked(text, f"{str(file)!r} has no caption in it", file)


def _of_file(
    file: Path, folder: Path, image_column: str | None, caption_column: str | None, every: bool
) -> Iterable[Entry]:
    content = tables.read_json(file) if file.suffix.lower() == ".json" else None
    if not tables.is_coco(content):
        for name, caption in tables.pairs(file, image_column, caption_column):
            yield Entry(caption, _inside(folder, name, file))
        return
    places: dict[str, Path] | None = None
    for name, caption in tables.coco(file, content, every):
        path = folder / name
        if not path.is_file():  # COCO keeps images in val2017/ and the like, beside annotations/
            places = {p.name: p for p in listing.images(folder)} if places is None else places
            path = places.get(Path(name).name, path)
        yield Entry(caption, _inside(folder, os.path.relpath(path, folder), file))


def _inside(folder: Path, name: str, file: Path) -> Path:
    """The image's path; a caption file names images of its folder and nothing else on the machine."""
    relative = os.path.normpath(name)
    if os.path.isabs(relative):
        below = os.path.relpath(relative, folder.absolute())
        if below.startswith(os.pardir):  # the folder may be known by another name than the caption file has for it
            below = os.path.relpath(Path(relative).parent.resolve() / Path(relative).name, folder.resolve())
        relative = below
    if relative.split(os.sep)[0] == os.pardir:
        raise InputError(f"{str(file)!r} names {name!r}, which is outside of data.path={str(folder)!r}")
    path = folder / relative
    if not path.is_file():
        raise InputError(f"{str(file)!r} names {name!r}, which is not in {str(folder)!r}")
    return path


def _stamp(path: Any) -> tuple[int, ...]:
    try:
        facts = os.stat(expanded(path))
    except (OSError, TypeError, ValueError):
        return ()
    return facts.st_size, facts.st_mtime_ns
