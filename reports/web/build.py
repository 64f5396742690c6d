"""The page as one file: template, style, scripts, charting library, data and pictures; nothing is fetched by it.

Scripts and style are named by their hashes in the page's content security policy: text out of records is never run,
whatever it holds, and no request can leave the page.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import InputError
from harness.store.records import Store
from reports.web import payload, pictures
from reports.web.pictures import Pictures

HERE = Path(__file__).resolve().parent
STYLES = ("vendor/uPlot.min.css", "static/page.css")
# In the order in which they build on one another.
SCRIPTS = (
    "vendor/uPlot.iife.min.js", "static/data.js", "static/format.js", "static/dom.js", "static/state.js",
    "static/chart.js", "static/overview.js", "static/tradeoff.js", "static/table.js", "static/images.js",
    "static/compare.js", "static/curves.js", "static/diagnosis.js", "static/plans.js", "static/timings.js",
    "static/provenance.js", "static/live.js", "static/main.js",
)  # fmt: skip
TABS = (
    ("overview", "Overview"), ("tradeoff", "Trade-off"), ("table", "Table"), ("images", "Images"),
    ("compare", "Compare"), ("curves", "Convergence"), ("plans", "Plans"), ("timings", "Timings"),
    ("provenance", "Provenance"), ("errors", "Errors"),
)  # fmt: skip
FOLDER = "-images"  # beside page.html: page-images/


@dataclass(frozen=True)
class Page:
    """`size`: bytes of the file; `way`: where its pictures went; `beside`: their folder, where there is one."""

    path: Path
    size: int
    way: str
    beside: Path | None


def write(cells: pd.DataFrame, store: Store, out: Path, title: str, way: str = pictures.EMBED) -> Page:
    """The page of `cells` at `out`, whole or not at all. InputError where it cannot be written."""
    shown = Pictures({}, {}, {}, set(), True) if way == pictures.NONE else pictures.read(cells, store)
    if way == pictures.EMBED and (shown.recorded or shown.size > pictures.LIMIT):
        way = pictures.BESIDE
    content = payload.build(cells, store, shown, title, way)
    folder = out.with_name(out.stem + FOLDER) if way == pictures.BESIDE and shown.tiles else None
    text = render(title, content, pictures.embedded(shown) if way == pictures.EMBED else {}, folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            pictures.beside(shown, store, folder)
        unfinished = out.with_name(f".{out.name}.tmp")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}; free it or give --out FILE") from error
    return Page(out, len(text.encode()), way, folder)


def render(title: str, content: bytes | None, embedded: dict[str, str], folder: Path | None, live: bool = False) -> str:
    """The HTML. `content`: the block; None: the page asks its server for it (`live`)."""
    styles = [_source(name) for name in STYLES]
    scripts = [_source(name) for name in SCRIPTS]
    environment = Environment(
        loader=FileSystemLoader(HERE / "static"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        policy=_policy(styles, scripts, live),
        styles=[Markup(text) for text in styles],
        scripts=[Markup(text) for text in scripts],
        tabs=TABS,
        data="" if content is None else base64.b64encode(content).decode(),
        pictures=embedded,
        folder="" if folder is None else folder.name,
        live=live,
    )


def _source(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8").strip()
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{name} would end its own element: write it in two parts")
    return text


def _policy(styles: list[str], scripts: list[str], live: bool) -> str:
    def hashes(texts: list[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts
        )

    own = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; "
        f"img-src data: blob: file: 'self'; connect-src {own}; base-uri 'none'; form-action 'none'"
    )
