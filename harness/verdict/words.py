"""What a table of differences says, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from harness.verdict.measures import Measure
from harness.verdict.names import Names, joined, phrase
from harness.verdict.paired import ALPHA

MOST_GROUPS = 4  # comparable groups of one measure that are told each by itself
MOST_WORSE = 4  # worse cells that are named
LOPSIDED = 1.5  # longer over shorter side of an interval from which on "±" would mislead


def sentences(found: dict[Measure, pd.DataFrame], cells: pd.DataFrame, called: Names) -> list[str]:
    """A sentence a measure and comparable group of two or more cells; what is the same of several is said once."""
    said: dict[str, list[str]] = {}
    for what, frame in found.items():
        if all_equal(frame):
            text = f"{what.form.format(frame['value'].iloc[0] * what.scale)} in all {len(frame)} cells"
            said.setdefault(text, []).append(what.heading)
            continue
        groups = [rows for _, rows in frame.groupby("group", sort=False) if len(rows) > 1]
        if len(groups) > MOST_GROUPS:
            text = f"the cells fall into {len(groups)} groups that cannot be compared; the brackets tell of each"
            said.setdefault(text, []).append(what.heading)
            continue
        for rows in groups:
            text = _group(what, rows, called)
            here = where(rows, frame, called) if frame["group"].nunique() > 1 else ""
            said.setdefault(text, []).append(f"{what.heading}{here}")
    return [f"{joined(list(dict.fromkeys(heads)))}: {text}." for text, heads in said.items()]


def verdicts(cells: pd.DataFrame, called: Names) -> list[str]:
    """What the protocols that were asked for say of the cells, a line each verdict."""
    if "protocol_verdict" not in cells:
        return []
    lines = []
    for verdict, rows in cells.groupby("protocol_verdict", sort=False):
        who = called.list(rows.index) if len(rows) < len(cells) else f"all {len(rows)} cells" if len(rows) > 1 else ""
        lines.append(f"protocol {verdict}" + (f" ({who})" if who else ""))
    return lines


def all_equal(frame: pd.DataFrame) -> bool:
    """Whether two or more cells have one and the same value."""
    return len(frame) > 1 and frame["value"].nunique() == 1


def _group(what: Measure, rows: pd.DataFrame, called: Names) -> str:
    others = rows[rows["cell_id"] != rows["to"]]
    best = rows.index[rows["cell_id"] == rows["to"]][0]
    tied, worse = others[others["tied"]], others[~others["tied"]]
    all_of_them = called.list(rows.index) if len(rows) <= 6 else f"all {len(rows)} cells"
    if len(worse) == 0:
        exact = (others["difference"] == 0).all() and (others["low"] == others["high"]).all()
        if not exact and (images := _too_few(rows)):
            return f"{images} images are too few to tell {len(rows)} cells apart: compare fewer, or measure more"
        return f"{all_of_them} {'are equal' if exact else 'cannot be told apart'}"
    text = f"{called.of(best)} is best"
    if len(tied):
        text += f", not to be told from {called.list(tied.index)}"
    by = _by(worse, what.scale)
    if len(worse) <= MOST_WORSE:
        return f"{text}; {called.list(worse.index)} {'is' if len(worse) == 1 else 'are'} worse, by {by}"
    return f"{text}; the other {len(worse)} are worse, by {by}"


def _too_few(rows: pd.DataFrame) -> int:
    """The number of images where no outcome could be significant: n pairs have p ≥ 2^(1−n), and Holm multiplies it by
    the number of pairs of cells. 0 where they are enough, or where no images stand behind the comparison.
    """
    images = rows.loc[rows["paired"] & (rows["cell_id"] != rows["to"]), "n"]
    pairs = len(rows) * (len(rows) - 1) / 2
    return int(images.max()) if len(images) and pairs * 2.0 ** (1 - images.max()) > ALPHA else 0


def _by(worse: pd.DataFrame, scale: float) -> str:
    if len(worse) == 1:
        row = worse.iloc[0]
        if row["difference"] < 0:
            row = {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
        return difference(row, scale).lstrip("+")
    sizes = worse["difference"].abs() * scale
    least, most = amount(sizes.min()), amount(sizes.max())
    return least if least == most else f"{least} to {most}"


def where(rows: pd.DataFrame, frame: pd.DataFrame, called: Names) -> str:
    """What the cells of one group have in common and not all have."""
    said = []
    for column in called.table:
        values = called.table.loc[rows.index, column]
        if values.nunique() == 1 and called.table.loc[frame.index, column].nunique() > 1:
            said.append(phrase(column, values.iloc[0]))
    return f" ({', '.join(said)})" if said else ""


def difference(row: Mapping[str, float], scale: float = 1.0) -> str:
    """The difference with its half-width to two digits, or with both ends where the interval is lopsided.

    >>> difference({"difference": 0.0131, "low": 0.0011, "high": 0.0251})
    '+0.013 ± 0.012'
    >>> difference({"difference": 2.8, "low": 0.3, "high": 8.0})
    '+2.8 (+0.3 to +8.0)'
    """
    value, half = row["difference"] * scale, (row["high"] - row["low"]) * scale / 2
    if not math.isfinite(half):
        return f"{value:+.2g}"
    if half == 0:
        return f"{value:+.3g}"
    if max(abs(value), half) < 1e-3:
        return f"{value:+.1e} ± {half:.0e}".replace("e-0", "e-")
    decimals = max(0, 1 - math.floor(math.log10(half)))
    decimals = min(decimals, max(0, 3 - math.floor(math.log10(max(abs(value), half)))))  # four digits are enough
    low, high = row["low"] * scale, row["high"] * scale
    if max(value - low, high - value) > LOPSIDED * min(value - low, high - value):
        return f"{value:+.{decimals}f} ({low:+.{decimals}f} to {high:+.{decimals}f})"
    return f"{value:+.{decimals}f} ± {half:.{decimals}f}"


def amount(size: float) -> str:
    """Two or three digits of a positive number."""
    return f"{size:.0f}" if size >= 100 else f"{size:.2g}"
