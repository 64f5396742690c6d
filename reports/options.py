"""What every report takes: `--results DIR`, `--where CONDITIONS`, `--table FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from harness.bounds import SETTINGS
from harness.errors import InputError, one_line
from harness.store import places
from harness.store.shared_machine import cost_per_1000
from harness.verdict.table import EndTable
from reports import table_files, where
from reports.records import load

FORMATS = ("png", "svg", "pdf")


def add(parser: argparse.ArgumentParser, table: bool = True) -> None:
    told = "only cells with these values: sampler=unipc|ddim,steps=10..20 (repeat to add)"
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of records (default: results)")
    price = "of an hour of the machine: cost_per_1000 of every cell by it, instead of what was recorded"
    parser.add_argument("--price-per-hour", type=float, metavar="PRICE", help=price)
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE,…", help=told)
    if table:
        said = "write the table there as well: .csv (numbers), .tex or .md"
        parser.add_argument("--table", type=Path, metavar="FILE", help=said)


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", type=_formats, default=("png", "svg"), help="png, svg, pdf or several, with commas")


def read(asked: argparse.Namespace) -> pd.DataFrame:
    """The cells asked for, with their labels. InputError where there are none, or an option cannot be read."""
    condition = where.parse(asked.where)
    if getattr(asked, "table", None) is not None:
        table_files.check(asked.table)
    cells = cells_of(asked.results, condition)
    return cells if asked.price_per_hour is None else priced(cells, asked.price_per_hour)


def priced(cells: pd.DataFrame, price: float) -> pd.DataFrame:
    """The cells with the cost of 1,000 images at that price of an hour."""
    price = SETTINGS["price_per_hour"]("--price-per-hour", price)
    pace, workers = cells["images_per_s"].astype(float), cells["workers"].astype(float).fillna(1)
    costs = [cost_per_1000(price, *one) for one in zip(pace.where(pace > 0, 0), workers, strict=True)]
    return cells.assign(price_per_hour=price, cost_per_1000=pd.Series(costs, cells.index, dtype=float))


def cells_of(results: Path, condition: where.Where | None = None) -> pd.DataFrame:
    cells = load(results, condition) if places.at(results).there() else None
    if cells is None or cells.empty:
        raise InputError(f"no records in {results}: run `python -m harness.sweep` first, or give --results DIR")
    return cells


def write_table(table: EndTable, path: Path | None) -> list[Path]:
    """The file that `--table` asks for, if any."""
    return [] if path is None else [table_files.write(path, table.texts(), table.numbers(), table.sentences)]


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`; bad input ends it with one line and 2."""
    try:
        return work()
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _formats(text: str) -> tuple[str, ...]:
    """The formats of figures in `png,svg`."""
    given = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    unknown = [word for word in given if word not in FORMATS]
    if unknown or not given:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: {', '.join(FORMATS)}, or several with commas")
    return given
