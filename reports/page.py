"""The whole sweep as one HTML file that opens from disk: overview, trade-off, table, images, comparison, provenance.

    python reports/page.py [--results DIR] [--out FILE] [--images embed|beside|none] [--where sampler=unipc]

Writes results/page.html. Every difference, front and interval is the one that the other reports give. Needs neither
torch nor Hydra, and the file needs neither a network nor a server.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.errors import interruptible, one_line
from harness.store import layout
from harness.store.records import Store
from reports import options


def main(words: Sequence[str] | None = None) -> int:
    asked = _arguments(words)

    def work() -> int:
        from reports.web import build, payload  # pandas is loaded by now; jinja2 is not asked for before it is needed

        began = time.perf_counter()
        cells = options.read(asked)
        out = asked.out or layout.page(asked.results)
        page = build.write(cells, Store(asked.results), out, payload.title_of(asked.results), asked.images)
        beside = "" if page.beside is None else f", its images in {page.beside}"
        took = time.perf_counter() - began
        print(one_line(f"written: {page.path} ({len(cells)} cells, {page.size / 2**20:.2f} MiB, {took:.1f} s){beside}"))
        return 0

    return options.guarded(work)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The whole sweep as one HTML file that opens from disk.")
    options.add(parser, table=False)
    parser.add_argument("--out", type=Path, help="the file (default: page.html in the folder of records)")
    parser.add_argument(
        "--images", choices=("embed", "beside", "none"), default="embed",
        help="thumbnails in the file (up to 12 MiB, more lie beside it), in a folder beside it, or none",
    )  # fmt: skip
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(interruptible(main))
