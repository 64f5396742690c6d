"""The page in a real Chromium while its records grow: new cells appear in the page that is open."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import records
from browsing import WAIT_MS, counted, needed, seen

from harness.store.records import Store
from reports.web import serve

pytestmark = needed


@contextmanager
def served(folder, until: int):
    with serve.server(folder, port=0, until=until) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}/"
        found.shutdown()
        thread.join()


def test_new_cells_appear_in_the_open_page_and_its_view_stays(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "REST", 0.0)
    store = Store(tmp_path)
    first, second = (records.write(store, records.cell_row("dpmpp", steps)) for steps in (5, 10))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with served(tmp_path, until=4) as address:
        page = opened(address, f"#view=images&a={first}&b={second}&how=side&f.sampler=%5B%22dpmpp%22%2C%22unipc%22%5D")
        counted(page, "2 of 2 cells")
        assert "2 of 4 cells" in page.inner_text("#progress")
        page.evaluate("window.stayed = true")
        page.get_by_label("Order", exact=True).focus()
        assert seen(page.locator(".stage .tile").first).std() > 10, "pictures come from the server"
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before, "looking writes nothing"
        records.write(store, records.cell_row("unipc", 10))
        counted(page, "3 of 3 cells")
        records.write(store, records.cell_row("euler", 10))
        counted(page, "3 of 4 cells")  # the filter holds
        page.locator("#progress", has_text="4 of 4 cells").wait_for()
        assert page.evaluate("stayed") and page.evaluate("[Page.state.view, Page.state.a, Page.state.b]") == [
            "images",
            first,
            second,
        ]
        assert page.evaluate("document.activeElement.tagName") == "SELECT", "the focus stays"
        third = page.evaluate(
            "Page.data.idOf(Page.rows.find((i) => Page.data.column.get('sampler').get(i) === 'unipc'))"
        )
        page.evaluate("(b) => Page.set({ b })", third)
        page.click("#tab-compare")
        page.get_by_role("region", name="A and B").wait_for()
        assert "FID" in page.inner_text("#view-compare")
    opened.told.clear()  # the browser says itself that nobody answers
    page.locator("#progress", has_text="The server has ended").wait_for(timeout=WAIT_MS)
    assert page.locator("#count").text_content() == "3 of 4 cells"
    opened.told.clear()


def test_a_sweep_without_a_cell_yet_says_so_and_fills_by_itself(opened, tmp_path, chromium):
    Store(tmp_path).check_writable()
    with served(tmp_path, until=2) as address:
        page = chromium.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(address)
        page.locator("#view-overview", has_text="No cell has ended yet").wait_for()
        page.locator("#progress", has_text="0 of 2 cells").wait_for()
        records.write(Store(tmp_path), records.cell_row("dpmpp", 5))
        page.wait_for_selector("html[data-ready=yes]")
        counted(page, "1 of 1 cells")
        page.close()
        assert said == []


def test_any_pair_is_compared_while_it_is_served(opened, tmp_path, monkeypatch):
    from reports.web import verdicts

    monkeypatch.setattr(verdicts, "COMPARED", 1)  # as of a sweep of thousands: two cells' pair is in the block
    store = Store(tmp_path)
    ids = [records.write(store, records.cell_row("dpmpp", steps)) for steps in (5, 10, 20, 40)]
    with served(tmp_path, until=4) as address:
        page = opened(address)
        missing = page.evaluate(
            "(ids) => ids.filter((id) => !Array.from(Page.data.pairs.cells ?? []).includes(Page.data.byId.get(id)))",
            ids,
        )
        assert len(missing) >= 2
        page.evaluate("([a, b]) => Page.set({ a, b })", missing[:2])
        page.click("#tab-compare")
        page.get_by_role("region", name="A and B").wait_for()
        assert "FID" in page.inner_text("#view-compare .scroll")
