"""Control images that networks draw: depth, normals and segmentation by transformers, the others by controlnet_aux."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import transformers
import zoo_models
from skimage.transform import resize

from harness.errors import InputError
from harness.models import annotators, hints

HAS_AUX = find_spec("controlnet_aux") is not None
aux_only = pytest.mark.skipif(not HAS_AUX, reason="controlnet_aux is not installed: uv sync --extra hints")
LABELS = 5


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    """A folder of a tiny network of depth."""
    pipe, top = zoo_models.pipeline("depth2img"), tmp_path_factory.mktemp("dpt")
    pipe.depth_estimator.save_pretrained(top)
    pipe.feature_extractor.save_pretrained(top)
    return top


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A folder of a tiny network of segmentation."""
    top = tmp_path_factory.mktemp("segformer")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[1, 1], hidden_sizes=[8, 8], patch_sizes=[3, 3],
        strides=[2, 2], num_attention_heads=[1, 1], mlp_ratios=[1, 1], decoder_hidden_size=8, num_labels=LABELS,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.SegformerForSemanticSegmentation(config).eval().save_pretrained(top)
    transformers.SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(top)
    return top


def images(count=2, side=48):
    return torch.randint(0, 256, (count, 3, side, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def picture(image):
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).numpy())


@torch.no_grad()
def test_depth_is_the_networks_from_farthest_to_nearest(depth):
    pipe = zoo_models.pipeline("depth2img")
    found = hints.drawn("depth", images(), annotators.load("depth", str(depth), "cpu"))
    assert found.shape == (2, 3, 48, 40) and torch.equal(found[:, 0], found[:, 2])
    prepares = transformers.AutoImageProcessor.from_pretrained(depth)  # of the two that some releases have, the default
    for image, one in zip(images(), found, strict=True):
        seen = prepares(images=picture(image), return_tensors="pt")
        told = pipe.depth_estimator(**seen).predicted_depth
        whole = torch.nn.functional.interpolate(told[None], size=(48, 40), mode="bicubic")[0, 0]
        expected = (whole - whole.min()) / (whole.max() - whole.min())
        assert torch.allclose(one[0], expected, atol=1e-5) and (one.min(), one.max()) == (0, 1)


@torch.no_grad()
def test_a_normal_is_perpendicular_to_its_plane(depth):
    """z = a·x + b·y has the normal (a, b, 1) with red to the left and green up."""
    y, x = np.mgrid[:30, :60] / 60
    n = annotators.normals(0.3 * x - 0.2 * y) * 2 - 1
    assert np.allclose(n, np.array([0.3, -0.2, 1]) / np.sqrt(0.3**2 + 0.2**2 + 1), atol=1e-9)
    near, drawn = (
        hints.drawn(hint, images(1), annotators.load(hint, str(depth), "cpu")) for hint in ("depth", "normal")
    )
    expected = annotators.normals(near[0, 0].double().numpy())
    assert np.allclose(drawn[0].permute(1, 2, 0), expected, atol=1e-5) and np.ptp(drawn[0].numpy()) > 0.05


@aux_only
@torch.no_grad()
def test_classes_have_the_colours_of_ade20k(classes):
    from controlnet_aux.util import ade_palette

    found = hints.drawn("segmentation", images(1), annotators.load("segmentation", str(classes), "cpu"))
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(classes)
    seen = transformers.AutoImageProcessor.from_pretrained(classes)(picture(images(1)[0]), return_tensors="pt")
    logits = torch.nn.functional.interpolate(network(**seen).logits, size=(48, 40), mode="bilinear")
    expected = torch.tensor(ade_palette())[logits[0].argmax(0)].permute(2, 0, 1)
    assert torch.equal((found[0] * 255).round().long(), expected) and len(expected.flatten(1).unique(dim=1).T) > 1


def saved(top, hint):
    """The files of a detector of controlnet_aux with random weights, and the detector."""
    import controlnet_aux
    from controlnet_aux.hed import ControlNetHED_Apache2
    from controlnet_aux.lineart import Generator
    from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large
    from controlnet_aux.open_pose.body import bodypose_model

    how = annotators.ANNOTATORS[hint]
    made = {"soft_edge": ControlNetHED_Apache2, "mlsd": MobileV2_MLSD_Large, "pose": bodypose_model}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [made[hint]() if hint in made else Generator(3, 1, 3) for _ in how.files]
    for network, name in zip(networks, how.files, strict=True):
        held = network.state_dict()
        if hint == "pose":  # the file's names have a level less than the network's
            held = {key.split(".", 1)[1]: value.half() for key, value in held.items()}
        torch.save(held, top / name)
    return [network.eval() for network in networks], controlnet_aux


@aux_only
@pytest.mark.zoo
@pytest.mark.parametrize("hint", ["soft_edge", "mlsd", "lineart"])
def test_a_detector_of_controlnet_aux_draws_what_it_draws(tmp_path, hint):
    networks, library = saved(tmp_path, hint)
    detector = getattr(library, annotators.ANNOTATORS[hint].detector)(*networks)
    annotators.check(hint, str(tmp_path))
    with torch.no_grad():
        found = hints.drawn(hint, images(1), annotators.load(hint, str(tmp_path), "cpu"))[0]
        expected = resize(detector(picture(images(1)[0]), output_type="np") / 255, (48, 40), order=1)
    assert np.allclose(found.permute(1, 2, 0), expected, atol=1e-6)
    assert hint == "mlsd" or np.ptp(found.numpy()) > 0  # random weights see no straight line


@aux_only
@pytest.mark.zoo
def test_a_pose_is_drawn_as_its_body(tmp_path, monkeypatch):
    """The body's network is loaded; where it sees a body, a skeleton of many colours is drawn."""
    from controlnet_aux.open_pose.body import Body

    saved(tmp_path, "pose")
    draw = annotators.load("pose", str(tmp_path), "cpu")
    candidates = np.array([[100 + 20 * (k % 4), 40 + 20 * k, 1.0, k] for k in range(18)])
    body = np.array([[*range(18), 18.0, 18.0]])
    with torch.no_grad():
        assert draw(images(1)[0].permute(1, 2, 0).numpy() / 255).max() == 0  # random weights see nobody
        monkeypatch.setattr(Body, "__call__", lambda self, image: (candidates, body))
        found = hints.drawn("pose", images(1), draw)
    assert len(found[0].flatten(1).round(decimals=1).unique(dim=1).T) > 8


@pytest.mark.parametrize("hint", hints.BY_NETWORK)
def test_a_network_that_cannot_draw_is_one_line(tmp_path, depth, monkeypatch, hint):
    how = annotators.ANNOTATORS[hint]
    with pytest.raises(InputError, match="there is no such folder"):
        annotators.check(hint, str(tmp_path / "nowhere"))
    if how.detector or how.palette:
        monkeypatch.setattr("harness.models.annotators.find_spec", lambda name: None)
        with pytest.raises(InputError, match="is drawn with the package controlnet_aux: `uv sync --extra hints`"):
            annotators.check(hint, str(tmp_path))
    monkeypatch.setattr("harness.models.annotators.find_spec", lambda name: True)
    if how.files:
        with pytest.raises(InputError, match=f"has no {how.files[0]}, by which hint={hint} is drawn"):
            annotators.check(hint, str(tmp_path))
    elif hint == "segmentation":
        with pytest.raises(InputError, match="is of a 'dpt'; hint=segmentation is drawn by one of segformer"):
            annotators.check(hint, str(depth))
    else:
        annotators.check(hint, str(depth))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "tells depth in metres"),
        ({"model_type": "zoedepth"}, "is of a 'zoedepth'; hint=depth is drawn by one of dpt, depth_anything"),
        ({"model_type": "dpt"}, "needs preprocessor_config.json and .safetensors weights"),
    ],
)
def test_a_network_of_another_kind_is_one_line(tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said):
        annotators.check("depth", str(tmp_path))


def test_weights_that_are_not_whole_are_refused(tmp_path, depth):
    for file in depth.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"fusion_hidden_size": 16}))
    with pytest.raises(InputError, match="annotator"):
        annotators.load("depth", str(tmp_path), "cpu")
