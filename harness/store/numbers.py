"""Numbers of the files that hold many cells: each is given out once, so that readers know what may come next. No torch.

    numbers/<n>          given out: to a group of records or to a compaction, which then make */compacted-<n>.parquet
    numbers/compacted    the number of the last compaction: what was given out before it is done, or will never be

A reader that remembers the files of many cells (harness/store/lookup.py) looks at two names, and lists the folder again
only where one of them has changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from harness.store import layout
from harness.store.place import Place
from harness.store.schema import TABLES

STEM = re.compile(r"compacted-(\d+)")


def stem(number: int) -> str:
    """What the files of that number are called."""
    return f"compacted-{number:06d}"


def given(place: Place) -> list[int]:
    """The numbers given out since the last compaction, that one included."""
    found = (name.removeprefix(layout.NUMBERS) for name in place.names(layout.NUMBERS))
    return sorted(int(name) for name in found if name.isdigit())


def last(place: Place, tables: Collection[str] = tuple(TABLES)) -> int:
    """The highest number given out, or that a file has in one of `tables` or among those set aside; 0: none."""
    prefixes = (*map(layout.records, tables), layout.QUARANTINE, layout.EXAMINED)
    stems = [layout.stem_of(name) for prefix in prefixes for name in place.names(prefix)]
    used = (int(match[1]) for match in map(STEM.search, stems) if match)
    return max((*used, *given(place)), default=0)


def reserve(place: Place, after: int | None = None) -> int:
    """A number that nobody else has or had. `after`: the last one known, where nothing need be listed."""
    # What a compaction has forgotten is no name any more, and may be the name of a file all the same.
    number = last(place) if after is None else max(after, _last_compacted(place))
    while True:
        number += 1
        try:
            place.create(layout.number(number), b"")
        except FileExistsError:
            continue
        return number


def _last_compacted(place: Place) -> int:
    try:
        return int(place.read(layout.COMPACTED))
    except FileNotFoundError:
        return 0


def compacted(place: Place, number: int) -> None:
    """The compaction of that number is done: lower ones are of no more interest."""
    place.put(layout.COMPACTED, str(number).encode())
    for lower in given(place):
        if lower < number:
            place.delete(layout.number(lower))
