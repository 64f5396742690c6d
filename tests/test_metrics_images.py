"""Metrics that each image has by itself: CLIP score, similarity to the source, discretisation error, attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_world import batch, feed, needs_shipped

from harness.errors import InputError
from harness.metrics import bootstrap, load, similarity
from harness.metrics.features import clip, files


def test_intervals_of_a_mean_cover():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        row = bootstrap.measured("x", rng.exponential(size=60), 300, 0)
        held.append(row["x_low"] <= 1 <= row["x_high"])
        assert row["x_low"] <= row["x"] <= row["x_high"] and row["x_n"] == 60
    assert 0.87 <= np.mean(held) <= 0.99
    assert bootstrap.measured("x", np.array([np.nan]), 10, 0) == dict.fromkeys(("x", "x_low", "x_high", "x_n"))
    one = {"x": 2.0, "x_low": None, "x_high": None, "x_n": 1}
    assert bootstrap.measured("x", np.array([2.0, np.nan]), 10, 0) == one, "one image has no interval"


# ----------------------------------------------------------------------------------------------------- CLIP score


def test_clip_score_is_100_times_the_cosine_of_open_clip(make_context, networks, world_data):
    import open_clip

    (metric,) = load.build(["clip_score"], make_context())
    images, prompts = world_data.images(range(6)), world_data.prompts(range(6))
    got = metric.update(batch(world_data, range(6)))["clip_score"]
    name = f"local-dir:{networks / 'open_clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    from torchvision.transforms.functional import to_pil_image

    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(to_pil_image(image)) for image in images]))
        read = model.encode_text(open_clip.get_tokenizer(name)(prompts))
        expected = 100 * torch.nn.functional.cosine_similarity(seen, read).numpy()
    assert got == pytest.approx(expected, abs=2e-3)
    row = metric.compute()
    assert row["clip_score"] == pytest.approx(got.mean()) and row["clip_score_n"] == 6
    assert row["clip_definition"].startswith("100*cos, unclamped, embedded-open_clip-v1-")
    assert row["clip_definition"].endswith("no resize")


def test_clip_score_resizes_other_sizes_as_open_clip_does(make_context, world_data):
    (metric,) = load.build(["clip_score"], make_context())
    large = torch.nn.functional.interpolate(world_data.images(range(8)).float(), scale_factor=2, mode="nearest").byte()
    native = metric.scorer(world_data.images(range(8)), world_data.prompts(range(8)))
    again = metric.scorer(large, world_data.prompts(range(8)))
    assert again == pytest.approx(native, abs=5)
    assert metric.scorer.definition((128, 128)).endswith("pil-bicubic-squash to 64x64")


@needs_shipped
def test_clip_score_falls_when_captions_are_shuffled(make_context, world_data):
    images, prompts = world_data.images(range(128)), world_data.prompts(range(128))
    rows = []
    for order in (prompts, prompts[1:] + prompts[:1]):
        (metric,) = load.build(["clip_score"], make_context())
        metric.update(batch(world_data, range(128), images, order))
        rows.append(metric.compute())
    assert rows[1]["clip_score_high"] < rows[0]["clip_score_low"]


def test_a_clip_model_that_is_not_here_is_named_with_where_it_was_looked_for(monkeypatch, tmp_path, make_context):
    import huggingface_hub.constants

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    context = make_context()
    with pytest.raises(InputError, match=r"ViT-B-32/openai is not on this machine, looked for .*ViT-B-32\.pt"):
        clip.get("ViT-B-32", "openai", context)
    with pytest.raises(InputError, match=r"'ViT-B-33' is not known; did you mean ViT-B-32|did you mean 'ViT-B-32'"):
        clip.get("ViT-B-33", "openai", context)
    with pytest.raises(InputError, match="pretrained='opnai' is not known for ViT-B-32; valid: openai"):
        clip.get("ViT-B-32", "opnai", context)
    with pytest.raises(InputError, match=str(tmp_path / "none")):
        load.check([{"name": "clip_score", "model": f"local-dir:{tmp_path / 'none'}"}])
    # Where it lies on the machine it is taken from there, with the activation the tag was trained with.
    weights_file = tmp_path / ".cache" / "clip" / "ViT-B-32.pt"
    weights_file.parent.mkdir(parents=True)
    weights_file.touch()
    assert clip._tagged("ViT-B-32", "openai")["pretrained"] == str(weights_file)
    assert clip._tagged("ViT-B-32", "openai")["force_quick_gelu"] is True


def test_data_of_photographs_without_a_clip_model_has_no_score_and_says_why(monkeypatch, tmp_path, make_context):
    class Photographs:
        name, size = "folder", (64, 64)

    monkeypatch.setenv("HOME", str(tmp_path))
    (metric,) = load.build(["clip_score"], make_context(data=Photographs()))
    row = metric.compute()
    assert row["clip_score"] is None and "not on this machine" in row["clip_definition"]


# ----------------------------------------------------------------------------------------------------- similarity


def pairs(n: int = 4, size: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (n, 3, size, size), generator=rng)
    b = (a + 20 * torch.randn(a.shape, generator=rng) * torch.arange(1, n + 1).view(-1, 1, 1, 1)).clamp(0, 255).round()
    return a.to(torch.uint8), b.to(torch.uint8)


def test_ssim_and_psnr_equal_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    a, b = (x.double() for x in pairs())
    ours = similarity.ssim_map(a, b).mean((1, 2))
    theirs = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    assert ours.numpy() == pytest.approx(theirs.numpy(), rel=1e-6)
    decibel = similarity._decibel(((a - b) ** 2).mean((1, 2, 3)).numpy())
    theirs = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))
    assert decibel == pytest.approx(theirs.numpy(), rel=1e-6)


def test_inside_and_outside_of_the_mask_are_told_apart(make_context, world_data):
    """Noise in the mask alone: outside is perfect, inside has exactly the noise's PSNR; and the reverse."""
    sources = world_data.images(range(8))
    masks = world_data.masks(range(8))
    noise = (torch.rand(sources.shape, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    for where, chosen in (("inside", masks.bool()), ("outside", ~masks.bool())):
        other = {"inside": "outside", "outside": "inside"}[where]
        images = torch.where(chosen, noise, sources)
        (metric,) = load.build(["similarity"], make_context(task="inpaint"))
        values = metric.update(batch(world_data, range(8), images, sources=sources, masks=masks))
        squared = ((images.double() - sources.double()) ** 2).mean(1)
        expected = [10 * np.log10(255**2 / squared[k][chosen[k, 0]].mean().item()) for k in range(8)]
        assert values[f"psnr_{where}"] == pytest.approx(expected, rel=1e-5)
        assert (values[f"psnr_{other}"] == similarity.PSNR_CAP).all()
        assert (values[f"ssim_{where}"] < values[f"ssim_{other}"] - 0.2).all()
        assert (values["feature_distance"] > 0).all()
        row = metric.compute()
        assert row[f"psnr_{where}"] == pytest.approx(np.mean(expected)) and row["psnr_n"] == 8


def test_similarity_is_for_tasks_with_a_source(make_context, world_data):
    assert load.build(["similarity"], make_context(task="txt2img")) == []
    (metric,) = load.build(["similarity"], make_context(task="img2img"))
    values = metric.update(batch(world_data, range(4), sources=world_data.images(range(4))))
    assert "psnr_inside" not in values and "lpips" not in values
    assert (
        (values["psnr"] == 100).all() and values["ssim"] == pytest.approx(1) and (values["feature_distance"] == 0).all()
    )
    row = metric.compute()
    assert row["psnr_inside"] is None and row["lpips"] is None and row["lpips_definition"] is None


def test_lpips_is_measured_where_its_weights_lie(monkeypatch, tmp_path, make_context, world_data):
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
    from torchvision.models import squeezenet1_1

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not similarity.has_lpips("squeeze")
    path = files.hub_file(files.LPIPS["squeeze"])
    path.parent.mkdir(parents=True)
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    (metric,) = load.build([{"name": "similarity", "lpips": "squeeze"}], make_context(task="img2img"))
    images, sources = world_data.images(range(3)), world_data.sources(range(3), "img2img")
    got = metric.update(batch(world_data, range(3), images, sources=sources))["lpips"]
    a, b = images / 127.5 - 1, sources / 127.5 - 1
    expected = learned_perceptual_image_patch_similarity(a, b, net_type="squeeze", reduction="none").flatten()
    assert got == pytest.approx(expected.detach().numpy(), rel=1e-5)
    assert metric.compute()["lpips_definition"] == "lpips-squeeze, torchmetrics"


# ------------------------------------------------------------------------------------- discretisation, attributes


def test_discretisation_error_is_the_relative_rms_of_the_first_images(make_context, world_data):
    reference = torch.randn(20, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    off = torch.linspace(0.01, 0.2, 20).view(-1, 1, 1, 1)
    asked = []

    def latents_of(indices):
        asked.extend(indices)
        return reference[indices]

    context = make_context(reference_latents=latents_of, reference_name="dpmpp 200 steps")
    (metric,) = load.build(["discretisation"], context)
    values = []
    for rows in (range(12, 20), range(12)):  # in any order
        made = batch(world_data, rows, latents=reference[list(rows)] * (1 + off[list(rows)]))
        values.append(metric.update(made)["discretisation_error"])
    assert sorted(asked) == list(range(16))
    assert values[1] == pytest.approx(off[:12].flatten().numpy(), rel=1e-5)
    assert np.isnan(values[0][4:]).all() and not np.isnan(values[0][:4]).any()
    row = metric.compute()
    expected = ((off * reference)[:16].norm() / reference[:16].norm()).item()
    assert row["discretisation_error"] == pytest.approx(expected, rel=1e-5)
    assert row["discretisation_error_low"] < expected < row["discretisation_error_high"]
    assert row["discretisation_error_n"] == 16 and row["discretisation_reference"] == "dpmpp 200 steps"
    assert load.build(["discretisation"], make_context(reference_latents=latents_of, stochastic=True)) == []
    assert load.build(["discretisation"], make_context()) == []


def test_attributes_are_judged_by_what_each_prompt_names(make_context, world_data):
    """With heads that answer from a list: a wrong answer counts against its attribute, and `all`, and nothing else."""
    from harness.embedded import nets

    rows = list(range(40))
    truth = {name: value.numpy() for name, value in nets.answers(world_data.scenes(rows)).items()}
    two = truth["axis"] >= 0
    assert two.any() and not two.all()
    (metric,) = load.build(["attributes"], make_context())

    class Heads:
        id = metric.extractor.id

        def __init__(self, wrong):
            self.wrong = wrong

        def attributes(self, images):
            return {k: (v + (k == self.wrong)) if k == self.wrong else np.where(v < 0, 0, v) for k, v in truth.items()}

    for head, spoilt in ((None, None), ("colour_0", "colour"), ("axis", "relation"), ("objects", None)):
        metric.extractor = Heads(head)
        values = metric.update(batch(world_data, rows))
        for name, value in values.items():
            applies = {"attributes_relation": two, "attributes_position": ~two}.get(name, np.ones(40, bool))
            assert np.array_equal(np.isnan(value), ~applies), name
            if name == "attributes_all":
                right = {None: np.ones(40, bool), "axis": ~two}.get(head, np.zeros(40, bool))
                assert np.array_equal(value == 1, right), (head, value)
            else:
                assert (value[applies] == (name != f"attributes_{spoilt}")).all(), (head, name)


@needs_shipped
def test_the_shipped_extractor_reads_real_drawings(make_context, world_data):
    (metric,) = load.build(["attributes"], make_context())
    row = feed(metric, world_data, 256, 64).compute()
    for name in ("shape", "colour", "size", "background", "light", "position", "relation"):
        assert row[f"attributes_{name}"] >= 0.98, (name, row)
    (metric,) = load.build(["attributes"], make_context())
    shifted = world_data.images([i + 1 for i in range(64)])
    assert feed(metric, world_data, 64, 64, shifted).compute()["attributes_all"] < 0.1


# ---------------------------------------------------------------------------------------------------- by the name


OF_IMAGES = [name for name in load.names() if load.metric_class(name).needs_images]


@pytest.mark.parametrize("name", load.names())
def test_every_column_of_a_metric_is_one_that_records_have(name):
    from harness.store import schema

    metric = load.metric_class(name)
    assert set(metric.columns) <= {column.name for column in schema.CELLS}
    assert set(metric.image_columns) <= {column.name for column in schema.IMAGES}


# Those that need no images are fed in test_analytic.py.
@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_metric_fills_the_columns_it_declares(name, make_context, world_data):
    """Whatever has a YAML is found, checked, built and fed, and its columns are ones that records have."""
    from harness.store import schema

    context = make_context(task="inpaint", reference_latents=lambda i: torch.ones(len(i), 4, 4, 4))
    # Networks that are their user's to bring are not here: tests/test_metrics_published.py has them.
    (metric,) = load.build([{"name": name, "optional": True} if "optional" in load.options(name) else name], context)
    rows = range(8)
    sources, masks = world_data.sources(rows, "inpaint"), world_data.masks(rows)
    images = metric.update(batch(world_data, rows, sources=sources, masks=masks, latents=torch.zeros(8, 4, 4, 4)))
    row = metric.compute()
    assert set(row) == set(metric.columns) and set(images) <= set(metric.image_columns)
    assert all(value.shape == (8,) for value in images.values())
    schema.to_arrow("cells", [row])


def test_names_and_knobs_that_are_not_there_are_refused_without_torch():
    import subprocess
    import sys

    load.check(load.DEFAULT)
    for asked, message in (
        (["fidd"], "did you mean 'fid'"),
        ([{"name": "fid", "extracter": "auto"}], "did you mean 'extractor'"),
        ([{"name": "fid", "extractor": "vgg"}], "valid: auto, embedded, inception"),
        ([{"name": "fid", "resamples": 0}], "from 1 to 100,000"),
        ([{"name": "law", "directions": 10**9}], "from 1 to 10,000"),
        ([{"name": "similarity", "lpips": "resnet"}], "valid: alex, off, squeeze, vgg"),
        (["fid", "fid"], "named twice"),
    ):
        with pytest.raises(InputError, match=message):
            load.check(asked)
    code = "from harness.metrics import load; load.check(load.DEFAULT); import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=load.CONF.parents[1], check=False).returncode == 0
