"""The embedded world and the model trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.embedded import WORLD_VERSION, evaluate, nets, sharpen, stage, train, world

KEPT = Path(__file__).parent / "fixtures" / "world.json"


def test_an_image_is_a_function_of_its_number_alone():
    alone = world.render(world.scenes([12345]))
    among = world.render(world.scenes(range(12340, 12350)))
    assert torch.equal(alone[0], among[5])
    assert world.scenes([12345]).captions() == world.scenes(range(12340, 12350)).captions()[5:6]


def test_the_world_has_more_than_a_hundred_thousand_captions_and_each_code_is_one_caption():
    scenes = world.scenes(np.arange(400_000))
    assert len(np.unique(scenes.caption_code())) > 100_000
    some = scenes.take(np.arange(3000))
    pairs = set(zip(some.caption_code().tolist(), some.captions(), strict=True))
    assert len(pairs) == len({code for code, _ in pairs}) == len({caption for _, caption in pairs})


def test_prompts_for_evaluation_are_never_trained_on():
    held, trained = world.split_scenes(2000, held_out=True), world.scenes(train.training_indices(20_000))
    assert not set(held.captions()) & set(trained.captions())
    assert 0.1 < world.scenes(range(20_000)).held_out().mean() < 0.15


def test_no_drawing_changes_under_its_version():
    """Where this fails, raise WORLD_VERSION and write the file again: records of other drawings must not be met."""
    kept = json.loads(KEPT.read_text())
    scenes = world.split_scenes(len(kept["captions"]), held_out=True)
    small = torch.nn.functional.avg_pool2d(world.render(scenes).float(), 16).flatten(1)
    assert kept["version"] == WORLD_VERSION and scenes.captions() == kept["captions"]
    assert (small - torch.tensor(kept["means"])).abs().max() < 0.5  # a few of 256 pixels may round the other way


def test_the_amplitude_of_detail_falls_about_as_one_over_frequency():
    """As photographs' does (Field 1987); flat shapes on flat ground fall far faster and leave fine scales empty."""
    grey = world.render(world.split_scenes(128, held_out=True)).float().mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().pow(2).mean(0)
    cycles = torch.fft.fftfreq(64) * 64
    radius = (cycles[:, None] ** 2 + cycles[None] ** 2).sqrt()
    rings = np.arange(2, 25)
    amplitude = [power[(radius >= k - 0.5) & (radius < k + 0.5)].mean().sqrt().item() for k in rings]
    slope, _ = np.polyfit(np.log(rings), np.log(amplitude), 1)
    assert -1.5 < slope < -0.9


def lone(**asked: str) -> world.Scenes:
    """Two hundred drawings of one object with these names."""
    scenes = world.scenes(np.arange(60_000))
    keep = scenes.objects == 1
    for name, value in asked.items():
        of = {"material": world.MATERIALS, "shape": world.SHAPES, "light": world.LIGHT_NAMES}[name]
        code = getattr(scenes, name)
        keep &= (code if code.ndim == 1 else code[:, 0]) == of.index(value)
    return scenes.take(np.flatnonzero(keep)[:200])


@pytest.mark.parametrize("shape", ["ball", "block", "star", "cross"])
def test_drawings_show_the_colour_that_the_caption_says(shape):
    scenes = lone(material="matte", shape=shape)
    images = world.render(scenes).permute(0, 2, 3, 1).float().numpy()
    paint = np.array(list(world.COLOURS.values()), float)
    for n, (x, y) in enumerate(np.floor(scenes.centre[:, 0]).astype(int)):
        seen = images[n, y - 1 : y + 2, x - 1 : x + 2].mean((0, 1))
        cosine = (paint / np.linalg.norm(paint, axis=1, keepdims=True)) @ (seen / np.linalg.norm(seen))
        assert cosine.argmax() == scenes.colour[n, 0]


def test_solids_are_bright_towards_the_light_and_dark_on_the_ground_behind():
    for name, (x, y, _) in world.LIGHTS.items():
        scenes = lone(material="matte", shape="ball", light=name)
        grey, ground = world.render(scenes).float().mean(1).numpy(), world.empty(scenes).clamp(0, 255).mean(1).numpy()
        side = np.array([x, y]) / np.hypot(x, y)

        def at(n: int, radii: float, side=side, scenes=scenes) -> tuple[int, int]:
            column, row = np.floor(scenes.centre[n, 0] + radii * scenes.radius[n, 0] * side).astype(int)
            return row, column

        for n in range(len(scenes)):
            assert grey[n][at(n, 0.6)] > 1.1 * grey[n][at(n, -0.6)]
            assert grey[n][at(n, -1.2)] < 0.8 * ground[n][at(n, -1.2)]  # in the shadow
            assert abs(grey[n][at(n, 1.2)] - ground[n][at(n, 1.2)]) < 1.5


def test_materials_have_two_tones_where_the_caption_says_so():
    for material in world.MATERIALS:
        scenes = lone(material=material, shape="block")
        images, tones = world.render(scenes).float(), []
        for n, (x, y) in enumerate(np.floor(scenes.centre[:, 0]).astype(int)):
            patch = images[n, :, y - 4 : y + 5, x - 4 : x + 5]
            tones.append(float(patch.flatten(1).std(1).max()))
        flat = material in ("matte", "shiny")
        assert (max(tones) < 30) if flat else (np.median(tones) > 15), (material, min(tones), max(tones))


def test_two_objects_stand_where_the_relation_says():
    scenes = world.scenes(np.arange(2000))
    gap = scenes.centre[:, 0] - scenes.centre[:, 1]
    for code, (axis, sign) in enumerate([(0, -1), (0, 1), (1, -1), (1, 1)]):
        rows = (scenes.objects == 2) & (scenes.relation == code)
        assert rows.sum() > 100 and (sign * gap[rows, axis] > 10).all()


def test_every_caption_fits_the_tokenizer_and_its_words_are_one_token_each():
    tok = nets.tokenizer()
    for caption in world.scenes(np.arange(300)).captions():
        ids = tok(caption).input_ids
        assert len(ids) == len(caption.replace(",", " ,").split()) + 2 <= nets.CONTEXT
    assert tok("zebra!").input_ids[1:-1], "words outside the world are spelt out, not lost"


def test_mirrored_relations_have_the_same_answers():
    scenes = world.scenes(np.arange(2000))
    two = scenes.take(np.flatnonzero(scenes.objects == 2)[:200])
    swap = world.Scenes(
        **{**vars(two), **{k: getattr(two, k)[:, ::-1] for k in ("shape", "colour", "material", "size")}}
    )
    mirrored = world.Scenes(**{**vars(swap), "relation": two.relation ^ 1})
    for name, answer in nets.answers(two).items():
        assert torch.equal(answer, nets.answers(mirrored)[name])


def test_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    def weights(folder, stops):
        folder.mkdir()
        for steps in stops:
            # The whole length stays the same, so that the learning rate does; only the end of this sitting moves.
            recipe = stage.Recipe(steps=steps, batch=4, lr=1e-3, decay_from=1.0)
            monkeypatch.setitem(stage.RECIPES, "extractor", recipe)
            torch.manual_seed(0)
            net = train.train_extractor(folder, "cpu")
        return net.state_dict()

    whole, resumed = weights(tmp_path / "a", [4]), weights(tmp_path / "b", [2, 4])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


# ------------------------------------------------------------------------------------------- the shipped weights


def test_the_weights_are_small():
    size = sum(path.stat().st_size for path in train.WEIGHTS.rglob("*") if path.is_file())
    assert 1e6 < size < 20e6


@pytest.fixture(scope="module")
def extractor():
    return evaluate.load_extractor(train.WEIGHTS)


def test_the_classifier_reads_real_drawings(extractor):
    scenes = world.split_scenes(512, held_out=True, start=evaluate.CHECK_START)
    hits = evaluate.right(extractor, world.render(scenes), scenes)
    assert min(np.nanmean(values) for values in hits.values()) >= 0.99


def test_retrieval_among_64_captions():
    image, text = evaluate.retrieval(train.WEIGHTS, groups=2)
    assert min(image, text) >= 0.95


def test_reconstruction_and_prompt_fidelity(extractor):
    from harness.models.load import load

    model = load({"name": "embedded", "path": str(train.WEIGHTS), "height": 64, "width": 64}, "fp32", "cpu")
    psnr, detail = evaluate.reconstruction(model, count=32)
    assert psnr >= 26  # grain costs
    assert 0.8 <= detail <= 1.25
    scenes = world.split_scenes(32, held_out=True, two_objects=0.0)
    hits = evaluate.right(extractor, evaluate.generate(model, scenes.captions(), cfg=3.0, steps=10), scenes)
    for name in ("ground", "light", "shape_0", "colour_0", "size_0"):
        assert np.nanmean(hits[name]) >= 0.9, name


def test_the_second_stage_of_the_autoencoder_changes_its_decoder_alone(tmp_path, monkeypatch):
    """A latent made before it means the same after it, and the UNet's latents take their half of a batch at the end."""
    monkeypatch.setitem(stage.RECIPES, "decoder", stage.Recipe(steps=3, batch=4, lr=1e-3, decay_from=0.5, ema=0.5))
    monkeypatch.setattr(sharpen, "DENOISED_FROM", 2)
    asked = []

    def denoised(z, t, captions):
        asked.append((tuple(z.shape), len(t), len(captions)))
        return torch.zeros_like(z)

    torch.manual_seed(0)
    autoencoder = nets.vae()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    after = sharpen.train_decoder(tmp_path, "cpu", autoencoder, denoised).state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert asked == [((2, 4, 16, 16), 2, 2)]
