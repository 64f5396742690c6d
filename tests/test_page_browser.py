"""The page in a real Chromium, opened from disk: what a person does with it, with a mouse and with keys alone."""

from __future__ import annotations

import csv
import importlib.util
from io import StringIO
from pathlib import Path

import pytest
import records
from browsing import counted, needed, rows, values_of

from harness.store.records import Store
from reports import page as command
from reports.records import load

HOSTILE = "</script><script>document.title='run'</script>\u202egnp.exe \"'><img src=x onerror=alert(1)>"
LONG = "word" * 2500
pytestmark = needed


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
    for sampler in ("dpmpp", "unipc"):  # one of them of the model with the hostile name
        (row,) = load(folder).query(f"sampler == {sampler!r} and steps in (5, 20)").head(1).to_dict("records")
        records.diagnose(store, row, row["cell_id"])
    assert command.main(["--results", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def address(folder) -> str:
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> str:
    """The page of 150 cells, more than a table has in sight; KID in thousandths, two groups that nobody compares."""
    folder = tmp_path_factory.mktemp("many")
    store = Store(folder)
    for k in range(150):
        row = records.cell_row(
            ("euler", "dpmpp", "unipc")[k % 3], 4 + k // 3, seed=int(k % 3 == 2), kid=0.002 + k / 1e5
        )
        records.write(store, row, pictures=False)
    assert command.main(["--results", str(folder), "--images", "none"]) == 0
    return (folder / "page.html").as_uri()


def test_filters_sort_and_a_link_that_keeps_them(opened, address):
    page = opened(address, "#view=table")
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
    again = opened(address, page.evaluate("location.hash"))
    assert rows(again) == 5 and again.get_attribute("th[aria-sort=ascending]", "aria-sort") == "ascending"


def test_a_brush_selects_cells_in_every_view(opened, address):
    page = opened(address, "#view=tradeoff&x=latency_s&y=fid")
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


def test_from_a_point_to_its_images_and_a_wipe_between_two(opened, address):
    page = opened(address, "#view=tradeoff&x=latency_s&y=fid")
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


def test_two_cells_and_two_levels_are_compared(opened, address):
    page = opened(address, "#view=compare")
    text = page.text_content("#view-compare")
    assert "B − A" in text and "FID" in text and page.locator("#view-compare .verdict").count() >= 2
    page.get_by_role("button", name="Two levels of an axis").click()
    assert "pairs" in page.text_content("#view-compare ul")
    assert page.get_by_role("region", name="Pairs").locator("tbody tr").count() >= 2


def test_a_plan_shows_where_its_error_arises(opened, address, folder):
    page = opened(address, "#view=plans")
    for sampler, said in (("euler", None), ("dpmpp", "embedded, CFG 3, 16 images"), ("unipc", HOSTILE)):
        row = load(folder).query(f"sampler == {sampler!r} and steps in (5, 20)").iloc[0]
        page.evaluate("(a) => Page.set({ a })", row["cell_id"])
        if said is None:  # it was not diagnosed
            assert page.get_by_role("region", name="Diagnosis").count() == 0
            continue
        box = page.get_by_role("region", name="Diagnosis of")
        assert said in box.locator("h3").inner_text() and "0.0625" in box.inner_text()
        steps = box.locator("table", has_text="amplifies").locator("tbody tr")
        assert steps.count() == row["steps"] and "−10 %" in steps.first.text_content()
        assert "−1.5" in box.locator("table", has_text="calls ago").text_content()
        assert box.locator(".chart").count() == 4


def test_a_table_is_copied_whole_and_harmless(opened, address):
    page = opened(address, "#view=table")
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


def test_hostile_text_is_shown_and_never_run(opened, address):
    page = opened(address, "#view=errors")
    assert "<img src=x onerror=alert(1)>" in page.text_content("pre") and LONG in page.text_content("pre")
    for view in page.evaluate("Object.keys(Page.views)"):
        page.evaluate("Page.open", view)
    page.evaluate(
        "Page.set({ a: Page.data.idOf(Page.rows.find((i) => Page.data.column.get('sampler').get(i) === 'unipc')) })"
    )
    page.evaluate("Page.open", "images")
    assert HOSTILE in page.locator("#view-images .pair figcaption > bdi").all_text_contents()
    assert page.title().endswith("sampler sweep") and page.locator("img[src=x]").count() == 0


def here(page) -> str:
    """What has the focus, as a selector would say it."""
    return page.evaluate(
        """() => { const on = document.activeElement;
                  return on.id ? `#${on.id}` : on.className ? `${on.tagName}.${on.className}` : on.tagName; }"""
    )


def tab_to(page, wanted: str, most: int = 120) -> None:
    """Tab on until `wanted` matches what has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"{wanted} was not reached by Tab, the last was {here(page)}")


def test_from_a_point_to_a_wipe_and_a_sorted_table_by_keys_alone(opened, address):
    page = opened(address, "#x=latency_s&y=fid")
    page.keyboard.press("Tab")
    assert here(page) == "#skip"
    tab_to(page, "#tab-overview")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-tradeoff", "aria-selected") == "true" and here(page) == "#tab-tradeoff"
    tab_to(page, ".chart")
    page.keyboard.press("ArrowRight")
    assert "FID" in page.text_content("#said"), "what is under the keys is spoken"
    page.keyboard.press("b")
    cheapest = page.evaluate("Page.state.b")
    tab_to(page, ".chart")
    page.keyboard.press("ArrowLeft")  # the last point
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-images:not([hidden]) .pair")
    assert page.evaluate("Page.state.a") not in (None, cheapest)
    tab_to(page, "[role=group][aria-label='How to compare'] [aria-pressed=false]")
    assert page.text_content(":focus") == "Wipe"
    page.keyboard.press("Enter")
    tab_to(page, "input.wiper")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "0 % A"
    for _ in range(300):  # back to the tabs
        page.keyboard.press("Shift+Tab")
        if here(page) == "#tab-images":
            break
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#tab-table", "aria-selected") == "true"
    tab_to(page, "th[aria-sort] button")
    page.keyboard.press("Space")
    assert page.locator("th[aria-sort=ascending]").count() == 1


@pytest.mark.parametrize(
    "fragment", ["#view=overview", "#view=tradeoff&colour=steps&facet=sampler", "#view=table", "#view=compare"]
)
def test_tab_goes_through_everything_in_the_order_of_the_page_with_a_visible_focus(opened, address, fragment):
    page = opened(address, fragment)
    page.evaluate("document.getElementById('more').click()")  # the mouse would say where Tab begins
    page.evaluate(
        """() => { window.reached = [];
            window.all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")].filter(
                (one) => one.tabIndex >= 0 && !one.disabled && one.getClientRects().length &&
                    !one.closest("details:not([open]) > :not(summary)"));
            addEventListener("focusin", (event) => {
                const style = getComputedStyle(event.target);
                reached.push([all.indexOf(event.target), style.outlineStyle, parseFloat(style.outlineWidth)]); }); }"""
    )
    count = page.evaluate("all.length")
    for _ in range(count):
        page.keyboard.press("Tab")
    reached = page.evaluate("reached")
    assert [at for at, _, _ in reached] == list(range(count)) and count > 30
    assert all(style == "solid" and width >= 2 for _, style, width in reached)


TELEPHONE = {"width": 360, "height": 740}


def examined(page):
    """The page with axe-core in it."""
    axe = importlib.util.find_spec("axe_playwright_python")
    if axe is None:
        pytest.skip("no axe-core: uv sync --group browser")
    page.evaluate((Path(axe.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    return page


def violations(page) -> list[tuple[str, str]]:
    """What axe-core calls serious or worse, with the element."""
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_cells_images_have_no_serious_violation_on_a_telephone(opened, address, scheme):
    page = examined(opened(address, "#view=images", viewport=TELEPHONE, color_scheme=scheme))
    two = page.evaluate("Page.rows.filter((i) => i in Page.data.images.tiles).slice(0, 2).map(Page.data.idOf)")
    page.evaluate("([a, b]) => Page.set({ a, b })", two)
    for how in ("side", "wipe", "blink", "difference"):
        page.evaluate("(how) => Page.set({ how })", how)
        assert page.locator(f".stage.{how}").count() > 0 and not violations(page), how
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, how


@pytest.mark.parametrize("width", [360, 800, 1000, 1200, 1400])
def test_words_beside_an_image_stay_whole(opened, address, width):
    """Three narrow columns once left the names of measures a letter a line."""
    page = opened(address, "#view=images", viewport={"width": width, "height": 900})
    two = page.evaluate("Page.rows.filter((i) => i in Page.data.images.tiles).slice(0, 2).map(Page.data.idOf)")
    for how in (None, "side", "wipe"):
        page.evaluate("([a, b, how]) => Page.set({ a, b: how && b, how })", [*two, how])
        names = page.locator(".pair .values tbody th")
        broken = names.evaluate_all(
            """(all) => all.filter((th) => {
                const text = document.createRange();
                text.selectNodeContents(th);
                const lines = new Set([...text.getClientRects()].map((line) => Math.round(line.top)));
                return lines.size > th.textContent.trim().split(/\\s+/).length;
            }).map((th) => th.textContent)"""
        )
        assert names.count() and not broken, (how, broken)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_and_no_overflow_on_a_telephone(opened, address, scheme):
    page = examined(opened(address, "", viewport=TELEPHONE, color_scheme=scheme))
    for view in page.evaluate("Object.keys(Page.views)"):
        page.evaluate("Page.open", view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        tab = page.locator(f"#tab-{view}").bounding_box()
        assert tab["x"] >= 0 and tab["x"] + tab["width"] <= 360, f"{view}: its tab is out of sight"
        broken = page.locator(f"#view-{view} .scroll thead th").evaluate_all(
            """(all) => all.filter((th) => {
                const text = document.createRange(), word = !th.firstElementChild && !th.textContent.includes(" ");
                text.selectNodeContents(th);
                return word && text.getClientRects().length > 1;
            }).map((th) => th.textContent)"""
        )
        assert not broken, (view, broken)
        assert not (serious := violations(page)), (view, serious)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(18, 22, 28)") == (scheme == "dark")


def test_the_budget_is_dragged_and_its_answer_follows(opened, address):
    page = opened(address)
    best, within = (page.locator(".cards").first.locator(".card").nth(k) for k in (0, 1))
    box = page.locator("#budget").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    said = set()
    for part in (0.4, 0.2, 0.02, 0.98):
        page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2)
        said.add((page.text_content("output[for=budget]"), within.text_content()))
    page.mouse.up()
    assert len(said) == 4, "the hand lost the slider"
    assert within.locator(".who").text_content() == best.locator(".who").text_content()
    page.focus("#budget")
    page.keyboard.press("Home")
    latencies = values_of(page, "latency_s")
    cheapest = min((value, i) for i, value in enumerate(latencies) if value is not None)[1]
    assert within.locator(".who").text_content() == page.evaluate("(i) => Page.data.nameOf(i)", cheapest)
    again = opened(address, page.evaluate("location.hash"))
    assert again.text_content("output[for=budget]") == page.text_content("output[for=budget]")


def test_answers_are_those_of_the_groups_that_are_left(opened, many):
    page = opened(many)
    assert page.locator(".cards").count() == 2 and "2 groups" in page.text_content("#view-overview")
    page.evaluate("Page.set({ filters: { seed: { among: ['1'] } } })")
    assert page.locator(".cards").count() == 1 and "unipc" in page.text_content(".cards .who")
    page.evaluate("Page.set({ filters: { fid: { least: 1e6, most: null } } })")
    assert page.locator(".cards").count() == 0 and "No cell that is left" in page.text_content("#view-overview")


def test_a_scaled_measure_is_drawn_and_filtered_as_it_is_written(opened, many):
    page = opened(many, "#view=tradeoff&x=nfe&y=kid")
    low, high = page.evaluate("[Page.lastChart.scales.y.min, Page.lastChart.scales.y.max]")
    assert 1 < low < 2 and 3 < high < 4, "KID ×1000"
    page.evaluate("Page.set({ filters: { kid: { least: 0.003, most: null } } })")
    low, _ = page.evaluate("[Page.lastChart.scales.y.min, Page.lastChart.scales.y.max]")
    assert 2.9 < low < 3


def test_the_table_stays_where_it_was_and_its_chooser_open(opened, many):
    page = opened(many, "#view=table")
    page.evaluate("document.querySelector('.scroll.tall').scrollTop = 2400")
    # Rows are made as they come into sight, a moment after the scrolling: the number waits for its row.
    row = page.locator("tr[aria-rowindex='84']").get_by_role("button", name="A: ")
    name = row.get_attribute("aria-label")
    row.click()
    assert page.evaluate("document.querySelector('.scroll.tall').scrollTop") == 2400
    assert page.locator(".chip").text_content().startswith(name)
    page.locator(".chooser summary").click()
    for column in ("threads", "precision"):
        box = page.locator(".chooser").get_by_label(column, exact=True)
        before = box.is_checked()
        box.click()
        assert page.locator(".chooser").get_by_label(column, exact=True).is_checked() != before
    page.get_by_role("button", name="FID", exact=True).click()
    assert page.evaluate("document.querySelector('.scroll.tall').scrollTop") == 0


def test_a_long_list_of_cells_is_filled_when_somebody_turns_to_it(opened, many):
    page = opened(many, "#view=compare")
    for act in (lambda box: box.focus(), lambda box: box.dispatch_event("pointerdown")):
        box = page.get_by_label("A", exact=True)
        assert box.locator("option").count() == 1
        chosen = box.input_value()
        act(box)
        assert box.locator("option").count() == 150 and box.input_value() == chosen
        page.locator("#search").focus()
        page.evaluate("Page.set({ measure: 'fid' })")  # made anew, as nobody is on it
    page.get_by_label("A", exact=True).focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("Page.state.a") not in (None, chosen)
    assert page.get_by_label("A", exact=True).locator("option").count() == 150, "the focus stays, and so does the list"


def test_sixty_four_kinds_of_cells_are_told_apart(opened, address):
    page = opened(address, "#view=tradeoff")
    marks = page.evaluate("Array.from({ length: 64 }, (_, k) => `${Page.colour(k)} ${Page.shapeOf(k)}`)")
    assert len(set(marks)) == 64


def test_the_keys_go_through_all_rows_of_a_table_that_makes_them_as_they_come_into_sight(opened, many):
    page = opened(many, "#view=table")
    row = "document.activeElement.closest('tr').getAttribute('aria-rowindex')"
    page.locator("table.cells tbody button").first.focus()
    assert page.evaluate(row) == "2"
    for rows_on in (30, 60):
        for _ in range(60):  # two buttons a row
            page.keyboard.press("Tab")
            page.evaluate("() => new Promise(requestAnimationFrame)")  # the scroll that the focus asked for
        assert page.evaluate(row) == str(2 + rows_on)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_has_every_row(opened, many, scheme):
    page = opened(many, "#view=table&f.sampler=%5B%22euler%22%2C%22dpmpp%22%5D", color_scheme=scheme)
    assert page.locator("table.cells tbody tr").count() < 100
    page.emulate_media(media="print", color_scheme=scheme)
    page.wait_for_selector("table.cells tbody tr >> nth=99")
    assert page.locator("table.cells tbody tr").count() == 100
    assert page.evaluate("getComputedStyle(document.documentElement).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    shown = page.locator("nav, #search, #theme, .controls, .chooser").evaluate_all(
        "(all) => all.filter((one) => one.getClientRects().length).length"
    )
    assert shown == 0 and page.locator("#count").is_visible()
    assert page.evaluate(
        "document.querySelector('.scroll.tall').scrollHeight <= document.querySelector('.scroll.tall').clientHeight"
    )
    assert page.pdf().count(b"/Type /Page\n") >= 3
    page.evaluate("Page.open", "tradeoff")
    ink = page.evaluate("Page.ink('--text')")
    page.emulate_media(media="screen", color_scheme=scheme)
    page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    assert ink == "#000" and page.evaluate("Page.ink('--text')") == ("#e6edf3" if scheme == "dark" else "#1b1f24")


def test_dark_and_light_are_switched_by_hand_and_charts_follow(opened, address):
    page = opened(address, "#view=tradeoff", color_scheme="light")
    light = page.evaluate("[Page.colour(0), Page.ink('--text')]")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(18, 22, 28)"
    dark = page.evaluate("[Page.colour(0), Page.ink('--text')]")
    assert light[0] != dark[0] and light[1] != dark[1]
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("[Page.colour(0), Page.ink('--text')]") == light


def test_a_link_keeps_the_whole_view_and_a_broken_one_breaks_nothing(opened, address):
    page = opened(address, "#view=tradeoff&x=nfe&y=clip_score&colour=steps&shape=sampler&facet=sampler&logx=1&logy=0")
    page.evaluate(
        "Page.set({ brush: [{ column: 'nfe', least: 4, most: 11 }, { column: 'clip_score', least: 0, most: 99 }] })"
    )
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link to this view").click()
    page.locator("#said", has_text="Link copied").wait_for(state="attached")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(address)
    again = opened(address, link.removeprefix(address))
    assert again.evaluate("[...Page.selected].length") == page.evaluate("[...Page.selected].length") == 5
    for label, value in (
        ("Up", "clip_score"),
        ("Across", "nfe"),
        ("Colour", "steps"),
        ("Shape", "sampler"),
        ("Facets", "sampler"),
    ):
        assert again.get_by_label(label, exact=True).input_value() == value
    assert again.get_by_label("log across").is_checked() and not again.get_by_label("log up").is_checked()
    assert again.locator("#view-tradeoff figure").count() == page.locator("#view-tradeoff figure").count() == 3
    broken = (
        "&f.steps=%5B1,&f.fid=a..b&brush=fid:x..y;z&columns=nothing,&a=ffff&level=99&curve=77&facet=nothing&x=nothing"
    )
    for view in page.evaluate("Object.keys(Page.views)"):
        lost = opened(
            address, f"#view={view}{broken}&y=label&sort=nothing&image=-1&row=nothing&budget=x&by=nothing&q=%25"
        )
        assert lost.get_attribute(f"#tab-{view}", "aria-selected") == "true"
    assert opened(address, "#view=nothing").get_attribute("#tab-overview", "aria-selected") == "true"


def test_what_is_copied_are_the_cells_in_sight_as_they_are_recorded(opened, address, folder):
    page = opened(
        address, "#view=table&sort=fid&f.sampler=%5B%22dpmpp%22%5D&columns=sampler,steps,fid,latency_s,ended_at"
    )
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy CSV").click()
    page.locator("#said", has_text="CSV copied").wait_for(state="attached")
    found = list(csv.DictReader(StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert [row["sampler"] for row in found] == ["dpmpp"] * 3 and list(found[0]) == [
        "cell_id",
        "sampler",
        "steps",
        "fid",
        "latency_s",
        "ended_at",
    ]
    recorded = load(folder).set_index("cell_id")["fid"]
    values = [float(row["fid"]) for row in found]
    assert values == sorted(values) and values == pytest.approx([recorded[row["cell_id"]] for row in found], rel=1e-6)
