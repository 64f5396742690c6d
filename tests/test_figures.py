"""Figures that many samplers, strengths and schedules cannot make unreadable, and that say what they show."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import records
from figure_records import looks, recorded, texts
from matplotlib.text import Text

from harness.store import layout
from harness.store.places import Folder
from harness.store.records import Store
from harness.store.tiles import load_sources, save_sources
from reports import plot
from reports.apart import Evidence
from reports.figures import coefficients, convergence, discretisation, latency, pareto, samplers, sheet, steps
from reports.lettering import fit, spread
from reports.records import Group, groups, load
from reports.style import save, settings
from reports.wording import asked_steps

MANY = [f"a_sampler_with_a_name_{k:02d}" for k in range(24)]


def exact_row(sampler: str, steps: int, error: float, **values) -> dict:
    return records.cell_row(sampler, steps, model="gmm", error_to_exact=error, nfe=steps, **values)


def test_schedules_stand_in_every_label_where_any_two_differ(tmp_path):
    same = {"sampler_knobs": {"order": 1}}
    rows = [records.cell_row("euler", steps, schedule="linspace", **same) for steps in (5, 10)]
    rows += [records.cell_row("dpmpp", steps, **same) for steps in (5, 10)]
    rows += [records.cell_row("dpmpp", steps, schedule_knobs={"rho": 5}, **same) for steps in (5, 10)]
    (group,) = recorded(tmp_path, rows)
    # The knob that tells two karras schedules apart is said of the one that has it.
    assert set(group.cells["label"]) == {"euler linspace", "dpmpp karras", "dpmpp karras rho=5"}
    (alone,) = recorded(tmp_path / "alone", [records.cell_row("euler", k, schedule="beta") for k in (5, 10)])
    assert set(alone.cells["label"]) == {"euler"}
    assert "schedule beta" in alone.select("steps", needs=["fid"]).held


def test_implementations_stand_in_every_label_where_any_two_differ(tmp_path):
    rows = [records.cell_row("euler"), records.cell_row("unipc", implementation="diffusers")]
    (group,) = recorded(tmp_path, rows)
    assert set(group.cells["label"]) == {"euler native", "unipc diffusers"}


def test_names_keep_their_order_and_their_distance():
    rng = np.random.default_rng(0)
    for places in ([0.5] * 6, list(rng.uniform(0, 1, 24)), [0.1, 0.9], [0.3, 0.31, 0.9, 0.305]):
        found = spread(places, 0.05)
        order = np.argsort(places, kind="stable")
        assert (np.diff(np.array(found)[order]) > 0.05 - 1e-9).all()
        if min(np.diff(sorted(places)), default=1) >= 0.05:
            assert np.allclose(found, places)
    assert np.allclose(np.mean(spread([0.5] * 6, 0.05)), 0.5)


@pytest.mark.parametrize("count", [1, 3, 8, 24])
def test_what_names_the_lines_takes_no_more_than_a_quarter_and_covers_nothing(tmp_path, count):
    rows = [records.cell_row(name, steps) for name in MANY[:count] for steps in (5, 10, 20)]
    (group,) = recorded(tmp_path, rows)
    with settings():
        drawing = latency.draw(group, looks(group))
        save(drawing, tmp_path, ["png"])
        drawing.figure.draw_without_rendering()
    figure = drawing.figure
    whole = figure.bbox.width * figure.bbox.height
    (named,) = figure.legends
    box = named.get_window_extent()
    assert len(named.get_texts()) == count
    assert box.width * box.height <= whole / 4
    head = min(text.get_window_extent().y0 for text in figure.texts)
    for panel in figure.axes:
        assert panel.get_window_extent().height > 2 * 72 / 72 * figure.dpi
        label = panel.yaxis.label.get_window_extent()
        assert label.y1 < head and label.height <= panel.get_window_extent().height + 1
        assert not box.overlaps(panel.get_window_extent())


def test_labels_are_wrapped_to_their_axis(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel("a label that says far more than an axis of two inches has room for")
    axes.set_title("and a title that says even more than that, and goes on and on about what is not the matter")
    fit(figure)
    figure.draw_without_rendering()
    room = axes.get_window_extent()
    assert axes.yaxis.label.get_window_extent().height <= room.height
    assert axes.title.get_window_extent().width <= room.width
    assert " ".join(axes.get_ylabel().split()).endswith("has room for")


def test_nineteen_samplers_are_named_at_their_lines_with_their_slopes(tmp_path):
    rows = [
        exact_row(name, steps, (1 + k) * steps**-2.0) for k, name in enumerate(MANY[:19]) for steps in (20, 40, 80, 160)
    ]
    (group,) = recorded(tmp_path, rows)
    with settings():
        drawing = convergence.draw(group, looks(group))
        save(drawing, tmp_path, ["png"])
        drawing.figure.draw_without_rendering()
    assert not drawing.figure.legends
    names = [text for text in drawing.figure.axes[0].texts if text.get_text().startswith("a_sampler")]
    assert [text.get_text() for text in names] == [f"{name} (2.00)" for name in MANY[:19]]
    boxes = [Text.get_window_extent(text) for text in names]
    covered = [a for a, b in itertools.combinations(boxes, 2) if a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1]
    assert not covered
    assert "slope of 3 points or more from 40 to 160 NFE" in texts(drawing)


def test_no_slope_is_promised_where_none_can_be_seen(tmp_path):
    rows = [exact_row(name, steps, 1 / steps) for name in MANY[:3] for steps in (5, 10, 20)]
    (group,) = recorded(tmp_path, rows)
    drawing = convergence.draw(group, looks(group))
    assert "a slope takes 3 points from 40 NFE on" in texts(drawing)
    assert not [t for t in drawing.figure.legends[0].get_texts() if "(" in t.get_text()]


def test_the_floor_of_the_last_step_is_drawn_and_bends_no_slope(tmp_path):
    floor = {"error_to_exact_floor": 1e-3, "schedule_knobs": {"end": "zero"}}
    rows = [exact_row("heun", n, np.hypot(40 * n**-2.0, 1e-3), **floor) for n in (10, 20, 40, 80, 160, 320)]
    rows += [exact_row("euler", n, 9 / n, **floor) for n in (10, 20, 40, 80, 160)]
    (group,) = recorded(tmp_path, rows)
    drawing = convergence.draw(group, looks(group))
    assert "floor on karras: its last step, to a clean state, is off by 1.0e-03" in texts(drawing)
    dashed = [
        line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2
    ]
    assert [line.get_ydata()[0] for line in dashed if line.get_xdata()[1] == 1] == [pytest.approx(1e-3)]
    assert "heun (–)" in texts(drawing)  # 160 calls are at the floor: two points are no slope
    assert "euler (1.00)" in texts(drawing)


def test_records_that_do_not_hold_their_floor_are_told_of(tmp_path):
    rows = [exact_row("heun", n, 1e-3, schedule_knobs={"end": "zero"}) for n in (10, 20)]
    (group,) = recorded(tmp_path, rows)
    assert "the last step has an error of its own" in texts(convergence.draw(group, looks(group)))
    rows = [exact_row("heun", n, 1e-3, schedule_knobs={"end": "sigma_min"}) for n in (10, 20)]
    (group,) = recorded(tmp_path / "other", rows)
    assert "an error of its own" not in texts(convergence.draw(group, looks(group)))


def test_the_floor_in_the_record_is_what_is_left_of_many_steps(tmp_path):
    """Exact up to σmin and then x0, and hundreds of steps of a high order that end by x0, are the same error."""

    from harness.measure.session import Session
    from harness.sweep.enumerate import enumerate_cells

    words = ["model=gmm", "sampler=unipc", "schedule=karras", "steps=80", "n_images=16", "timing=off"]
    words += ["metrics=[exact]", "device=cpu", "threads=1"]
    (cell,) = enumerate_cells(words).cells.values()
    at_zero = Session(tmp_path).run(cell, lambda *_: None).cell
    assert at_zero["error_to_exact_floor"] == pytest.approx(at_zero["error_to_exact"], rel=0.1)
    assert 1e-4 < at_zero["error_to_exact_floor"] < 1e-2


def test_steps_mean_those_asked_for_and_say_how_many_ran(tmp_path):
    rows = [records.cell_row(steps=steps, task="img2img", strength=0.6) for steps in (5, 10, 20)]
    (group,) = recorded(tmp_path, rows)
    drawing = discretisation.draw(group, looks(group))
    assert drawing.figure.axes[0].get_xlabel() == "steps asked for (3 to 12 ran)"
    (plain,) = recorded(tmp_path / "plain", [records.cell_row(steps=steps) for steps in (5, 10)])
    assert asked_steps(plain.cells) == "steps"


def three_of_which_two_are_tied(folder: Path) -> Group:
    """20 and 50 steps within chance of each other, 5 steps far off; what a prompt is worth is the same in all."""
    store, rng = Store(folder), np.random.default_rng(1)
    prompts = rng.normal(0, 4, 64)
    for count, fid, noise in ((5, 9.0, 1.0), (20, 2.02, 0.05), (50, 2.01, 0.05)):
        row = records.cell_row(steps=count, fid=fid, fid_low=fid - 0.8, fid_high=fid + 0.8, latency_s=count / 50)
        own = rng.normal(0, noise, 64)
        images = [
            {"image_index": k, "seed": 0, "prompt_id": k, "prompt": f"p{k}", "fid_influence": value}
            for k, value in enumerate(prompts + own - own.mean())
        ]
        store.write(row, images, [])
    (group,) = groups(load(folder))
    return group


def test_a_figure_over_steps_shows_differences_and_says_which_are_tied(tmp_path):
    group = three_of_which_two_are_tied(tmp_path)
    with settings():
        drawing = steps.draw(group, looks(group), Evidence(Store(tmp_path)))
    said = texts(drawing)
    assert "FID: 50 steps is best, not to be told from 20 steps; 5 steps is worse" in said
    assert "0 = 2.01 ± 0.8" in said and "difference to the best" in said
    panel = drawing.figure.axes[0]
    bars = panel.containers[0]
    assert np.allclose(bars.lines[0].get_ydata(), [6.99, 0.01, 0])
    (hollow,) = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert np.allclose(hollow.get_ydata(), [0.01, 0])
    lengths = [np.ptp(segment[:, 1]) for segment in bars.lines[2][0].get_segments()]
    assert 0 < lengths[1] < 0.1 < lengths[0]  # the values' own intervals are 1.6 wide


def test_of_tied_cells_the_cheapest_leads_the_front_and_the_tie_is_said(tmp_path):
    group = three_of_which_two_are_tied(tmp_path)
    with settings():
        drawing = pareto.draw(group, looks(group), Evidence(Store(tmp_path)))
    panel = drawing.figure.axes[0]
    (ring,) = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
    assert np.allclose(ring.get_xdata(), [0.1, 0.4])
    (hollow,) = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert np.allclose(hollow.get_xdata(), [1.0])
    assert "1 5 steps 2 20 steps; dearer, no better: 50 steps" in texts(drawing)


def test_without_rows_of_images_the_figure_says_that_nothing_is_paired(tmp_path):
    for n in (5, 10):
        Store(tmp_path).write(records.cell_row(steps=n), [], [])
    (group,) = groups(load(tmp_path))
    drawing = steps.draw(group, looks(group), Evidence(Store(tmp_path)))
    assert "intervals of values that share nothing" in texts(drawing)


def test_the_picture_to_open_first_is_named():
    drawn = [Path(f"{name}-txt2img-embedded.png") for name in ("pareto", "steps", "latency", "sheet")]
    assert plot.first(drawn).stem == "steps-txt2img-embedded"
    assert plot.first([Path("parity.png"), Path("cfg-a.png"), Path("cfg-b.png")]).stem == "cfg-a"


def table_of_samplers(folder: Path, values: dict[str, dict[int, float]]) -> Group:
    store, rng = Store(folder), np.random.default_rng(1)
    prompts = rng.normal(0, 4, 64)
    for name, by_steps in values.items():
        for count, fid in by_steps.items():
            row = records.cell_row(name, count, fid=fid, fid_low=fid - 0.8, fid_high=fid + 0.8, n_images=64)
            row |= {"discretisation_error": None}
            own = rng.normal(0, 0.05, 64)
            images = [
                {"image_index": k, "seed": 0, "prompt_id": k, "prompt": f"p{k}", "fid_influence": value}
                for k, value in enumerate(prompts + own - own.mean())
            ]
            store.write(row, images, [])
    (group,) = groups(load(folder))
    return group


def test_the_table_frames_no_tie_and_shades_no_difference_below_the_interval(tmp_path):
    values = {"a": {5: 9.0, 10: 2.001}, "b": {5: 6.0, 10: 2.0}, "c": {5: 9.001, 10: 5.0}, "slow": {80: 2.0}}
    group = table_of_samplers(tmp_path, values)
    evidence = Evidence(Store(tmp_path))
    with settings():
        drawing = samplers.draw(group, looks(group), evidence)
    panel = drawing.figure.axes[0]
    bold = sorted(text.get_text() for text in panel.texts if text.get_weight() == "bold")
    assert bold == ["2.0", "2.0", "6.0"]  # both tied ones of 10 calls, the one best of 5
    frames = [patch for patch in panel.patches if patch.get_linewidth() == 1.6]
    assert len(frames) == 1 and round(frames[0].get_x()) == 0  # of 5 calls alone
    number = samplers.shades(evidence, group.cells, "fid")
    names = zip(group.cells["sampler"], group.cells["steps"], strict=True)
    shade = {name: number[place] for name, place in zip(names, group.cells.index, strict=True)}
    assert shade["a", 10] == shade["b", 10] == 0 and shade["a", 5] == shade["c", 5]
    assert shade["a", 10] < shade["c", 10] < shade["b", 5] < shade["a", 5]
    assert "More calls than any column pays for: slow (80 calls)." in texts(drawing)


@pytest.mark.parametrize(("more_is_better", "chosen"), [(False, "a"), (True, "b")])
def test_the_star_stands_at_the_fewest_calls_of_the_best_shade(more_is_better, chosen):
    import pandas as pd

    rows = pd.DataFrame(
        [("c", 5.0, 9.0, 1), ("b", 8.0, 4.9, 0), ("a", 8.0, 4.3, 0), ("a", 20.0, 4.0, 0)],
        columns=["label", "nfe", "value", "shade"],
    )
    found = samplers.fastest(samplers.Measure("fid", more_is_better), rows.assign(budget=rows["nfe"]))
    assert (found["nfe"], found["label"]) == (8.0, chosen)


def test_plans_of_two_strengths_are_never_side_by_side(tmp_path):
    rows = [
        records.cell_row(name, 10, task="img2img", strength=strength)
        for name, strength in (("dpmpp", 0.3), ("dpmpp", 0.6), ("euler", 0.6), ("unipc", 0.9))
    ]
    (group,) = recorded(tmp_path, rows, pictures=True)
    drawing = coefficients.draw(group, Store(tmp_path))
    assert "10 steps at strength 0.6 (6 ran)" in texts(drawing)
    titles = [panel.get_title(loc="left") for panel in drawing.figure.axes if panel.get_title(loc="left")]
    assert titles == ["dpmpp", "euler"]


def test_sheets_show_the_source_and_the_outline_of_its_mask(tmp_path):
    rows = [records.cell_row("dpmpp", 10, task="inpaint", strength=strength) for strength in (0.3, 0.6)]
    (group,) = recorded(tmp_path, rows, pictures=True)
    store = Store(tmp_path)
    with settings():
        before = sheet.draw(group, store)[0]
    assert "no sources: the records are of a version that did not keep them" in texts(before)
    sources = np.full((6, 3, 64, 64), 90, np.uint8)
    masks = np.zeros((6, 1, 64, 64), np.uint8)
    masks[:, :, 16:32, 16:32] = 1
    save_sources(sources, masks, store.place, rows[1]["cell_id"])
    kept = load_sources(store.place, rows[1]["cell_id"], 6)
    assert np.array_equal(kept[0], sources.transpose(0, 2, 3, 1)) and np.array_equal(kept[1], masks[:, 0] > 0)
    with settings():
        after = sheet.draw(group, store)[0]
    assert "source, mask outlined" in texts(after) and "no sources" not in texts(after)
    shown = after.figure.axes[0].images[0].get_array()[:64, :64]
    edge = sheet.outlined(np.full((64, 64, 3), 90, np.uint8), masks[0, 0] > 0)
    assert np.array_equal(shown, edge)
    assert (edge[16, 16:32] == 0).all() and (edge[15, 16:32] == 255).all() and (edge[20, 20] == 90).all()
    store.place.put(layout.sources(rows[1]["cell_id"]), b"no")
    with settings(), pytest.warns(UserWarning, match="are damaged"):
        assert "no sources" in texts(sheet.draw(group, store)[0])


def test_a_run_keeps_the_sources_and_masks_of_its_grid(tmp_path):
    from types import SimpleNamespace

    import torch

    from harness.measure.quality import first, keep_first

    chance, place = torch.Generator().manual_seed(0), Folder(tmp_path)
    batches = [
        SimpleNamespace(
            images=torch.randint(0, 256, (3, 3, 8, 8), generator=chance, dtype=torch.uint8),
            sources=torch.randint(0, 256, (3, 3, 8, 8), generator=chance, dtype=torch.uint8),
            masks=torch.randint(0, 2, (3, 1, 8, 8), generator=chance, dtype=torch.uint8),
        )
        for _ in range(2)
    ]
    keep_first([first(batches[0], 5), first(batches[1], 2)], place, "a" * 16)
    sources, masks = load_sources(place, "a" * 16, 5)
    assert np.array_equal(sources[3:], batches[1].sources[:2].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(masks[:3], batches[0].masks[:, 0].numpy() > 0)
    bare = [SimpleNamespace(images=batches[0].images, sources=None, masks=None)]
    keep_first([first(bare[0], 8)], place, "b" * 16)
    assert load_sources(place, "b" * 16, 3) is None
