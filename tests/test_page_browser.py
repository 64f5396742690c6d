"""The page in a real Chromium, opened from disk: what a person does with it, with a mouse and with keys alone."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import records

from harness.store.records import Store
from reports import page as command

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 60_000
HOSTILE = "</script><script>document.title='run'</script>\u202egnp.exe \"'><img src=x onerror=alert(1)>"
LONG = "word" * 2500

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright: uv sync --group browser"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder)
    for sampler in ("euler", "dpmpp"):
        for steps in (5, 10, 20):
            records.write(store, records.cell_row(sampler, steps))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PROMPTS", (HOSTILE, LONG, *records.PROMPTS))
        records.write(store, records.cell_row("unipc", 20, model=HOSTILE))
    failed = {"status": "failed", "error": f"{HOSTILE} {LONG}", "fid": None, "latency_s": None}
    records.write(store, records.cell_row("plms", 7, **failed))
    assert command.main(["--results", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def address(folder) -> str:
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end nothing was asked of a network and nothing was said in the console."""
    told: list[str] = []
    contexts = []

    def open_(fragment: str = "", at: str = address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: told.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: told.append(f"error: {error}"))
        own = ("data:", "blob:", "file:" if at == address else at)
        page.on("request", lambda r: None if r.url.startswith(own) else told.append(r.url))
        page.goto(at + fragment)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert told == []


def rows(page) -> int:
    return int(page.text_content("#count").split()[0])


def counted(page, text: str) -> None:
    """Wait until the count of cells says so; `wait_for_function` evaluates text, which the page forbids."""
    page.locator("#count", has_text=text).wait_for()


def test_filters_sort_and_a_link_that_keeps_them(opened):
    page = opened("#view=table")
    assert rows(page) == 8
    page.click("#more")
    page.get_by_role("group", name="sampler", exact=True).get_by_label("euler").uncheck()
    assert rows(page) == 5
    page.fill("#search", "20")
    counted(page, "2 of 8")
    page.fill("#search", "")
    counted(page, "5 of 8")
    page.get_by_role("button", name="FID", exact=True).click()
    place = [text.strip() for text in page.locator("table.cells thead th").all_text_contents()].index("FID") + 1
    values = page.locator(f"table.cells tbody tr td:nth-child({place})").all_text_contents()
    numbers = [float(text.split()[0]) for text in values if text[0].isdigit()]
    assert len(numbers) >= 4 and numbers == sorted(numbers)
    again = opened(page.evaluate("location.hash"))
    assert rows(again) == 5 and again.get_attribute("th[aria-sort=ascending]", "aria-sort") == "ascending"


def test_a_brush_selects_cells_in_every_view(opened):
    page = opened("#view=tradeoff&x=latency_s&y=fid")
    box = page.locator(".u-over").first.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 3, steps=6)
    page.mouse.up()
    counted(page, "brushed")
    chosen = page.evaluate("Page.selected.size")
    assert 0 < chosen < 7
    page.click("#tab-table")
    assert page.locator("table.cells tbody tr").count() == chosen
    page.click("#clear")
    assert page.locator("table.cells tbody tr").count() == 8


def test_from_a_point_to_its_images_and_a_wipe_between_two(opened):
    page = opened("#view=tradeoff&x=latency_s&y=fid")
    at = page.evaluate(
        """() => {
            const box = document.querySelector('.u-over').getBoundingClientRect(), u = Page.lastChart;
            const i = Page.rows.find((row) => Page.data.ok[row]);
            const value = (name) => Page.data.column.get(name).numbers[i];
            return [box.left + u.valToPos(value('latency_s'), 'x'), box.top + u.valToPos(value('fid'), 'y')];
        }"""
    )
    page.mouse.move(at[0] + 1, at[1])
    page.mouse.move(at[0], at[1])
    page.mouse.click(at[0], at[1])
    page.wait_for_selector("#view-images:not([hidden]) .pair")
    assert page.evaluate("Page.state.a") is not None
    other = page.evaluate(
        """Page.data.idOf(Page.rows.find((i) => i in Page.data.images.tiles && Page.data.idOf(i) !== Page.state.a))"""
    )
    page.get_by_label("B", exact=True).select_option(other)
    page.get_by_role("button", name="Wipe").click()
    wiper = page.locator("input.wiper").first
    wiper.focus()
    page.keyboard.press("Home")
    assert wiper.input_value() == "0"
    clip = "document.querySelector('.stage.wipe').lastElementChild.style.clipPath"
    assert page.evaluate(clip).replace("0px", "0") == "inset(0 0 0 0%)"
    page.keyboard.press("End")
    assert "100%" in page.evaluate(clip)
    for way in ("Blink", "Difference"):
        page.get_by_role("button", name=way).click()
        assert page.locator(f".stage.{way.lower()}").count() >= 1
    loaded = page.evaluate(
        "[...document.querySelectorAll('.tile img')].slice(0, 2).every((img) => img.complete && img.naturalWidth > 0)"
    )
    assert loaded


def test_two_cells_and_two_levels_are_compared(opened):
    page = opened("#view=compare")
    text = page.text_content("#view-compare")
    assert "B − A" in text and "FID" in text and page.locator("#view-compare .verdict").count() >= 2
    page.get_by_role("button", name="Two levels of an axis").click()
    assert "pairs" in page.text_content("#view-compare ul")
    assert page.get_by_role("region", name="Pairs").locator("tbody tr").count() >= 2


def test_a_table_is_copied_whole_and_harmless(opened):
    page = opened("#view=table")
    everything = "Page.copies[{!r}](Page.data, ['label', 'model', 'fid'], Page.rows)"
    csv = page.evaluate(everything.format("csv"))
    assert csv.count("\r\n") == 9 and csv.startswith("cell_id,label,model,fid")
    assert "<img" not in page.evaluate(everything.format("markdown"))
    latex = page.evaluate(everything.format("latex"))
    assert latex.count(r"\\") == 9 and r"\textless{}" in latex
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for button, begins in (("CSV", "cell_id,"), ("Markdown", "| "), ("LaTeX", "% \\usepackage")):
        page.get_by_role("button", name=f"Copy {button}").click()
        page.locator("#said", has_text=f"{button} copied").wait_for(state="attached")
        assert page.evaluate("navigator.clipboard.readText()").startswith(begins)


def test_hostile_text_is_shown_and_never_run(opened):
    page = opened("#view=errors")
    assert "<img src=x onerror=alert(1)>" in page.text_content("pre") and LONG in page.text_content("pre")
    for view in page.evaluate("Object.keys(Page.views)"):
        page.evaluate("Page.open", view)
    page.evaluate(
        "Page.set({ a: Page.data.idOf(Page.rows.find((i) => Page.data.column.get('sampler').get(i) === 'unipc')) })"
    )
    page.evaluate("Page.open", "images")
    assert HOSTILE in page.locator("#view-images .pair figcaption > bdi").all_text_contents()
    assert page.title().endswith("sampler sweep") and page.locator("img[src=x]").count() == 0


def test_everything_is_reached_by_keys_alone(opened):
    page = opened()
    page.focus("#tab-overview")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-tradeoff", "aria-selected") == "true"
    page.focus("#view-tradeoff .chart")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#said")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("b")
    assert page.evaluate("Page.state.b")
    page.focus("#view-tradeoff .chart")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-images:not([hidden])")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_and_no_overflow_on_a_telephone(opened, scheme):
    axe = importlib.util.find_spec("axe_playwright_python")
    if axe is None:
        pytest.skip("no axe-core: uv sync --group browser")
    script = (Path(axe.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    page = opened("", viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.evaluate(script)
    for view in page.evaluate("Object.keys(Page.views)"):
        page.evaluate("Page.open", view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, (view, serious)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(18, 22, 28)") == (scheme == "dark")
