"""Caption files that are tables: CSV by its own delimiter, JSON lines, JSON, parquet; rows of (file name, caption).

Imports no torch. Whatever is wrong is an InputError that names the file and the row.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.data.textfile import lines, read_text
from harness.errors import InputError, nearest

CAPTION_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
IMAGE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "filepath", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "prompts", "captions", "description", "sentence")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}
JSON_LAYOUTS = "COCO's {images, annotations}, a list of {file_name, caption}, or one object {file name: caption, ...}"
MOST_SHOWN = 12  # columns that a message lists


def pairs(file: Path, image_column: str | None, caption_column: str | None) -> Iterator[tuple[str, str]]:
    """(file name, caption) of each row, both with something in them."""
    rows = _rows(file, (image_column, *IMAGE_COLUMNS), (caption_column, *CAPTION_COLUMNS))
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
        where = f"row {number} of {str(file)!r}"
        name = row.get(image)
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{where} has no file name in column {image!r}")
        yield name.strip(), checked(row.get(caption), f"{where} has no caption in column {caption!r}", file)


def prompts(file: Path, column: str | None) -> list[str]:
    """The prompts of a table that names no images, in its order; of COCO's captions the first of each image."""
    content = read_json(file) if file.suffix.lower() == ".json" else None
    if is_coco(content):
        return [caption for _, caption in coco(file, content)]
    if isinstance(content, list) and content and all(isinstance(one, str) for one in content):
        return [checked(one, f"prompt {k} of {str(file)!r} is empty", file) for k, one in enumerate(content, 1)]
    rows = _rows(file, (), (column, *CAPTION_COLUMNS))
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{str(file)!r} has no rows with prompts in it: each is {{'prompt': ...}}, or a line of a table"
        )
    found = _column(file, list(rows[0]), "column", column, CAPTION_COLUMNS)
    empty = "row {} of " + f"{str(file)!r} has no prompt in column {found!r}"
    return [checked(row.get(found), empty.format(number), file) for number, row in enumerate(rows, 1)]


def checked(text: Any, empty: str, file: Path) -> str:
    """A caption without blanks round it; of several the first. `empty`: what is said where there is none."""
    if isinstance(text, list):
        text = text[0] if text else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{empty}: write one, or take the image out")
    # Half of a surrogate pair, which JSON can write, is no text: neither tokenizers nor parquet take it.
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{str(file)!r} has a caption that is not valid text: {ascii(text.strip())[:80]}")
    return text.strip()


def caption_of_object(content: Mapping[str, Any], column: str | None) -> Any:
    """The caption in the object that lies beside an image."""
    names = {str(name).lower(): name for name in content}
    return next((content[names[name]] for name in (column, *CAPTION_COLUMNS) if name in names), None)


def read_json(file: Path) -> Any:
    """What a .json file holds; of JSON lines under that suffix a list."""
    text = read_text(file)
    try:
        return json.loads(text)
    except ValueError as error:
        if "Extra data" in str(error):
            return _json_lines(file, text)
        raise InputError(f"{str(file)!r} is not JSON ({_first_line(error)}); valid: {JSON_LAYOUTS}") from None
    except RecursionError:
        raise InputError(f"{str(file)!r} is too deep, and not in COCO's layout; valid: {JSON_LAYOUTS}") from None


def is_coco(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


# ------------------------------------------------------------------------------------------------------ the formats


def _rows(file: Path, image_names: tuple, caption_names: tuple) -> list[Any]:
    kind = file.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            return _delimited(file, read_text(file), image_names, caption_names)
        if kind == ".jsonl":
            return _json_lines(file, read_text(file))
        if kind == ".json":
            return _json(file)
        if kind == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(file).to_pylist()
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{str(file)!r} cannot be read as {kind[1:]}: {_first_line(error)}") from None
    raise InputError(f"data.captions={str(file)!r} is of no known kind; valid: {', '.join(CAPTION_SUFFIXES)}")


def _json_lines(file: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(lines(text), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"line {number} of {str(file)!r} cannot be read as JSON ({_first_line(error)}): each line of a "
                    ".jsonl file is one whole object"
                ) from None
    return rows


def _json(file: Path) -> list[Any]:
    """A list of objects, or one object of captions by file name."""
    content = read_json(file)
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, dict) and content and not is_coco(content):
        first = next(iter(content.values()))
        if isinstance(first, str) or (isinstance(first, list) and all(isinstance(one, str) for one in first)):
            return [{"file_name": name, "caption": caption} for name, caption in content.items()]
    raise InputError(f"{str(file)!r} is not in COCO's layout nor another known one; valid: {JSON_LAYOUTS}")


def _delimited(file: Path, text: str, image_names: tuple, caption_names: tuple) -> list[dict[str, Any]]:
    if told := re.match(r"sep=(.)\r?\n", text):  # a line that Excel writes and reads
        text = text[told.end() :]
    delimiter = told[1] if told else _delimiter(text, image_names, caption_names)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[dict[str, Any]] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(file, cells)
                continue
            rows.append(_row(file, header, cells, len(rows) + 1, delimiter))
    except csv.Error as error:
        raise InputError(
            f"row {len(rows) + 1} of {str(file)!r} cannot be read as CSV ({error}): a caption with quotes in it is "
            'quoted, with each of its own quotes twice ("a ""red"" square")'
        ) from None
    return rows


def _header(file: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for k, name in enumerate(names) if name and name in names[:k]), None)
    if twice is not None:
        raise InputError(f"{str(file)!r} has two columns {twice!r}: rename one, so that it is clear which is meant")
    return names


def _row(file: Path, header: list[str], cells: list[str], number: int, delimiter: str) -> dict[str, Any]:
    if any(cell.strip() for cell in cells[len(header) :]):
        raise InputError(
            f"row {number} of {str(file)!r} has {len(cells)} fields, its header {len(header)}: put quotes round a "
            f"caption that holds a {DELIMITERS.get(delimiter, delimiter)}"
        )
    return dict(zip_longest(header, cells[: len(header)]))


def _delimiter(text: str, image_names: tuple, caption_names: tuple) -> str:
    """The one that makes the header hold the columns that are looked for, else the one that makes most columns."""
    found: dict[str, int] = {}
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
            names = next((row for row in reader if row), [])
        except csv.Error:
            names = []
        names = [name.strip() for name in names]
        lower = {name.lower() for name in names}
        known = sum(any(name in names or name in lower for name in wanted) for wanted in (image_names, caption_names))
        found[delimiter] = 1000 * known + len(names) if len(names) > 1 else 0
    return max(found, key=found.__getitem__)  # the comma where nothing says otherwise


def _column(file: Path, have: list[Any], knob: str, asked: str | None, customary: tuple[str, ...]) -> Any:
    if asked is not None:
        if asked not in have:
            raise InputError(
                f"data.{knob}={asked!r} is not a column of {str(file)!r}; {nearest(asked, map(str, have))}"
            )
        return asked
    for name in customary:
        for column in have:
            if str(column).strip().lower() == name:
                return column
    shown = ", ".join(str(name)[:30] for name in have[:MOST_SHOWN]) + (", ..." if len(have) > MOST_SHOWN else "")
    raise InputError(f"{str(file)!r} has no column {customary[0]!r}: choose with data.{knob}=, columns: {shown}")


def coco(file: Path, content: Mapping[str, Any], every: bool = False) -> Iterable[tuple[str, str]]:
    """COCO's captions, images by id: the first of each image (its lowest annotation id), or all of them."""
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        notes = sorted(content["annotations"], key=lambda note: (note["image_id"], note["id"]))
        captions: dict[Any, list[str]] = {}
        for note in notes:
            if every or note["image_id"] not in captions:
                empty = f"annotation {note['id']} of {str(file)!r} has no caption"
                captions.setdefault(note["image_id"], []).append(checked(note["caption"], empty, file))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{str(file)!r} is not in COCO's caption format (images, annotations): {_first_line(error)}"
        ) from None
    for image, texts in captions.items():
        if image not in names:
            raise InputError(f"{str(file)!r} captions image {image!r}, which is not among its images")
        yield from ((names[image], text) for text in texts)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:150]
