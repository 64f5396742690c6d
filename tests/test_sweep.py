"""The command itself: what is enumerated, refused, recorded, skipped, resumed and lost."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
from PIL import Image
from scipy.stats import trim_mean

from harness.errors import InputError
from harness.sweep.__main__ import main
from harness.sweep.enumerate import enumerate_cells, ordered

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["n_images=4", "batch_size=4", "timing=off", "reference_count=100", "metrics=[clip_score]", "threads=1"]
SMALL += ["plots=false"]
# Where it matters how a sweep runs and not what: a model without networks, whose worker is ready in a second.
QUICK = ["model=gmm", "metrics=[law]"]


def cells(*words: str):
    return list(enumerate_cells([*words]).cells.values())


def sweep(folder: Path, *words: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "harness.sweep", *SMALL, *words, f"results_dir={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, **kwargs)


@pytest.fixture
def here(monkeypatch, capfd):
    """The same command without a process of its own (its workers are): the exit code and what was said."""

    def run(folder: Path, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["harness.sweep", *SMALL, *words, f"results_dir={folder}"])
        capfd.readouterr()
        return main(), capfd.readouterr().out

    return run


# ------------------------------------------------------------------------------------------------- enumeration


def test_lists_and_ranges_multiply_into_cells():
    found = cells("sampler=euler,unipc", "steps=range(10,40,10)", "cfg=1,3")
    assert len(found) == 2 * 3 * 2
    assert {cell.steps for cell in found} == {10, 20, 30}


def test_an_axis_without_meaning_does_not_multiply():
    assert len(cells("task=txt2img,img2img", "strength=0.2,0.5,0.8")) == 1 + 3
    assert len(cells("cfg=1", "negative_prompt='',blurry")) == 1
    assert len(cells("cfg=3", "negative_prompt='',blurry")) == 2


def test_how_a_sweep_runs_is_no_part_of_its_cells():
    plain = cells("threads=1")
    settled = cells("threads=1", "workers=2", "cell_timeout=60", "retries=3", "force=true", "plots=false")
    assert [cell.cell_id for cell in plain] == [cell.cell_id for cell in settled]
    assert cells("workers=1000")[0].threads == 1, "workers divide the threads"


def test_the_schedule_is_the_samplers_own_unless_asked():
    by_sampler = {cell.sampler["name"]: cell.schedule["name"] for cell in cells("sampler=dpmpp,ddim,plms,euler,unipc")}
    assert by_sampler["dpmpp"] == "karras" and by_sampler["ddim"] == "leading"
    assert {cell.schedule["name"] for cell in cells("sampler=dpmpp,ddim", "schedule=exponential")} == {"exponential"}


def test_nfe_buys_the_most_steps_that_it_pays_for():
    words = ["sampler=euler,heun,plms", "nfe=10"]
    assert [cell.steps for cell in cells(*words)] == [10, 5, 9]
    half = cells(*words, "task=img2img", "strength=0.5")
    assert [cell.steps for cell in half] == [21, 11, 19], "the last half of them is what runs"
    assert [cell.steps for cell in cells(*words, "task=img2img", "strength=0.5", "keep_steps=true")] == [10, 5, 9]
    assert [cell.steps for cell in cells(*words, "task=img2img", "strength=0")] == [10, 10, 10], "nothing runs"
    assert cells("sampler=ddim", "nfe=1500")[0].steps == 999, "more than the schedule has"


def test_a_file_of_levels_has_its_own_steps_whatever_the_strength():
    found = cells("sampler=dpmpp", "schedule=file", "task=img2img", "strength=0,0.5,1")
    assert [cell.steps for cell in found] == [20, 20, 20]
    assert [cell.steps for cell in cells("sampler=plan", "task=img2img", "strength=0,1")] == [20, 20]


def test_every_knob_is_an_axis():
    assert len({cell.cell_id for cell in cells("sampler=unipc", "sampler.order=1,2,3", "sampler.variant=bh1,bh2")}) == 6


def test_experiments_are_ready_grids():
    assert len(cells("+experiment=steps")) == 20
    assert len(cells("+experiment=cfg", "steps=5,10")) == 12
    for name in ("strength", "precision", "smoke"):
        assert len(cells(f"+experiment={name}")) >= 3


def test_the_id_is_the_content_and_survives_its_text():
    one, same, other = cells("steps=10")[0], cells("steps=10")[0], cells("steps=10", "seed=1")[0]
    assert one.cell_id == same.cell_id != other.cell_id
    assert type(one).from_canonical(one.canonical()).cell_id == one.cell_id


def test_an_id_is_hashed_once(monkeypatch):
    one, calls = cells("steps=10")[0], []
    fresh = type(one).from_canonical(one.canonical())
    monkeypatch.setattr("harness.cell.by_content", lambda values: calls.append(1) or values)
    assert [fresh.cell_id for _ in range(5)] == [one.cell_id] * 5 and len(calls) == 1
    assert replace(fresh, seed=1).cell_id != one.cell_id and pickle.loads(pickle.dumps(fresh)) == fresh


def test_cells_of_one_model_run_together():
    found = ordered(cells("steps=5,10", "precision=fp32,bf16"))
    assert [cell.precision for cell in found] == ["fp32", "fp32", "bf16", "bf16"]


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler=eulre"], "did you mean 'euler'"),
        (["schedule=karas"], "did you mean 'karras'"),
        (["task=txt2im"], "did you mean 'txt2img'"),
        (["model=sd-15"], "did you mean 'sd15'"),
        (["stps=5"], "did you mean 'steps'"),
        (["sampler.ordr=2"], "ordr"),
        (["steps=0"], "steps=0"),
        (["steps=2.5"], "steps=2.5"),
        (["task=img2img", "strength=1.5"], "strength=1.5"),
        (["cfg=-1"], "cfg=-1"),
        (["precision=fp8"], "fp16"),
        (["device=cuda:7"], "cuda:7"),
        (["device=gpu"], "gpu"),
        (["workers=0"], "workers=0"),
        (["retries=-1"], "retries=-1"),
        (["cell_timeout=0"], "cell_timeout=0"),
        (["metrics=[fdi]"], "fid"),
        (["timing=fast"], "quick"),
        (["model=diffusers", "model.path=/no/such/folder"], "/no/such/folder"),
        (["sampler.order=9"], "order=9"),
        (["guidance.threshold=static"], "latents"),
        (["data=folder", "data.path=/no/such/images"], "/no/such/images"),
        (["steps=5,,6"], "steps=5,,6"),
        (["+sampler.order=2"], "write sampler.order=VALUE"),
        (["experiment=steps"], "+experiment=steps"),
    ],
)
def test_bad_input_is_one_line_that_names_what_is_valid(words, said):
    with pytest.raises(InputError) as error:
        cells(*words)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_mask_of_the_wrong_size_is_said_before_a_model_is_loaded(tmp_path):
    for folder, side in (("images", 64), ("masks", 32)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / folder / "a.png")
    (tmp_path / "images" / "captions.csv").write_text("file_name,caption\na.png,a red square\n")
    words = ["task=inpaint", "data=folder", f"data.path={tmp_path}/images", f"data.masks={tmp_path}/masks"]
    words.append("n_images=1")
    with pytest.raises(InputError, match="32x32 pixels, its image 'a\\.png' is 64x64"):
        cells(*words)
    Image.new("L", (64, 64)).save(tmp_path / "masks" / "a.png")
    assert len(cells(*words, "seed=1")) == 1


def test_bad_input_ends_with_code_2_and_no_traceback(tmp_path):
    done = sweep(tmp_path, "steps=0")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("word", "traceback"), [("debug=false", False), ("debug=true", True)])
def test_an_unwritable_results_folder_is_said_before_anything_runs(tmp_path, monkeypatch, capsys, word, traceback):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["harness.sweep", *SMALL, "steps=1", word, f"results_dir={tmp_path}/file/results"])
    assert main() == 2
    said = capsys.readouterr().err
    assert "error: " in said and ("Traceback" in said) == traceback


# ------------------------------------------------------------------------------------------------------ running


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("swept")
    return folder, sweep(folder, "sampler=dpmpp,euler", "steps=2,3", "timing=quick", "metrics=[fid,clip_score]")


def test_every_cell_leaves_a_whole_record(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(folder / "cells")
    assert len(rows) == 4 and set(rows.status) == {"ok"}
    wanted = ["fid", "clip_score", "latency_s", "latency_p90_s", "images_per_s", "peak_memory_mib", "flops"]
    assert rows[wanted].notna().all().all()
    assert (rows.nfe == rows.steps).all() and (rows.steps_run == rows.steps).all()
    parts = rows.text_s + rows.denoise_s + rows.decode_s + rows.other_s
    timings = pd.read_parquet(folder / "timings")
    # How many runs a cell is timed for depends on the machine; from five on the extremes are left out of the parts.
    totals = timings[timings.kind == "timed"].groupby("cell_id").total_s
    assert parts.values == pytest.approx(totals.apply(trim_mean, 0.2)[rows.cell_id].values)
    assert len(pd.read_parquet(folder / "images")) == 16
    assert len(list((folder / "grids").glob("*.png"))) == 4
    assert "reports/plot.py" in done.stdout


def test_the_same_command_again_runs_nothing(swept, here):
    folder, _ = swept
    words = ("sampler=dpmpp,euler", "steps=2,3", "timing=quick", "metrics=[fid,clip_score]")
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.parquet")}
    code, said = here(folder, *words)
    assert code == 0 and "0 cells run, 4 already recorded" in said
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.parquet")}


def test_a_cell_that_fails_does_not_take_the_others(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "0.png")
    (folder / "1.png").write_bytes(b"not a picture")
    (folder / "captions.csv").write_text("file_name,caption\n0.png,a red square\n1.png,nothing\n")
    words = ["task=img2img", "data=folder", f"data.path={folder}", "steps=2", "n_images=1,2", "sampler=euler,ddim"]
    done = sweep(tmp_path / "results", *words, "metrics=[]")
    rows = pd.read_parquet(tmp_path / "results" / "cells")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert rows.groupby("n_images").status.unique().map(list).to_dict() == {1: ["ok"], 2: ["failed"]}
    assert rows[rows.status == "failed"].error.str.contains("1.png").all()
    assert done.stdout.count("failed ") >= 2


def test_a_killed_worker_costs_its_own_cell_only(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", *SMALL, *QUICK, "steps=2,5000,3", f"results_dir={tmp_path}",
         "n_images=64", "batch_size=1", "schedule=exponential", "retries=0"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: len(recorded(tmp_path)) >= 1)
    for worker in psutil.Process(process.pid).children(recursive=True):
        if "spawn_main" in " ".join(worker.cmdline()):
            worker.kill()
    out, _ = process.communicate(timeout=200)
    rows = pd.read_parquet(tmp_path / "cells").set_index("steps")
    assert process.returncode == 1
    assert rows.status.to_dict() == {2: "ok", 5000: "failed", 3: "ok"}, out
    assert "SIGKILL" in rows.error[5000] and "failed" in out


def recorded(folder: Path) -> list[Path]:
    return list((folder / "cells").glob("[0-9a-f]*.parquet"))


def until(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, here):
    words = [*QUICK, "steps=2", "seed=range(0,40)"]
    command = [sys.executable, "-m", "harness.sweep", *SMALL, *words, f"results_dir={tmp_path}"]
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        kept = set(recorded(tmp_path))
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda kept=kept: len(set(recorded(tmp_path)) - kept) >= 2)
        process.send_signal(how)
        assert process.wait(timeout=200) == code
        assert kept < set(recorded(tmp_path))
    kept = pd.read_parquet(tmp_path / "cells")
    assert 4 <= len(kept) < 40 and set(kept.status) == {"ok"}
    code, said = here(tmp_path, *words)
    assert code == 0 and f"{40 - len(kept)} cells run, {len(kept)} already recorded" in said
    ended = pd.read_parquet(tmp_path / "cells").set_index("seed").ended_at
    assert len(ended) == 40 and (ended[kept.seed].values == kept.ended_at.values).all()
    code, said = here(tmp_path, *QUICK, "steps=2", "seed=7", "force=true")
    assert code == 0 and "1 cells run" in said
    now = pd.read_parquet(tmp_path / "cells").set_index("seed").ended_at
    assert len(now) == 40 and [*now.index[now != ended[now.index]]] == [7]


def test_workers_and_batches_make_the_same_images(tmp_path, here):
    """A stochastic sampler gives an image the same noise whoever makes it, beside whatever else."""
    from harness.measure.session import Session
    from harness.store.records import Store

    words = ["model=gmm", "sampler=euler_a,dpmpp_2m_sde", "steps=4", "n_images=16", "metrics=[law]", "device=cpu"]
    asked, alone = cells(*SMALL, *words, "batch_size=16"), Session(tmp_path / "alone")
    one = {
        (cell.sampler["name"], image["image_index"]): image["image_sha256"]
        for cell in asked
        for image in alone.run(cell, lambda what, images: None).images
    }
    store = Store(tmp_path / "two")
    code, _ = here(tmp_path / "two", *words, "batch_size=7", "workers=2")
    rows = store.images().merge(store.cells()[["cell_id", "sampler"]], on="cell_id")
    two = {(row.sampler, row.image_index): row.image_sha256 for row in rows.itertuples()}
    assert code == 0 and len(one) == 32 and one == two
