"""The embedded world and the model trained on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.embedded import evaluate, nets, train, world


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


def test_drawings_show_what_the_caption_says():
    scenes = world.scenes(np.arange(500))
    images = world.render(scenes).permute(0, 2, 3, 1).float().numpy()
    paint = np.array(list(world.COLOURS.values()), float)
    for n in np.flatnonzero((scenes.objects == 1) & (scenes.shape[:, 0] != world.SHAPES.index("ring"))):
        x, y = np.floor(scenes.centre[n, 0]).astype(int)
        distance = np.abs(images[n, y, x] - paint * scenes.shade[n, 0]).max(1)
        assert distance.argmin() == scenes.colour[n, 0]


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
        assert len(ids) == len(caption.split()) + 2 <= nets.CONTEXT
    assert tok("zebra!").input_ids[1:-1], "words outside the world are spelt out, not lost"


def test_mirrored_relations_have_the_same_answers():
    scenes = world.scenes(np.arange(2000))
    two = scenes.take(np.flatnonzero(scenes.objects == 2)[:200])
    swap = world.Scenes(**{**vars(two), **{k: getattr(two, k)[:, ::-1] for k in ("shape", "colour", "size")}})
    mirrored = world.Scenes(**{**vars(swap), "relation": two.relation ^ 1})
    for name, answer in nets.answers(two).items():
        assert torch.equal(answer, nets.answers(mirrored)[name])


def test_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    def weights(folder, stops):
        folder.mkdir()
        for steps in stops:
            # The whole length stays the same, so that the learning rate does; only the end of this sitting moves.
            recipe = train.Recipe(steps=steps, batch=4, lr=1e-3, decay_from=1.0)
            monkeypatch.setitem(train.RECIPES, "extractor", recipe)
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
    assert evaluate.reconstruction(model, count=32) >= 32
    scenes = world.split_scenes(32, held_out=True, two_objects=0.0)
    hits = evaluate.right(extractor, evaluate.generate(model, scenes.captions(), cfg=3.0, steps=10), scenes)
    for name in ("background", "shape_0", "colour_0", "size_0"):
        assert np.nanmean(hits[name]) >= 0.9, name
