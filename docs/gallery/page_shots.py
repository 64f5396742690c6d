"""Pictures of a sweep's page, as a person meets it: `python docs/gallery/page_shots.py results/page.html`.

Writes WebP files beside this script: the trade-off, the cell that was clicked there, and two cells with a wipe between
them, in the light and in the dark. Needs Chromium and playwright (`uv sync --group browser`). `--every FOLDER` writes
every view at three widths in both colour schemes instead, as PNG, to be looked at.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
WIDTHS = (360, 800, 1400)
HOW = ("side", "wipe", "blink", "difference")  # of two cells' images
SCHEMES = ("light", "dark")
LARGEST = 150_000  # bytes of a picture in git
WAIT_MS = 300_000
# Every picture in sight is drawn; others load later.
DECODED = """Promise.all([...document.images].filter((img) => img.getBoundingClientRect().top < innerHeight)
    .map((img) => img.decode().catch(() => null)))"""
WIDE = {"width": 1200, "height": 760}


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened(browser: Any, page: Path, fragment: str, scheme: str, viewport: dict[str, int]) -> Any:
    tab = browser.new_page(viewport=viewport, color_scheme=scheme)
    tab.set_default_timeout(WAIT_MS)
    tab.goto(page.resolve().as_uri() + fragment)
    tab.wait_for_selector("html[data-ready=yes]")
    return tab


def click_through(browser: Any, page: Path) -> None:
    """From a point of the front to its images, and beside those of the cheapest cell."""
    tab = opened(browser, page, "#view=tradeoff", "light", WIDE)
    tab.locator("#view-tradeoff .chart").focus()
    tab.keyboard.press("ArrowLeft")  # the dearest cell, with what is said of it
    keep(tab, "page-tradeoff")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".pair .tile img")
    keep(tab, "page-images")
    pick(tab, "b")
    tab.evaluate("Page.set({ how: 'wipe' })")
    keep(tab, "page-wipe")
    keep(opened(browser, page, "#view=tradeoff", "dark", WIDE), "page-dark")


def pick(tab: Any, side: str, dearest: bool = False) -> None:
    """The cell of the fewest (or most) denoiser calls that has images becomes A or B."""
    order = "nfe(q) - nfe(p)" if dearest else "nfe(p) - nfe(q)"
    cell = f"[...Page.rows].filter((i) => i in Page.data.images.tiles).sort((p, q) => {order})[0]"
    tab.evaluate(f"() => {{ const nfe = Page.data.column.get('nfe').get; Page.pick('{side}', {cell}); }}")


def keep(tab: Any, name: str) -> None:
    tab.evaluate(DECODED)
    with Image.open(BytesIO(tab.screenshot())) as taken:
        for quality in (90, 80, 65, 50):
            content = BytesIO()
            taken.convert("RGB").save(content, "WEBP", quality=quality, method=6)
            if len(content.getvalue()) <= LARGEST:
                break
    (HERE / f"{name}.webp").write_bytes(content.getvalue())
    print(f"written: {HERE / name}.webp ({len(content.getvalue()) / 1000:.0f} kB)")


def every(browser: Any, page: Path, folder: Path, widths: list[int], views: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        for width in widths:
            tab = opened(browser, page, "", scheme, {"width": width, "height": 900})

            def shot(name: str, tab=tab, ending=f"{width}-{scheme}.png") -> None:
                tab.evaluate("() => { for (const img of document.images) img.loading = 'eager'; }")
                tab.evaluate("Promise.all([...document.images].map((img) => img.decode().catch(() => null)))")
                tab.screenshot(path=folder / f"{name}-{ending}", full_page=True)

            for view in views or tab.evaluate("Object.keys(Page.views)"):
                tab.evaluate("Page.open", view)
                shot(view)
                if view == "compare" and tab.evaluate("Page.data.levels.length"):
                    tab.evaluate("Page.set({ level: '0' })")
                    shot("compare-levels")
                if view == "images":
                    pick(tab, "a", dearest=True)
                    pick(tab, "b")
                    for how in HOW:
                        tab.evaluate("(how) => Page.set({ how })", how)
                        shot(f"images-{how}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="a page.html")
    parser.add_argument("--every", type=Path, metavar="FOLDER")
    parser.add_argument("--widths", type=int, nargs="*", default=list(WIDTHS))
    parser.add_argument("--views", nargs="*", default=[])
    asked = parser.parse_args()
    with chromium() as browser:
        if asked.every:
            every(browser, asked.page, asked.every, asked.widths, asked.views)
        else:
            click_through(browser, asked.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
