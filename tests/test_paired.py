"""Differences between cells that share prompts and noise: right values, honest intervals, no false alarms."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import records
from rich.console import Console

from harness import statistics
from harness.errors import InputError
from harness.store.schema import CELLS, to_arrow
from harness.verdict import measures, paired
from reports.paired import differences, front, read_images


def cells_of(rows: list[dict]) -> pd.DataFrame:
    return to_arrow("cells", rows).to_pandas()


def images_of(cells: pd.DataFrame, column: str, values: list[np.ndarray], prompt: str = "a star") -> pd.DataFrame:
    parts = [
        pd.DataFrame({"cell_id": one, "image_index": range(len(x)), "prompt": prompt, column: x})
        for one, x in zip(cells["cell_id"], values, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def shared(n: int, offsets: list[float], noise: float, seed: int = 0) -> list[np.ndarray]:
    """Values of one n images in several cells: mostly what the image is, a little what the cell made of it."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 5, n)
    return [own + offset + noise * rng.normal(size=n) for offset in offsets]


def clip(offsets: list[float], noise: float, n: int = 64, seed: int = 0, **more) -> tuple[pd.DataFrame, pd.DataFrame]:
    values = shared(n, offsets, noise, seed)
    rows = [
        records.cell_row(steps=5 + k, clip_score=float(x.mean()), nfe=float(5 + k), n_images=n, **more)
        for k, x in enumerate(values)
    ]
    cells = cells_of(rows)
    return cells, images_of(cells, "clip_score", values)


def test_a_difference_is_that_of_the_pairs_and_far_sharper_than_the_values():
    cells, images = clip([90.0, 90.3, 90.31], noise=0.2)
    found = differences(cells, images, "clip_score")
    best = cells["clip_score"].idxmax()
    assert (found["to"] == cells["cell_id"][best]).all()
    wide = images.pivot(index="image_index", columns="cell_id", values="clip_score")
    one = statistics.paired(*(wide[cells["cell_id"][k]].to_numpy() for k in (best, 0)))
    assert found.loc[0, ["difference", "low", "high"]].tolist() == pytest.approx([one.difference, one.low, one.high])
    assert found["tied"].tolist() == [False, True, True] and (found["n"] == 64).all() and found["paired"].all()
    assert found.loc[0, "high"] - found.loc[0, "low"] < 0.15  # the value's own interval is 2.5 wide
    # Best of three is one of three pairs: p is corrected for as many.
    assert found.loc[0, "p"] == pytest.approx(min(1, 3 * float(one.p)))


def test_fid_differs_by_its_influence():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 6, 64)
    moved = [common + 0.05 * rng.normal(size=64) for _ in range(2)]
    moved = [x - x.mean() for x in moved]
    cells = cells_of([records.cell_row(steps=s, fid=fid, n_images=64) for s, fid in ((20, 2.0), (50, 1.9))])
    found = differences(cells, images_of(cells, "fid_influence", moved), "fid")
    assert found["difference"].tolist() == pytest.approx([0.1, 0.0])
    low, high = statistics.mean_interval(moved[0] - moved[1] + 0.1)
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([low, high]) and not found.loc[0, "tied"]
    # The same without rows of images: the values' own intervals, in which nothing can be told.
    bare = differences(cells, None, "fid")
    assert bare["tied"].all() and not bare["paired"].any() and bare.loc[0, "low"] < 0 < bare.loc[0, "high"]


def test_the_values_behind_a_root_mean_square_have_it_as_their_mean():
    rng = np.random.default_rng(1)
    errors = [np.abs(rng.normal(0.1, 0.03, 16)), np.abs(rng.normal(0.02, 0.01, 16))]
    roots = [float(np.sqrt((x**2).mean())) for x in errors]
    rows = [records.cell_row(steps=s, discretisation_error=v, n_images=16) for s, v in zip((5, 20), roots, strict=True)]
    cells = cells_of(rows)
    found = differences(cells, images_of(cells, "discretisation_error", errors), "discretisation_error")
    assert found.loc[0, "difference"] == pytest.approx(roots[0] - roots[1])
    # To first order the root moves as the jackknife says.
    squares = [x**2 for x in errors]
    one, two = (np.sqrt((square.sum() - square) / 15) for square in squares)
    left_out = one - two
    spread = np.sqrt(15 / 16 * ((left_out - left_out.mean()) ** 2).sum())
    assert (found.loc[0, "high"] - found.loc[0, "low"]) / 2 == pytest.approx(2.13 * spread, rel=0.25)
    assert not found.loc[0, "tied"]


def test_to_one_cell_says_better_as_well_as_worse_and_groups_without_it_have_no_difference():
    cells, images = clip([90.0, 91.0, 92.0], noise=0.2)
    middle = cells["cell_id"][1]
    found = differences(cells, images, "clip_score", to=middle)
    assert found["difference"].round().tolist() == [-1, 0, 1] and found["tied"].tolist() == [False, True, False]
    other = cells.assign(seed=[0, 0, 1])
    found = differences(other, images, "clip_score", to=middle)
    assert np.isnan(found.loc[2, "difference"]) and not found.loc[2, "tied"] and found.loc[2, "to"] is None


@pytest.mark.parametrize(
    ("column", "value"), [("seed", 1), ("n_images", 8), ("clip_definition", "other"), ("strength", 0.5)]
)
def test_what_cannot_be_compared_has_a_best_of_its_own(column, value):
    cells, images = clip([90.0, 91.0, 95.0], noise=0.2)
    cells.loc[2, column] = value
    found = differences(cells, images, "clip_score")
    assert found["group"].nunique() == 2 and (found["to"] == cells["cell_id"][[1, 1, 2]].to_numpy()).all()


def test_other_prompts_are_no_pairs():
    cells, images = clip([90.0, 90.2], noise=0.01)
    assert not differences(cells, images, "clip_score").loc[0, "tied"]
    images.loc[(images["cell_id"] == cells["cell_id"][0]) & (images["image_index"] == 3), "prompt"] = "a ring"
    found = differences(cells, images, "clip_score")
    assert not found.loc[0, "paired"] and found.loc[0, "tied"] and found.loc[1, "difference"] == 0


def test_equal_images_are_tied_and_one_image_says_nothing():
    cells, images = clip([90.0, 90.0], noise=0.0)
    found = differences(cells, images, "clip_score")
    assert found["tied"].all() and (found["difference"] == 0).all() and (found["high"] == 0).all()
    cells, images = clip([90.0, 99.0], noise=0.1, n=1)
    found = differences(cells, images, "clip_score")
    assert found["tied"].all() and np.isnan(found.loc[0, "low"]) and found.loc[0, "difference"] < -8


def test_failed_and_unmeasured_cells_have_no_row_and_one_cell_is_its_own_best():
    cells, images = clip([90.0, 91.0, 92.0], noise=0.1)
    cells.loc[0, "status"], cells.loc[1, "clip_score"] = "failed", None
    found = differences(cells, images, "clip_score")
    assert found.index.tolist() == [2] and found.loc[2, "difference"] == 0 and found.loc[2, "tied"]
    assert differences(cells.iloc[:0], images, "clip_score").empty


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'clip_score'"):
        differences(cells_of([records.cell_row()]), None, "clip_scor")
    assert measures.measure("clip").column == "clip_score"


def test_every_measured_column_of_quality_is_a_measure():
    names = {column.name for column in CELLS}
    measured = {name for name in names if {f"{name}_low", f"{name}_high", f"{name}_n"} <= names}
    assert measured == {measure.column for measure in measures.QUALITY}


def test_of_cells_that_are_all_the_same_hardly_any_is_called_worse_than_the_best():
    alarms = 0
    for seed in range(60):
        cells, images = clip([90.0] * 12, noise=1.0, n=32, seed=seed)
        alarms += not differences(cells, images, "clip_score")["tied"].all()
    assert alarms <= 7  # 5 % of 60 is 3; corrected for 11 comparisons instead of 66 it is 13


def test_the_front_holds_what_is_significantly_better_than_all_that_is_as_cheap():
    cells, images = clip([90.0, 92.0, 92.001, 91.0, 95.0], noise=0.2)
    found = front(cells, images, "clip_score", cost="nfe")
    assert found["front"].tolist() == [True, True, False, False, True]
    second = cells["cell_id"][1]
    assert found["leader"].tolist()[2:4] == [second, second]
    assert found["tied"].tolist() == [False, False, True, False, False]


def test_of_cells_at_one_cost_the_best_leads_and_among_ties_the_cheapest():
    cells, images = clip([90.0, 90.001, 90.002, 90.001], noise=0.3)
    found = front(cells, images, "clip_score", cost="nfe")
    assert found["front"].tolist() == [True, False, False, False] and found["tied"].tolist() == [False] + [True] * 3
    cells["nfe"] = 7.0
    found = front(cells, images, "clip_score", cost="nfe")
    assert found.loc[found["front"], "value"].tolist() == [cells["clip_score"].max()]


def test_a_cheaper_cell_that_cannot_be_told_keeps_a_cell_from_the_front():
    """The third is better than the first for sure, not so than the second, which costs less."""
    rng = np.random.default_rng(0)
    own, step = rng.normal(0, 5, 64), np.abs(rng.normal(0, 1, 64))
    noise = rng.normal(0, 0.8, 64)
    values = [own + 90, own + 90.1 + noise - noise.mean(), own + 90.3 + 0.01 * step]
    rows = [records.cell_row(steps=k, nfe=float(k), clip_score=x.mean(), n_images=64) for k, x in enumerate(values, 5)]
    cells = cells_of(rows)
    found = front(cells, images_of(cells, "clip_score", values), "clip_score", cost="nfe")
    assert found["front"].tolist() == [True, False, False] and found["tied"].tolist() == [False, True, True]
    assert found["leader"].tolist()[1:] == cells["cell_id"].tolist()[:2]


def mixed(seed: int, count: int = 36) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of two seeds, whose costs are often equal, some hardly apart; a few with images that others have not."""
    rng = np.random.default_rng(seed)
    cells, images = clip(list(90 + 0.4 * rng.random(count).cumsum() * (rng.random(count) < 0.7)), noise=2.0, seed=seed)
    cells["nfe"] = rng.integers(1, 12, count).astype(float)
    cells["seed"] = rng.integers(0, 2, count)
    lost = images["cell_id"].isin(cells["cell_id"][3:6]) & (images["image_index"] % 5 == 0)
    images.loc[images["cell_id"] == cells["cell_id"][7], "prompt"] = "a ring"
    return cells, images[~lost]


@pytest.mark.parametrize("seed", range(4))
def test_ties_are_those_of_the_differences(seed):
    cells, images = mixed(seed)
    values = paired.Images(cells, images, measures.measure("clip_score"))
    found, all_of_it = paired.ties(cells, values, "clip_score"), differences(cells, images, "clip_score")
    for column in ("cell_id", "value", "group", "to", "tied"):
        assert found[column].tolist() == all_of_it[column].tolist(), column
    assert 2 < found["tied"].sum() < len(found) - 2


def front_by_all_pairs(cells: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The front as its docstring says it, from every comparison in full."""
    values = paired.Images(cells, images, measures.measure("clip_score"))
    out = pd.DataFrame({"front": False, "leader": None, "tied": False}, cells.index)
    for _, rows in cells.groupby("seed"):
        rows = rows.assign(loss=-rows["clip_score"]).sort_values(["nfe", "loss"], kind="stable")
        alpha, column = paired.ALPHA / (len(rows) * (len(rows) - 1) // 2), values.places(rows["cell_id"])
        p = np.array([paired.compared(values, int(one), column).p for one in column])
        loss, leader = rows["loss"].to_numpy(), 0
        out.loc[rows.index[0], "front"] = True
        for k in range(1, len(rows)):
            keeper = leader
            if (loss[k] < loss[:k]).all():
                best = int(loss[:k].argmin())
                hardest = best if p[k, best] >= alpha else int(p[k, :k].argmax())
                if p[k, hardest] < alpha:
                    leader = k
                    out.loc[rows.index[k], "front"] = True
                    continue
                keeper = hardest if p[k, leader] < alpha else leader
            out.loc[rows.index[k], "leader"] = rows["cell_id"].iloc[keeper]
            out.loc[rows.index[k], "tied"] = p[keeper, k] >= alpha
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_front_is_that_of_all_comparisons(seed):
    cells, images = mixed(seed)
    found, expected = (
        front(cells, images, "clip_score", cost="nfe").reindex(cells.index),
        front_by_all_pairs(cells, images),
    )
    for column in ("front", "leader", "tied"):
        assert found[column].where(found[column].notna(), None).tolist() == expected[column].tolist(), column
    assert 2 < expected["front"].sum() < len(cells) / 2 and expected["tied"].any()


def test_rows_are_read_from_the_store(tmp_path):
    from harness.store.records import Store

    store = Store(tmp_path)
    cells, images = clip([90.0, 91.0], noise=0.1)
    for row in (records.cell_row(steps=k, clip_score=float(v), n_images=64) for k, v in ((5, 90.0), (6, 91.0))):
        rows = images[images["cell_id"] == cells["cell_id"][row["steps"] - 5]].drop(columns="cell_id")
        store.write(row, rows.to_dict("records"))
    read = store.cells()
    found = differences(read, read_images(store, read, ["clip_score", "fid"]), "clip_score")
    assert found["paired"].all() and found["tied"].sum() == 1


DIFFERENCES = {
    "normal": lambda rng, size: rng.normal(0.3, 1, size) - 0.3,
    "few images differ much": lambda rng, size: rng.standard_t(3, size),
    "fewer differ more": lambda rng, size: rng.standard_t(2.5, size),
    "laplace": lambda rng, size: rng.laplace(0, 1, size),
    "skewed": lambda rng, size: rng.exponential(1, size) - 1,
    "skewed either way": lambda rng, size: rng.lognormal(0, 1, size) - 0.8 * rng.lognormal(0, 1, size) - 0.2 * E_HALF,
}
E_HALF = float(np.exp(0.5))  # mean of a standard lognormal


@pytest.mark.parametrize("n", (16, 64, 256))
@pytest.mark.parametrize("kind", DIFFERENCES)
def test_intervals_of_differences_cover_under_heavy_tails_too(kind, n):
    """1,000 repeats; the share's own standard error is 0.7 %."""
    rng = np.random.default_rng(n)
    moved = 0.25 + DIFFERENCES[kind](rng, (n, 1000))
    shared = rng.gamma(2, 5, moved.shape)
    found = statistics.paired(shared, shared + moved, ask_p=np.zeros(1000, bool))
    assert 0.93 <= ((found.low <= 0.25) & (found.high >= 0.25)).mean() <= 0.975


def frechet_world(rng: np.random.Generator, n: int, dim: int, apart: float):
    """Features of two cells that share what an image is, and the Gaussians that they are drawn from."""
    own = rng.normal(size=(n, dim)) * np.linspace(2, 0.5, dim)
    one = own + 0.3 * rng.normal(size=(n, dim))
    two = own + 0.3 * rng.normal(size=(n, dim)) + apart
    return one, two


@pytest.mark.parametrize(("n", "dim"), [(64, 8), (256, 8), (256, 32)])
def test_the_difference_of_two_fids_covers(n, dim):
    """What is covered is the mean over samples of that size: the bias of FID at n is in both and nearly cancels."""
    from harness.metrics.features.moments import frechet_distance, gaussian_of
    from harness.metrics.fid import influence

    rng = np.random.default_rng(dim + n)
    target = gaussian_of(rng.normal(size=(4000, dim)) * np.linspace(2.2, 0.5, dim) + 0.5)
    gaps, spread, own = [], [], []
    for _ in range(300):
        one, two = frechet_world(rng, n, dim, apart=0.1)
        fids = [frechet_distance(gaussian_of(x), target) for x in (one, two)]
        moved = [influence(x, target) for x in (one, two)]
        gaps.append(fids[1] - fids[0])
        spread.append(moved[1] - moved[0] + gaps[-1])
        own.append(moved[0])
    low, high = statistics.mean_interval(np.stack(spread, 1), differences=True)
    covered = ((low <= np.mean(gaps)) & (np.mean(gaps) <= high)).mean()
    assert 0.92 <= covered <= 0.985, covered
    of_one = np.subtract(*statistics.mean_interval(np.stack(own, 1))[::-1])
    assert np.mean(high - low) < 0.45 * np.mean(of_one)


def timed(store, cell_ids: list[str], seconds: list[float], block: str, count: int = 20) -> None:
    """Record cells again with runs of these medians, timed in turn while the machine's pace wanders by half."""
    rng = np.random.default_rng(0)
    pace = 1 + 0.5 * np.sin(np.arange(count) / 3)
    for cell_id, second in zip(cell_ids, seconds, strict=True):
        (row,) = store.rows([cell_id])
        total = second * pace * np.exp(0.02 * rng.normal(size=count))
        runs = [
            {"run": k, "kind": "timed", "total_s": s, "block": block, "round": k, "steps": []}
            for k, s in enumerate(total)
        ]
        store.write({**row, "latency_s": float(np.median(total))}, [], runs)


def test_latency_stands_beside_the_fastest_cell_of_its_rounds(tmp_path):
    from harness.store.records import Store
    from harness.verdict.table import end_table, show

    store = Store(tmp_path)
    for steps in (5, 10, 20, 50):
        store.write(records.cell_row(steps=steps))
    ids = store.cells().sort_values("steps")["cell_id"].tolist()
    timed(store, ids[:3], [0.1, 0.2, 0.4], "one")
    timed(store, ids[3:], [0.05], "two")  # another sitting: the fastest, but not beside the others
    table = end_table(store.cells().sort_values("steps"), store)
    texts = table.texts()["latency s"]
    out = io.StringIO()
    show(table, Console(file=out, width=400))
    assert "times as long as the fastest" in out.getvalue() and "changed its pace" not in out.getvalue()
    drifted = end_table(store.cells().sort_values("steps").assign(timing_drift=[True, False, None, None]), store)
    assert "(fastest, drift)" in drifted.texts()["latency s"][0] and "drift" not in drifted.texts()["latency s"][1]
    show(drifted, Console(file=out, width=400))
    assert "changed its pace" in out.getvalue()
    assert "(fastest)" in texts[0] and "(" not in texts[3]
    for text, ratio in zip(texts[1:3], (2, 4), strict=True):
        told, low, high = (float(part) for part in text.split("×")[1].rstrip(")").replace("–", ", ").split(", "))
        assert low < told < high and told == pytest.approx(ratio, rel=0.03) and high - low < 0.1 * ratio


def test_compare_takes_the_ratio_from_the_rounds(tmp_path, capsys):
    from harness.store.records import Store
    from reports import compare

    store = Store(tmp_path)
    for steps in (5, 10):
        store.write(records.cell_row(steps=steps))
    ids = store.cells().sort_values("steps")["cell_id"].tolist()
    words = [*ids, "--results", str(tmp_path), "--format", "png"]
    assert compare.main(words) == 0 and "not paired by round" in capsys.readouterr().out
    timed(store, ids, [0.1, 0.2], "one")
    assert compare.main(words) == 0
    said = capsys.readouterr().out
    assert "not paired by round" not in said and "20 rounds" in said and "×2.0" in said
