"""Records as figures see them, and what a reader of a figure reads; shared by the tests of figures and of reports."""

from __future__ import annotations

from pathlib import Path

import records
from matplotlib.text import Text

from harness.store.records import Store
from reports.records import Group, groups, load
from reports.style import Drawing, Looks


def recorded(folder: Path, rows: list[dict], pictures: bool = False) -> list[Group]:
    store = Store(folder)
    for row in rows:
        records.write(store, row, pictures)
    return groups(load(folder))


def looks(group: Group) -> Looks:
    return Looks(sorted(group.cells["label"].unique()))


def texts(drawing: Drawing) -> str:
    """Everything a reader of the figure can read, on one line."""
    assert drawing.figure is not None, drawing.note
    return " ".join(" ".join(text.get_text().split()) for text in drawing.figure.findobj(Text))
