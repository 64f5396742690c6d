"""A real Chromium for tests of the page (mark `browser`): the distribution's, driven by playwright."""

from __future__ import annotations

import importlib.util
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 120_000
needed = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright: uv sync --group browser"),
]


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
        )
        yield found
        found.close()


@pytest.fixture
def opened(chromium):
    """`opened(address, fragment, **options of the context)`; at the end nothing was asked of anybody else, and the
    console is silent."""
    told: list[str] = []
    contexts = []

    def open_(address: str, fragment: str = "", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: told.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: told.append(f"error: {error}"))
        own = ("data:", "blob:", address if address.startswith("http") else "file:")
        page.on("request", lambda r: None if r.url.startswith(own) else told.append(r.url))
        page.goto(address + fragment)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    open_.told = told
    yield open_
    for context in contexts:
        context.close()
    assert told == []


def rows(page) -> int:
    return int(page.text_content("#count").split()[0])


def counted(page, text: str) -> None:
    """Wait until the count of cells says so; `wait_for_function` evaluates text, which the page forbids."""
    page.locator("#count", has_text=text).wait_for()


def seen(locator) -> np.ndarray:
    """The pixels of an element as they are on the screen, (height, width, 3), int."""
    locator.scroll_into_view_if_needed()
    with Image.open(BytesIO(locator.screenshot(animations="disabled"))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def values_of(page, name: str) -> list:
    """A column of the page's data in the order of its cells."""
    return page.evaluate(
        "(name) => Array.from({ length: Page.data.rows }, (_, i) => Page.data.column.get(name).get(i))", name
    )
