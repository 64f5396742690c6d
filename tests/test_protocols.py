"""Published protocols, cut down: a folder as COCO's, prompt files, other people's statistics, latents, verdicts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import records
import scipy.linalg
import torch
from figure_records import looks, recorded, texts
from PIL import Image
from test_run import session  # noqa: F401 (a fixture)

from harness import protocols
from harness.data import captions, load, statistics
from harness.errors import InputError
from harness.metrics import load as metrics
from harness.metrics.features import extractors, files
from harness.metrics.features.moments import gaussian_of
from harness.protocols import PROTOCOLS, judged
from harness.sweep.enumerate import enumerate_cells
from harness.verdict import table
from reports.figures import fid_clip
from reports.summary import show

IMAGES, EACH = 5, 5
SMALL = ["n_images=4", "batch_size=4", "reference_count=5", "steps=2", "threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """val2017/ and annotations/ with five captions an image, as the archives unpack."""
    top = tmp_path_factory.mktemp("coco")
    (top / "val2017").mkdir()
    (top / "annotations").mkdir()
    images, notes = [], []
    for k in range(IMAGES):
        name = f"{139 + k:012d}.jpg"
        Image.new("RGB", (80 + k, 64), (50 * k, 90, 200 - 40 * k)).save(top / "val2017" / name)
        images.append({"id": 139 + k, "file_name": name, "width": 80 + k, "height": 64})
        for one in range(EACH):
            notes.append({"id": 1000 - 10 * k + one, "image_id": 139 + k, "caption": f"caption {one} of picture {k}"})
    content = {"info": {}, "licenses": [], "images": images, "annotations": notes[::-1]}
    (top / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    return top


@pytest.fixture
def inception_is_there(tmp_path, monkeypatch):
    """A file at the place of Inception's weights: that it is there is all that is asked before a cell runs."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = files.hub_file(files.INCEPTION)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")


def of_coco(top, experiment: str, *words: str) -> list:
    where = [f"data.path={top}", f"data.captions={top}/annotations/captions_val2017.json"]
    asked = enumerate_cells([f"+experiment={experiment}", "model=embedded", *where, *SMALL, *words])
    return list(asked.cells.values())


def row_of(session, cell):  # noqa: F811
    return session.run(cell, lambda what, images: None)


# --------------------------------------------------------------------------------------------------------------- COCO


def test_the_curve_of_the_model_cards_on_a_folder_like_cocos(session, coco):  # noqa: F811
    own = "metrics=[{name: fid, extractor: embedded},{name: clip_score, model: embedded}]"
    cells = of_coco(coco, "coco2017_cfg", own, "cfg=1.5,3")
    assert [cell.cfg for cell in cells] == [1.5, 3] and {cell.sampler["name"] for cell in cells} == {"plms"}
    rows = [row_of(session, cell) for cell in cells]
    for found in rows:
        row = found.cell
        assert row["fid"] > 0 and row["fid_n"] == 4 and row["fid_reference"] == "5 images of the data"
        assert row["fid_comparable"] is False and row["protocol"] == "coco2017_cfg"
        for said in ("4 images, not 10,000", "steps=2, not 50", "height=64, not 512", "FID by embedded-"):
            assert said in row["protocol_verdict"]
        assert "sampler" not in row["protocol_verdict"]  # that is PLMS, as it should be
    asked = [row["prompt"] for row in rows[0].images]
    assert asked == [row["prompt"] for row in rows[1].images] and len(set(asked)) == 4
    assert rows[0].cell["clip_score"] != rows[1].cell["clip_score"]


def test_fid_30k_on_a_folder_like_cocos(session, coco):  # noqa: F811
    own = "metrics=[{name: fid, extractor: embedded, size: 32}]"
    (cell,) = of_coco(coco, "coco_fid30k", own)
    row = row_of(session, cell).cell
    assert row["fid"] > 0 and row["fid_extractor"].endswith("-of-32px")
    assert row["fid_resizer"] == "pil-bicubic-squash to 32x32, then pil-bicubic-squash to 64x64"
    assert (
        "4 images, not 30,000" in row["protocol_verdict"]
        and "5 reference images, not 30,000" in row["protocol_verdict"]
    )


def test_captions_are_taken_first_or_all_in_a_random_order_that_is_the_same_everywhere(coco):
    def entries(**knobs):
        spec = {"name": "coco", "path": str(coco), "captions": str(coco / "annotations" / "captions_val2017.json")}
        return captions.entries(load.complete({**spec, **knobs}))

    first = entries(order_seed=None)
    assert [one.caption for one in first] == [f"caption 0 of picture {k}" for k in range(IMAGES)]
    every = entries(order_seed=None, pick="all")
    assert len(every) == IMAGES * EACH and every[1].caption == "caption 1 of picture 0"
    mixed = entries(pick="all")
    assert sorted(one.caption for one in mixed) == sorted(one.caption for one in every) and mixed != every
    assert mixed == entries(pick="all") and mixed != entries(pick="all", order_seed=1)
    # By the hashes of the places, so on every machine and for ever.
    assert captions.in_order_of(0, list(range(8))) == [6, 4, 2, 1, 7, 5, 0, 3]
    assert all(one.image.stem == f"{139 + int(one.caption.split()[-1]):012d}" for one in mixed)


@pytest.mark.parametrize(("knob", "said"), [({"pick": "one"}, "valid: all, first"), ({"order_seed": -1}, "from 0")])
def test_what_cannot_be_picked_is_one_line(coco, knob, said):
    spec = {"name": "coco", "path": str(coco), "captions": str(coco / "annotations" / "captions_val2017.json")}
    with pytest.raises(InputError, match=said):
        load.check({**spec, **knob})


# ------------------------------------------------------------------------------------------------------- prompt files

PROMPTS = ["A red colored car.", "A black, wide cat"]
QUOTED = [PROMPTS[0], f'"{PROMPTS[1]}"']
LIST = [{"prompt": one, "tag": "colors"} for one in PROMPTS]
NOTES = [{"id": 9 - k, "image_id": k, "caption": one} for k, one in enumerate(PROMPTS)]
WRITTEN = {
    "plain.txt": "\n".join(PROMPTS),
    "drawbench.csv": "Prompts,Category\n" + "\n".join(f"{one},Colors" for one in QUOTED),
    "parti.tsv": "Prompt\tCategory\tChallenge\tNote\n" + "\n".join(f"{one}\tAbstract\tBasic\t" for one in PROMPTS),
    "mlperf.tsv": "id\timage_id\tcaption\theight\n"
    + "\n".join(f"{k}\t{k}\t{one}\t480" for k, one in enumerate(PROMPTS)),
    "list.json": json.dumps(PROMPTS),
    "objects.json": json.dumps(LIST),
    "geneval.jsonl": "\n".join(json.dumps(one) for one in LIST),
    "captions.json": json.dumps({"images": [{"id": k, "file_name": f"{k}.jpg"} for k in (0, 1)], "annotations": NOTES}),
}


@pytest.mark.parametrize("name", [*WRITTEN, "table.parquet"])
def test_prompts_are_read_from_files_as_people_have_them(tmp_path, name):
    if name == "table.parquet":
        pd.DataFrame(LIST).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_text(WRITTEN[name])
    spec = {"name": "prompts", "prompts": str(tmp_path / name), "template": "a photo of {}"}
    load.check(spec, 2)
    data = load.load(spec, (8, 8))
    assert data.prompts([0, 1]) == [f"a photo of {one}" for one in PROMPTS] and len(data) == 2
    with pytest.raises(InputError, match=r"n_images=3 is more than the 2 prompts .*data.cycle=true"):
        load.check(spec, 3)
    load.check({**spec, "cycle": True}, 3)
    assert load.load({**spec, "cycle": True}, (8, 8)).prompts([2]) == data.prompts([0])
    other = load.fingerprint({**spec, "template": "{}"})
    assert load.fingerprint(spec) not in (other, load.fingerprint({**spec, "cycle": True}))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({}, "needs data.prompts=FILE"),
        ({"prompts": "no.csv"}, "is not a file"),
        ({"prompts": "bad.csv"}, "has no column 'caption'"),
        ({"prompts": "bad.csv", "column": "colour"}, "did you mean 'color'"),
        ({"prompts": "good.txt", "template": "a photo"}, r"write \{\} where"),
        ({"prompts": "good.txt", "cycle": "often"}, "true or false"),
        ({"prompts": "good.txt", "latents": "no.npy"}, "not a file of initial noise"),
        ({"prompts": "good.txt", "latents": "noise.pt"}, "data.allow_pickle=true"),
        ({"prompts": "good.txt", "statistics": "no.npz"}, "not a file of statistics"),
        ({"prompts": "good.txt", "statistics": "stat.pt"}, "data.allow_pickle=true"),
        ({"prompts": "good.txt", "statistics": "other.npz"}, "has x, not mu and sigma"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_why(tmp_path, monkeypatch, knobs, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("color,size\nred,1\n")
    (tmp_path / "good.txt").write_text("a cat\n")
    for name in ("noise.pt", "stat.pt"):
        (tmp_path / name).write_bytes(b"")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(InputError, match=said) as caught:
        load.check({"name": "prompts", **knobs}, 1)
    assert "\n" not in str(caught.value)


def test_benchmarks_of_prompts_run_without_images(session, tmp_path):  # noqa: F811
    (tmp_path / "drawbench.csv").write_text(WRITTEN["drawbench.csv"])
    words = ["+experiment=drawbench", "model=embedded", f"data.prompts={tmp_path}/drawbench.csv", *SMALL, "n_images=2"]
    own = "metrics=[{name: clip_score, model: embedded},{name: pick_score, optional: true, path: /nowhere}]"
    (cell,) = enumerate_cells([*words, own]).cells.values()
    found = row_of(session, cell)
    assert [row["prompt"] for row in found.images] == PROMPTS and found.cell["clip_score"] is not None
    assert cell.cell_id not in enumerate_cells([*words, own, "protocol=none"]).cells
    assert found.cell["pick_score"] is None and found.cell["pick_score_definition"].startswith("none: path='/nowhere'")
    assert (
        found.cell["protocol_verdict"].startswith("drawbench: not comparable") and found.cell["fid_comparable"] is None
    )


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_has_its_grid(name, coco, tmp_path, inception_is_there):
    (tmp_path / "prompts.csv").write_text(WRITTEN["drawbench.csv"])
    if name.startswith("coco"):
        data = [f"data.path={coco}", f"data.captions={coco}/annotations/captions_val2017.json"]
    else:
        data = [f"data.prompts={tmp_path}/prompts.csv"]
    from harness.sweep.commandline import read

    (given, *_) = read([f"+experiment={name}"]).values
    assert given["protocol"] == name and given["n_images"] == PROTOCOLS[name].images
    cells = enumerate_cells([f"+experiment={name}", "model=embedded", *data, *SMALL, "n_images=2"]).cells.values()
    assert {cell.protocol for cell in cells} == {name} and len(cells) == (8 if name == "coco2017_cfg" else 1)
    asked = PROTOCOLS[name].asked
    for cell in cells:
        assert asked.get("sampler", cell.sampler["name"]) == cell.sampler["name"]
        assert (
            asked.get("cfg", cell.cfg) == cell.cfg
            and asked.get("negative_prompt", cell.negative_prompt) == cell.negative_prompt
        )


# ------------------------------------------------------------------------------------------------------ initial noise


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".pt"])
def test_a_file_of_latents_is_what_the_images_begin_with(session, tmp_path, suffix):  # noqa: F811
    (tmp_path / "p.txt").write_text("a red square\na blue ring\n")
    words = [
        "data=prompts",
        f"data.prompts={tmp_path}/p.txt",
        "metrics=[]",
        "timing=off",
        *SMALL,
        "n_images=2",
        "cfg=2",
    ]
    (plain,) = enumerate_cells(words).cells.values()
    model = session._model(plain)
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(5))
    file = tmp_path / f"latents{suffix}"
    if suffix == ".pt":
        torch.save(latents, file)
    elif suffix == ".npy":
        np.save(file, latents.numpy())
    else:
        from safetensors.torch import save_file

        save_file({"latents": latents}, file)
    (cell,) = enumerate_cells([*words, f"data.latents={file}", "data.allow_pickle=true"]).cells.values()
    assert cell.cell_id != plain.cell_id
    made = session._generator(cell, model)
    inputs = made._remembered([0, 1])
    start = made._start(inputs, made.levels)
    scale = float(start.state[0, 0, 0, 0] / latents[0, 0, 0, 0])
    assert scale == pytest.approx(1, abs=1e-3)
    assert torch.allclose(start.state, latents.expand(2, *latents.shape[1:]) * scale, atol=1e-5)
    assert torch.equal(start.noise.only(1).first, latents)
    # Images differ by their prompts alone; the second draw is the streams' own again.
    assert not torch.equal(start.noise.draw(), start.noise.draw())
    assert torch.equal(made.data.latents, latents), "the file's own latents are not changed by a run"
    with pytest.raises(InputError, match=r"the model takes \(1, 2, 3\)"):
        made.data.initial_noise([0], (1, 2, 3))


def test_a_file_with_a_latent_an_image_has_them_in_order(tmp_path):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    latents = np.random.default_rng(0).normal(size=(2, 4, 2, 2))
    np.save(tmp_path / "l.npy", latents)
    data = load.load(
        {"name": "prompts", "prompts": str(tmp_path / "p.txt"), "latents": str(tmp_path / "l.npy")}, (8, 8)
    )
    assert np.allclose(data.initial_noise([1, 0], (4, 2, 2)), latents[[1, 0]])
    with pytest.raises(InputError, match="has 2 latents, image 2 was asked for"):
        data.initial_noise([2], (4, 2, 2))


# ------------------------------------------------------------------------------------------------- reference statistics

DIM = 24


def features(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, DIM)) @ (np.eye(DIM) + 0.2 * rng.normal(size=(DIM, DIM))) + 0.1 * seed


def with_statistics(folder, layout: str, real: np.ndarray) -> str:
    """A file as that program writes it."""
    mu, sigma = real.mean(0), np.cov(real, rowvar=False)
    place = folder / f"{layout}{'.pt' if layout == 'torch-fidelity' else '.npz'}"
    if layout == "torch-fidelity":
        torch.save({"mu": mu, "sigma": sigma}, place)
    elif layout == "clean-fid":
        np.savez_compressed(place, mu=mu, sigma=sigma)
    elif layout == "clean-fid kid":
        np.savez_compressed(place, feats=real)
    elif layout == "adm":
        images = np.zeros((2, 4, 4, 3), np.uint8)
        np.savez(place, arr_0=images, mu=mu, sigma=sigma, mu_s=mu[:2], sigma_s=sigma[:2, :2])
    else:
        np.savez(place, mu=mu, sigma=sigma)
    return str(place)


def by_their_own_code(layout: str, real: np.ndarray, fake: np.ndarray) -> float:
    given = [(x.mean(0), np.cov(x, rowvar=False)) for x in (fake, real)]
    if layout == "torch-fidelity":
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

        found = [fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
        return fid_statistics_to_metric(*found, verbose=False)[KEY_METRIC_FID]
    if layout.startswith("clean-fid"):
        from cleanfid.fid import frechet_distance

        return frechet_distance(*given[0], *given[1])
    # guided-diffusion's evaluator.py and EDM's fid.py: the same lines.
    root = scipy.linalg.sqrtm(given[0][1] @ given[1][1])
    apart = np.square(given[0][0] - given[1][0]).sum()
    return float(np.real(apart + np.trace(given[0][1] + given[1][1] - 2 * root)))


@pytest.mark.parametrize("layout", ["torch-fidelity", "clean-fid", "clean-fid kid", "adm", "edm"])
def test_fid_from_others_statistics_is_that_of_their_own_code(tmp_path, monkeypatch, make_context, layout):
    real, fake = features(0, 400), features(1, 300)
    (tmp_path / "p.txt").write_text("a cat\n")
    spec = {"name": "prompts", "prompts": str(tmp_path / "p.txt"), "cycle": True, "allow_pickle": True}
    spec["statistics"] = with_statistics(tmp_path, layout, real)
    load.check(spec, 300)
    data = load.load(spec, (8, 8))
    given = SimpleNamespace(kind="inception", id="inception-x", dim=DIM, resizer=lambda size: "none")
    monkeypatch.setattr(extractors, "get", lambda *asked: given)
    built = metrics.build(["fid", "kid"], make_context(data=data))
    for metric in built:
        for first in range(0, 300, 100):
            rows = range(first, first + 100)
            metric.samples.add(rows, fake[rows.start : rows.stop])
            if metric.name == "fid":
                metric.moments.add(fake[rows.start : rows.stop])
    fid, kid = (metric.compute() for metric in built)
    assert fid["fid"] == pytest.approx(by_their_own_code(layout, real, fake), rel=1e-6)
    name, digest = fid["fid_reference"].split(" " if " " not in layout else "npz ")
    assert name.startswith(layout) and len(digest) == 8
    assert (kid["kid"] is not None) == (layout == "clean-fid kid")  # which alone has features


def test_statistics_of_another_network_are_refused_and_no_extractor_but_inceptions_takes_them(
    tmp_path, make_context, monkeypatch
):
    (tmp_path / "p.txt").write_text("a cat\n")
    spec = {"name": "prompts", "prompts": str(tmp_path / "p.txt"), "cycle": True}
    spec["statistics"] = with_statistics(tmp_path, "edm", features(0, 50))
    context = make_context(data=load.load(spec, (64, 64)))
    (embedded,) = metrics.build([{"name": "fid", "extractor": "embedded"}], context)
    assert embedded.target() is None
    given = SimpleNamespace(kind="inception", id="inception-x", dim=2048, resizer=lambda size: "none")
    monkeypatch.setattr(extractors, "get", lambda *asked: given)
    (other,) = metrics.build(["fid"], context)
    with pytest.raises(InputError, match="statistics of 24 features, inception-x has 2048"):
        other.target()


def test_a_pickle_of_statistics_makes_arrays_and_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"mu": Evil(), "sigma": np.eye(2)}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="and was not read"):
        statistics.Statistics(tmp_path / "evil.pt").read()
    assert not (tmp_path / "ran").exists()
    np.savez(tmp_path / "bad.npz", mu=np.zeros(3), sigma=np.eye(2))
    with pytest.raises(InputError, match=r"not \(d,\) and \(d, d\)"):
        statistics.Statistics(tmp_path / "bad.npz").read()


def test_statistics_are_known_by_their_content(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n")
    found = []
    for seed in (0, 0, 1):
        spec = {"name": "prompts", "prompts": str(tmp_path / "p.txt")}
        (tmp_path / str(len(found))).mkdir()
        spec["statistics"] = with_statistics(tmp_path / str(len(found)), "edm", features(seed, 50))
        found.append(load.fingerprint(spec))
    assert found[0] == found[1] != found[2]
    assert gaussian_of(features(0, 50)).mean == pytest.approx(
        statistics.Statistics(tmp_path / "0" / "edm.npz").read()[0]
    )


# ------------------------------------------------------------------------------------------------------------ verdicts

MLPERF = {
    "n_images": 5_000, "model": "sdxl", "sampler": "euler", "steps": 20, "cfg": 8.0, "height": 1024, "width": 1024,
    "negative_prompt": protocols.MLPERF_NEGATIVE, "fid": 23.5, "fid_extractor": "inception-v3-compat-2048d-pytorch",
    "fid_resizer": "bilinear-pytorch to 299x299", "fid_reference": "val2014.npz 0123abcd", "clip_score": 31.7,
    "clip_definition": "100*cos, unclamped, ViT-B-32/openai, pil-bicubic-shortest to 224x224",
}  # fmt: skip


def test_mlperfs_verdict_names_both_bounds():
    found = judged("mlperf_sdxl", MLPERF)
    assert found["fid_comparable"] is True
    assert found["protocol_verdict"] == (
        "mlperf_sdxl: passes: fid 23.50000 within 23.01085 to 23.95007, clip_score 31.70000 within 31.68631 to 31.81331"
    )
    for change, said in (
        ({"fid": 23.01}, "fid 23.01000 outside"),
        ({"clip_score": 31.82}, "clip_score 31.82000 outside"),
    ):
        verdict = judged("mlperf_sdxl", {**MLPERF, **change})["protocol_verdict"]
        assert verdict.startswith("mlperf_sdxl: fails: ") and said in verdict
    assert "not measured" in judged("mlperf_sdxl", {**MLPERF, "clip_score": None})["protocol_verdict"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_images": 500}, "500 images, not 5,000"),
        ({"steps": 30}, "steps=30, not 20"),
        ({"fid_extractor": "inception-v3-compat-2048d"}, "FID by inception-v3-compat-2048d, not by"),
        ({"fid_resizer": "bilinear-tf1 to 299x299"}, "resizer bilinear-tf1 to 299x299, not bilinear-pytorch"),
        ({"fid_reference": "5000 images of the data"}, "reference 5000 images of the data, not val2014.npz"),
        ({"fid_reference": "val2017.npz 0123abcd"}, "reference val2017.npz 0123abcd"),
        ({"clip_definition": "100*cos, unclamped, ViT-L-14/openai, x"}, "CLIP score by 100*cos"),
        ({"negative_prompt": ""}, "negative_prompt=''"),
        ({"fid": None}, "no FID"),
    ],
)
def test_each_deviation_keeps_a_number_from_being_comparable_and_is_named(change, said):
    found = judged("mlperf_sdxl", {**MLPERF, **change})
    assert (
        not found["fid_comparable"]
        and said in found["protocol_verdict"]
        and "not comparable" in found["protocol_verdict"]
    )


def test_a_number_without_a_protocol_is_never_comparable():
    assert judged("none", MLPERF) == {"fid_comparable": False, "protocol_verdict": None}
    assert judged("none", {**MLPERF, "fid": None})["fid_comparable"] is None
    row = {**MLPERF, "fid_extractor": "inception-v3-compat-2048d", "fid_resizer": "bilinear-tf1 to 299x299"}
    row |= {"n_images": 10_000, "sampler": "plms", "steps": 50, "height": 512, "width": 512}
    good = judged("coco2017_cfg", {**row, "fid_reference": "5000 images of the data"})
    assert good["fid_comparable"] and good["protocol_verdict"].startswith("coco2017_cfg: holds (model cards")
    few = judged("coco2017_cfg", {**row, "fid_reference": "4999 images of the data"})
    assert not few["fid_comparable"] and "4,999 reference images, not 5,000" in few["protocol_verdict"]


def test_verdicts_are_lines_of_the_end_table(tmp_path, capsys):
    verdict = "mlperf_sdxl: passes: fid 23.5 within 23 to 24"
    rows = [records.cell_row("dpmpp", steps, protocol="mlperf_sdxl", protocol_verdict=verdict) for steps in (10, 20)]
    (group,) = recorded(tmp_path, rows)
    sentences = table.end_table(group.cells, None).sentences
    assert f"protocol {verdict} (all 2 cells)" in sentences
    one = group.cells.assign(protocol_verdict=[verdict, None])
    from rich.console import Console

    show(one, Console(width=200))
    assert f"protocol {verdict} (" in capsys.readouterr().out


def test_the_curve_of_model_cards_is_drawn_with_its_scales(tmp_path):
    rows = [records.cell_row("plms", 50, cfg=cfg) for cfg in (1.5, 3.0, 8.0)]
    (group,) = recorded(tmp_path, rows)
    drawing = fid_clip.draw(group, looks(group))
    (panel,) = drawing.figure.axes
    line = panel.containers[0].lines[0]
    cells = group.cells.sort_values("cfg")
    assert np.allclose(line.get_xdata(), cells["clip_score"]) and np.allclose(line.get_ydata(), cells["fid"])
    assert {one.get_text() for one in panel.texts} == {"1.5", "3", "8"}
    assert "CLIP score" in panel.get_xlabel() and "FID" in panel.get_ylabel() and "FID against CLIP" in texts(drawing)
    (alone,) = recorded(tmp_path / "alone", [records.cell_row("plms", 50)])
    assert fid_clip.draw(alone, looks(alone)).figure is None
