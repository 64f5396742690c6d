"""One cell through the worker's session, on the shipped model: what the record says is what happened."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch

from harness.measure import cost, rounds
from harness.measure.session import Session
from harness.sweep.enumerate import enumerate_cells

WORDS = ["n_images=2", "batch_size=2", "timing=off", "reference_count=100", "metrics=[]", "threads=1"]
LIMIT = "metrics=[discretisation]"  # costs 200 steps for every seed, guidance and level where a run enters


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cells(monkeypatch):
    def of(*words: str):
        monkeypatch.setattr(sys, "argv", ["harness.sweep", *WORDS, *words])
        return list(enumerate_cells(sys.argv[1:]).cells.values())

    return of


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(tmp_path_factory.mktemp("results"))


def run(session: Session, cell):
    return session.run(cell, lambda what, images: None).cell


def generator(session: Session, cell):
    return session._generator(cell, session._model(cell))


def test_an_image_does_not_depend_on_its_batch(session, cells):
    for word in ("sampler=dpmpp", "sampler=ddim sampler.eta=1.0", "sampler=euler sampler.s_churn=10"):
        made = generator(session, cells("steps=3", *word.split())[0])
        together = made.batch([0, 3]).images.int()
        alone = torch.cat([made.batch([index]).images for index in (0, 3)]).int()
        assert (together - alone).abs().max() <= 2, word
        assert (together[0] - together[1]).abs().max() > 20


def test_discretisation_error_falls_with_steps_and_high_order_wins(session, cells):
    error = {}
    for cell in cells("sampler=euler,dpmpp,unipc,ddim", "steps=5,10,20", LIMIT):
        error[cell.sampler["name"], cell.steps] = run(session, cell)["discretisation_error"]
    for name in ("euler", "dpmpp", "unipc", "ddim"):
        assert error[name, 5] > error[name, 10] > error[name, 20] > 0, (name, error)
    for winner in ("dpmpp", "unipc"):
        assert error[winner, 10] < min(error["euler", 10], error["ddim", 10]), error


def test_the_reference_run_is_made_once_for_all_samplers(session, cells):
    first, second = cells("steps=2", "sampler=euler,dpmpp", LIMIT)
    run(session, first)
    before = session.model.calls
    run(session, second)
    assert session.model.calls - before == 2


def test_a_stochastic_sampler_has_no_discretisation_error(session, cells):
    row = run(session, cells("steps=2", "sampler=ddim", "sampler.eta=1.0", LIMIT)[0])
    assert row["stochastic"] and row.get("discretisation_error") is None


def test_guidance_off_halves_the_work(session, cells):
    row = {(cell.cfg, cell.steps): run(session, cell) for cell in cells("steps=2,4", "cfg=1,3")}
    assert row[1, 2]["nfe"] == row[3, 2]["nfe"] == 2
    per_call = {cfg: (row[cfg, 4]["flops"] - row[cfg, 2]["flops"]) / 2 for cfg in (1, 3)}
    assert per_call[3] == 2 * per_call[1] > 0


def test_nfe_is_counted_not_derived(session, cells):
    assert [run(session, cell)["nfe"] for cell in cells("steps=5", "sampler=plms,dpmpp")] == [6, 5]


def test_strength_sets_where_a_run_starts_and_the_record_says_how_many_steps_ran(session, cells):
    rows = [run(session, cell) for cell in cells("task=img2img", "steps=10", "strength=0,0.25,1")]
    assert [row["steps_run"] for row in rows] == [0, 2, 10]
    kept = run(session, cells("task=img2img", "steps=10", "strength=0.25", "keep_steps=true")[0])
    assert kept["steps_run"] == kept["nfe"] == 10


def test_img2img_leaves_more_of_the_source_at_low_strength(session, cells):
    psnr = []
    for cell in cells("task=img2img", "steps=10", "strength=0,0.3,0.9"):
        made = generator(session, cell).batch(range(4))
        psnr.append(-float((made.images.float() - made.sources.float()).square().mean()))
    assert psnr[0] > psnr[1] > psnr[2] and psnr[0] > -250


@pytest.mark.parametrize("model, loss", [("embedded", 1.3), ("embedded_inpaint", 3.5)])
def test_inpainting_changes_the_inside_and_keeps_the_outside(session, cells, model, loss):
    """Outside the mask blending leaves the VAE's own loss; a UNet of 9 channels draws it again, as it has learnt to."""
    made = generator(session, cells("task=inpaint", f"model={model}", "steps=8", "sampler=dpmpp")[0]).batch(range(4))
    inside, sources = made.masks.bool(), made.sources.float()
    decoded = session.model.decode(session.model.encode_images(made.sources)).float()
    error, own = ((images - sources).square().mean(1, keepdim=True) for images in (made.images.float(), decoded))
    assert error[~inside].mean() < loss * own[~inside].mean()
    assert error[inside].mean() > 5 * own[inside].mean()


def test_source_statistics_of_a_failed_cell_are_not_kept(session, cells):
    run(session, cells("steps=1")[0])
    session.after_failure()
    assert session.model is None
    assert run(session, cells("steps=1")[0])["status"] == "ok"


def test_lower_precision_gives_nearly_the_same_images(session, cells):
    fp32, bf16 = cells("steps=4", "precision=fp32,bf16")
    one, other = (generator(session, cell).batch(range(2)).images.float() for cell in (fp32, bf16))
    error = (one - other).square().mean()
    assert error > 0 and 10 * np.log10(255**2 / error) > 20


# --------------------------------------------------------------------------------------------------- measuring


def test_timed_parts_add_up_and_steps_are_kept(session, cells):
    made = generator(session, cells("steps=3")[0])
    preset = cost.Preset(warmup_runs=1, warmup_seconds=0, runs=3, seconds=0)
    rows = rounds.time_block({"only": lambda marks: made.timed([0, 1], marks)}, preset, "cpu")["only"].rows
    assert [row["kind"] for row in rows] == ["warmup", "timed", "timed", "timed"]
    for row in rows:
        assert row["total_s"] == pytest.approx(row["text_s"] + row["denoise_s"] + row["decode_s"], rel=1e-9)
        assert len(row["steps"]) == 3 and sum(row["steps"]) <= row["denoise_s"]
    summary = cost.summarise(rows)
    assert summary["latency_low"] <= summary["latency_s"] <= summary["latency_p90_s"] <= summary["latency_p95_s"]
    assert summary["timing_runs"] == 3


def test_summaries_of_known_samples():
    rows = [{"kind": "warmup", "total_s": 9.0, "text_s": 0, "denoise_s": 9, "decode_s": 0, "steps": []}]
    rows += [
        {"kind": "timed", "total_s": t, "text_s": 0.1, "denoise_s": t - 0.3, "decode_s": 0.1, "steps": [0.1, 0.3]}
        for t in np.arange(1, 12, dtype=float)
    ]
    got = cost.summarise(rows)
    assert (got["latency_s"], got["latency_p90_s"], got["first_call_s"]) == (6.0, 10.0, 9.0)
    assert got["other_s"] == pytest.approx(0.1) and got["step_s"] == pytest.approx(0.2)
    rows[-1] |= {"total_s": 1000.0, "denoise_s": 999.7}  # a neighbour's burst falls on one run
    assert cost.summarise(rows)["denoise_s"] == got["denoise_s"] == pytest.approx(5.7)


@pytest.mark.skipif(not cost._reset_peak_rss(), reason="the peak of resident memory cannot be reset here")
def test_peak_memory_is_that_of_the_stretch_alone():
    block = torch.ones(100 * 2**20 // 4)
    with cost.PeakMemory("cpu") as idle:
        pass
    del block
    with cost.PeakMemory("cpu") as busy:
        torch.ones(200 * 2**20 // 4)
    assert 80 < busy.columns()["peak_memory_mib"] - idle.columns()["peak_memory_mib"] < 130
    with cost.PeakMemory("cpu") as after:
        pass
    assert after.rss < busy.rss - 150


def test_flops_are_exact():
    a, b = torch.ones(8, 16), torch.ones(16, 32)
    assert cost.count_flops(lambda: a @ b) == 2 * 8 * 16 * 32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cell_on_the_gpu_records_the_three_peaks(session, cells):
    row = run(session, dataclasses.replace(cells("steps=2", "timing=quick")[0], device="cuda"))
    assert 0 < row["cuda_allocated_mib"] <= row["cuda_reserved_mib"] and row["process_peak_mib"] > 0
    assert row["peak_memory_kind"] == "cuda_allocated" and row["latency_s"] > 0
