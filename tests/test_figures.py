"""Figures that many samplers, strengths and schedules cannot make unreadable, and that say what they show."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import records
from matplotlib.text import Text

from harness.store import Store
from reports.figures import convergence, discretisation, latency
from reports.lettering import fit, spread
from reports.records import Group, groups, load
from reports.style import Drawing, Looks, save, settings
from reports.wording import asked_steps

MANY = [f"a_sampler_with_a_name_{k:02d}" for k in range(24)]


def recorded(folder: Path, rows: list[dict], pictures: bool = False) -> list[Group]:
    store = Store(folder)
    for row in rows:
        records.write(store, row, pictures)
    return groups(load(folder))


def looks(group: Group) -> Looks:
    return Looks(sorted(group.cells["label"].unique()))


def texts(drawing: Drawing) -> str:
    assert drawing.figure is not None, drawing.note
    return " ".join(" ".join(text.get_text().split()) for text in drawing.figure.findobj(Text))


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

    from harness.run import Session
    from harness.sweep import enumerate_cells

    words = ["model=gmm", "sampler=unipc", "schedule=karras,exponential", "n_images=16", "timing=off"]
    cells = enumerate_cells([*words, "steps=80", f"results_dir={tmp_path}", "device=cpu"]).cells.values()
    rows = {cell.schedule["name"]: Session(tmp_path).run(cell, lambda *_: None).cell for cell in cells}
    at_zero = rows["karras"]
    assert at_zero["error_to_exact_floor"] == pytest.approx(at_zero["error_to_exact"], rel=0.1)
    assert 1e-4 < at_zero["error_to_exact_floor"] < 1e-2


def test_steps_mean_those_asked_for_and_say_how_many_ran(tmp_path):
    rows = [records.cell_row(steps=steps, task="img2img", strength=0.6) for steps in (5, 10, 20)]
    (group,) = recorded(tmp_path, rows)
    drawing = discretisation.draw(group, looks(group))
    assert drawing.figure.axes[0].get_xlabel() == "steps asked for (3 to 12 ran)"
    (plain,) = recorded(tmp_path / "plain", [records.cell_row(steps=steps) for steps in (5, 10)])
    assert asked_steps(plain.cells) == "steps"
