"""Images of the page in a real Chromium, to the pixel: side by side, wiped, blinking, their difference, a sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import records
from browsing import needed, seen

from harness.store.records import Store
from harness.store.tiles import load_grid
from reports import page as command
from reports.records import load

SIDE = 256  # pixels of a tile on a wide screen, four for each of the image's
CENTRES = slice(SIDE // 128, None, SIDE // 64)
pytestmark = needed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    store = Store(folder)
    for sampler in ("euler", "dpmpp"):
        for steps in (5, 10):
            records.write(store, records.cell_row(sampler, steps))
    assert command.main(["--results", str(folder)]) == 0
    assert command.main(["--results", str(folder), "--out", str(folder / "apart.html"), "--images", "beside"]) == 0
    return folder


@pytest.fixture
def two(folder) -> tuple[str, str, np.ndarray, np.ndarray]:
    """The ids of the two cells with the most different images, and their images (n, 64, 64, 3)."""
    ids = [
        next(iter(load(folder).query("sampler == @sampler and steps == @steps")["cell_id"]))
        for sampler, steps in (("euler", 5), ("dpmpp", 10))
    ]
    grids = (load_grid(Store(folder).place, cell_id).images for cell_id in ids)
    return *ids, *(np.asarray(images).astype(int) for images in grids)


def beside(folder: Path, two, how: str, more: str = "&order=made", name: str = "page.html") -> tuple[str, str]:
    return (folder / name).as_uri(), f"#view=images&a={two[0]}&b={two[1]}&how={how}{more}"


@pytest.mark.parametrize("name", ["page.html", "apart.html"])
def test_side_by_side_is_what_is_recorded(opened, folder, two, name):
    page = opened(*beside(folder, two, "side", name=name))
    for k in (0, 1, 5):
        tiles = page.locator(".stage.side").nth(k).locator(".tile")
        for side in (0, 1):
            np.testing.assert_array_equal(seen(tiles.nth(side))[CENTRES, CENTRES], two[2 + side][k])
            assert "AB"[side] in tiles.nth(side).get_attribute("aria-label")


def test_the_wipe_is_dragged_over_the_picture(opened, folder, two):
    page = opened(*beside(folder, two, "wipe"))
    stage = page.locator(".stage.wipe").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    for part in (0.25, 0.75):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        shown, edge = seen(stage)[CENTRES, CENTRES], int(64 * part)
        np.testing.assert_array_equal(shown[:, :edge], two[2][0][:, :edge])
        np.testing.assert_array_equal(shown[:, edge:], two[3][0][:, edge:])
        assert page.locator("input.wiper").first.input_value() == str(int(100 * part))
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # no button is held
    assert page.locator("input.wiper").first.input_value() == "75"


def test_the_difference_map_is_four_times_the_difference(opened, folder, two):
    page = opened(*beside(folder, two, "difference"))
    for k in (0, 3):
        expected = np.minimum(255, 4 * np.abs(two[2][k] - two[3][k]))
        np.testing.assert_allclose(seen(page.locator(".stage.difference").nth(k))[CENTRES, CENTRES], expected, atol=4)
        assert expected.max() > 40


def test_a_blink_goes_to_and_fro_and_can_be_stopped_and_turned_by_hand(opened, folder, two):
    page = opened(*beside(folder, two, "blink"))
    stage = page.locator(".stage.blink").first
    for _ in range(2):
        page.locator(".stage.blink.b").first.wait_for()
        page.locator(".stage.blink:not(.b)").first.wait_for()
    page.get_by_role("button", name="Pause").click()
    before = page.locator(".stage.blink.b").count() > 0
    for _ in range(2):
        np.testing.assert_array_equal(seen(stage)[CENTRES, CENTRES], two[3 if before else 2][0])
        assert page.locator(".letters.blink").first.inner_text().strip() == ("B" if before else "A")
        page.get_by_role("button", name="Show the other of A and B").click()
        before = not before


def test_nothing_blinks_for_who_asked_for_less_motion(opened, folder, two):
    page = opened(*beside(folder, two, "blink"), reduced_motion="reduce")
    page.evaluate(
        "window.turned = 0; const stage = document.querySelector('.stage.blink');"
        "new MutationObserver(() => turned++).observe(stage, { attributes: true })"
    )
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(1500)  # two blinks and a half
    assert page.evaluate("turned") == 0
    page.get_by_role("button", name="Show the other of A and B").click()
    assert page.locator(".stage.blink.b").count() == page.locator(".stage.blink").count() > 0


def test_the_order_is_that_of_the_recorded_values(opened, folder, two):
    page = opened(*beside(folder, two, "side", ""))
    rows = Store(folder).images(["cell_id", "image_index", "clip_score", "discretisation_error"])
    a, b = (rows[rows["cell_id"] == cell_id].set_index("image_index").loc[range(6)] for cell_id in two[:2])

    def order() -> list[int]:
        labels = page.locator(".pairs figure").evaluate_all(
            "(all) => all.map((one) => one.querySelector('.tile').getAttribute('aria-label'))"
        )
        return [int(label.split("image ")[1].split(":")[0]) for label in labels]

    for value, expected in (
        ("differ:clip_score", -(b["clip_score"] - a["clip_score"]).abs()),
        ("worst:clip_score", a["clip_score"]),
        ("worst:discretisation_error", -a["discretisation_error"]),
    ):
        page.get_by_label("Order", exact=True).select_option(value)
        assert order() == list(expected.sort_values(kind="stable").index), value
    page.get_by_label("Order", exact=True).select_option("made")
    assert order() == list(range(6))
    values = (
        page.locator(".pairs figure").first.locator("tr", has_text="clip score").first.locator("td").all_text_contents()
    )
    assert [float(text.replace("−", "-")) for text in values] == pytest.approx(
        [a["clip_score"][0], b["clip_score"][0], b["clip_score"][0] - a["clip_score"][0]], rel=0.06
    )


def test_the_sheet_has_one_image_of_every_cell_over_any_two_axes(opened, folder, two):
    page = opened((folder / "page.html").as_uri(), "#view=images&row=sampler&column=steps&image=2")
    sheet = page.locator(".sheet")
    assert sheet.locator("thead th").all_text_contents() == ["5", "10"]
    assert sheet.locator("tbody th").all_text_contents() == ["dpmpp", "euler"]
    sheet.get_by_label("Across").select_option("sampler")
    sheet.get_by_label("Down").select_option("steps")
    assert sheet.locator("tbody th").all_text_contents() == ["5", "10"]
    sheet.locator("tbody tr").nth(1).locator("button").nth(0).click()  # steps 10, dpmpp
    assert page.evaluate("Page.state.a") == two[1]
    shown = sheet.locator("tbody tr").nth(1).locator(".tile").nth(0)
    assert shown.locator("img").evaluate("(img) => img.style.transform") == f"translateX(-{2 * 80}px)"
