"""Metrics that people publish, on small networks of the right kind, against their own packages or formulas."""

from __future__ import annotations

import ast
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import published_packages
import pytest
import torch
from metric_world import batch, feed
from PIL import Image
from safetensors.torch import save_file

from harness.errors import InputError
from harness.metrics import cmmd, fd_dinov2, image_reward, inception_score, load
from harness.metrics.features import clip, extractors, files, own_weights
from harness.metrics.features.moments import frechet_distance, gaussian_of
from harness.paths import EMBEDDED

N = 6
FIXTURES = Path(__file__).parent / "fixtures"
WITH_WEIGHTS = ("pick_score", "hps_v2", "aesthetic", "image_reward", "vqa_score", "cmmd", "fd_dinov2")
PUBLISHED = (*WITH_WEIGHTS, "inception_score")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def images(world_data):
    return world_data.images(range(N))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """transformers' CLIP, 32 pixels a side, with processor and tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizerFast.from_pretrained(EMBEDDED / "tokenizer")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(
        text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 16}, projection_dim=16
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def open_clip_folder() -> str:
    return f"local-dir:{files.EMBEDDED / 'open_clip'}"


def measured(name: str, make_context, images, world_data, **options) -> dict:
    (metric,) = load.build([{"name": name, **options}], make_context())
    values = metric.update(batch(world_data, range(len(images)), images))
    row = metric.compute()
    if values:
        assert row[name] == pytest.approx(values[name].mean()) and row[f"{name}_n"] == len(images)
        row["values"] = values[name]
    assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    return row


# ------------------------------------------------------------------------------------------------------ each by itself


def test_pick_score_is_the_models_own_logit_of_image_and_prompt(make_context, world_data, images, clip_folder):
    from transformers import AutoProcessor, CLIPModel

    row = measured("pick_score", make_context, images, world_data, path=str(clip_folder))
    net, processor = CLIPModel.from_pretrained(clip_folder), AutoProcessor.from_pretrained(clip_folder)
    seen = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in images]
    given = processor(images=seen, text=world_data.prompts(range(N)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = net(**given).logits_per_image.diagonal().numpy()
    assert np.allclose(row["values"], theirs, atol=1e-4) and np.ptp(theirs) > 1e-3
    assert "2305.01569" in row["pick_score_definition"] and clip_folder.name in row["pick_score_definition"]


def test_hps_is_the_cosine_of_the_tuned_model(make_context, world_data, images, tmp_path):
    import open_clip

    net, _, _ = open_clip.create_model_and_transforms(open_clip_folder())
    for value in net.parameters():
        value.data += 0.01 * torch.randn_like(value)
    weights = tmp_path / "HPS.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, weights)
    row = measured("hps_v2", make_context, images, world_data, path=str(weights), model=open_clip_folder())
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    tokens = open_clip.get_tokenizer(open_clip_folder())(world_data.prompts(range(N)))
    with torch.inference_mode():
        seen, read, _ = net.eval()((images / 255 - mean) / std, tokens)
    assert np.allclose(row["values"], (seen * read).sum(1).numpy(), atol=1e-5)
    assert "2306.09341" in row["hps_v2_definition"]


def test_hps_sees_a_wide_image_between_black_bars(make_context, world_data, tmp_path):
    import open_clip

    from harness.metrics.hps_v2 import PIXELS, Hps

    net = open_clip.create_model(open_clip_folder())
    pixels = Hps(net, None, "", "cpu")._pixels(torch.full((1, 3, 64, 128), 255, dtype=torch.uint8))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in PIXELS)
    back = pixels * std + mean
    assert back.shape == (1, 3, 64, 64)
    assert back[..., :16, :].abs().max() < 1e-6 and back[..., 48:, :].abs().max() < 1e-6
    assert (back[..., 16:48, :] - 1).abs().max() < 1e-5


@pytest.mark.parametrize("layers", [1, 3])
def test_aesthetic_is_layers_on_the_embedding(make_context, world_data, images, tmp_path, layers):
    """The authors' module: with dropout and nothing else between the layers, whose numbers therefore have gaps."""
    widths = [64, *[8] * (layers - 1), 1]
    parts = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    if layers == 1:
        head, state = parts[0], parts[0].state_dict()
    else:
        head = torch.nn.Sequential(*[one for part in parts for one in (part, torch.nn.Dropout(0.2))]).eval()
        state = {f"layers.{name}": value for name, value in head.state_dict().items()}
    torch.save(state, tmp_path / "head.pth")
    asked = {"path": str(tmp_path / "head.pth"), "model": open_clip_folder()}
    with pytest.raises(InputError, match="allow_pickle of metric aesthetic=true"):
        load.check([{"name": "aesthetic", **asked}])
    row = measured("aesthetic", make_context, images, world_data, **asked, allow_pickle=True)
    seen = clip.load(open_clip_folder(), "", "cpu", False).see(images)
    with torch.inference_mode():
        assert np.allclose(row["values"], head(seen)[:, 0].numpy(), atol=1e-5)


def image_reward_state(vision: int = 64, text: int = 64, words: int = 40) -> dict[str, torch.Tensor]:
    """A checkpoint with the authors' names and small sizes: two layers of one head each, 32 pixels a side."""
    sizes = {"cls_token": (1, 1, vision), "pos_embed": (1, 5, vision)}
    sizes |= {"patch_embed.proj.weight": (vision, 3, 16, 16), "patch_embed.proj.bias": (vision,)}
    layer = {"norm1": vision, "attn.qkv": (3 * vision, vision), "attn.proj": (vision, vision)}
    layer |= {"norm2": vision, "mlp.fc1": (2 * vision, vision), "mlp.fc2": (vision, 2 * vision)}
    modules = {f"blocks.{k}.{name}": size for k in range(2) for name, size in layer.items()} | {"norm": vision}
    found = {f"blip.visual_encoder.{name}": size for name, size in (sizes | _shapes(modules)).items()}
    tables = {"embeddings.word_embeddings.weight": (words, text), "embeddings.position_embeddings.weight": (48, text)}
    layer = {"output.LayerNorm": text, "intermediate.dense": (2 * text, text), "output.dense": (text, 2 * text)}
    for kind, width in (("attention", text), ("crossattention", vision)):
        layer |= {f"{kind}.self.query": (text, text), f"{kind}.self.key": (text, width)}
        layer |= {f"{kind}.self.value": (text, width), f"{kind}.output.dense": (text, text)}
        layer[f"{kind}.output.LayerNorm"] = text
    modules = {f"encoder.layer.{k}.{name}": size for k in range(2) for name, size in layer.items()}
    modules["embeddings.LayerNorm"] = text
    found |= {f"blip.text_encoder.{name}": size for name, size in (tables | _shapes(modules)).items()}
    found |= {"blip.vision_proj.weight": (16, vision), "blip.vision_proj.bias": (16,)}
    found |= _shapes({"mlp.layers.0": (8, text), "mlp.layers.2": (1, 8)})
    state = {name: 0.1 * torch.randn(size) for name, size in found.items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(48)[None]
    return state


def _shapes(modules: dict) -> dict[str, tuple[int, ...]]:
    """Weight and bias of each module: of (out, in) for a linear one, of a number for a norm."""
    found = {}
    for name, size in modules.items():
        found[f"{name}.weight"] = size if isinstance(size, tuple) else (size,)
        found[f"{name}.bias"] = (size[0],) if isinstance(size, tuple) else (size,)
    return found


def bert_vocabulary(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "large", "small", "red", "blue", "circle", "square"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def blip_by_hand(state: dict[str, torch.Tensor], pixels: torch.Tensor, ids: torch.Tensor, told: torch.Tensor):
    """What the authors' modules compute (vit.py, med.py, ImageReward.py), written down from their equations."""
    F = torch.nn.functional

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name, eps):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q, k, v, mask=0.0):
        return ((q @ k.mT) / q.shape[-1] ** 0.5 + mask).softmax(-1) @ v  # one head of 64

    p = "blip.visual_encoder."
    x = F.conv2d(pixels, state[f"{p}patch_embed.proj.weight"], state[f"{p}patch_embed.proj.bias"], stride=16)
    x = torch.cat([state[f"{p}cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], 1) + state[f"{p}pos_embed"]
    for k in range(2):
        b = f"{p}blocks.{k}."
        q, key, v = linear(norm(x, f"{b}norm1", 1e-6), f"{b}attn.qkv").chunk(3, -1)
        x = x + linear(attend(q, key, v), f"{b}attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{b}norm2", 1e-6), f"{b}mlp.fc1")), f"{b}mlp.fc2")
    seen = norm(x, f"{p}norm", 1e-6)
    p = "blip.text_encoder."
    x = state[f"{p}embeddings.word_embeddings.weight"][ids]
    x = norm(x + state[f"{p}embeddings.position_embeddings.weight"][: ids.shape[1]], f"{p}embeddings.LayerNorm", 1e-12)
    mask = torch.where(told[:, None, :].bool(), 0.0, -1e9)
    for k in range(2):
        b = f"{p}encoder.layer.{k}."
        for kind, other, hidden in (("attention", None, mask), ("crossattention", seen, 0.0)):
            context = x if other is None else other
            made = attend(
                *(linear(c, f"{b}{kind}.self.{n}") for n, c in (("query", x), ("key", context), ("value", context))),
                hidden,
            )
            x = norm(linear(made, f"{b}{kind}.output.dense") + x, f"{b}{kind}.output.LayerNorm", 1e-12)
        made = linear(F.gelu(linear(x, f"{b}intermediate.dense")), f"{b}output.dense")
        x = norm(made + x, f"{b}output.LayerNorm", 1e-12)
    reward = linear(linear(x[:, 0], "mlp.layers.0"), "mlp.layers.2")[:, 0]
    return (reward - 0.16717362830052426) / 1.0333394966054072


def test_image_reward_is_the_authors_network_in_transformers_blip(make_context, world_data, images, tmp_path):
    state = image_reward_state()
    save_file(state, tmp_path / "ImageReward.safetensors")
    asked = {"path": str(tmp_path / "ImageReward.safetensors"), "tokenizer": str(bert_vocabulary(tmp_path))}
    row = measured("image_reward", make_context, images, world_data, **asked)
    scorer = image_reward.Reward(state, tmp_path, "", "cpu")
    told = scorer.tokenizer(
        world_data.prompts(range(N)), padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )  # fmt: skip
    theirs = blip_by_hand(state, scorer._pixels(images), told["input_ids"], told["attention_mask"])
    assert np.allclose(row["values"], theirs.numpy(), atol=1e-5) and np.ptp(row["values"]) > 1e-4
    assert set(told["input_ids"][0].tolist()) > {2, 3}  # words, not unknown ones alone


@pytest.fixture(scope="module")
def instruct_blip(tmp_path_factory) -> Path:
    """InstructBLIP with a T5 behind it, as transformers saves it."""
    from transformers import (
        BertTokenizerFast,
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
        InstructBlipQFormerConfig,
        InstructBlipVisionConfig,
        T5Config,
        T5TokenizerFast,
    )  # fmt: skip

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("instructblip")
    letters = "abcdefghijklmnopqrstuvwxyz?.:\"'-ADQT"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁yes", -1.0)]
    pieces += [(one, -3.0 - k / 100) for k, one in enumerate(letters)]
    tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0)
    bert = BertTokenizerFast.from_pretrained(bert_vocabulary(tmp_path_factory.mktemp("bert")))
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    image_token = 50
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**sizes, image_size=32, patch_size=16).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            **sizes, vocab_size=len(bert), encoder_hidden_size=32, cross_attention_frequency=1
        ).to_dict(),
        text_config=T5Config(
            vocab_size=64, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
        ).to_dict(),
        num_query_tokens=4, image_token_index=image_token,
    )  # fmt: skip
    net = InstructBlipForConditionalGeneration(config)
    for value in net.parameters():
        value.data += 0.1 * torch.randn_like(value)
    net.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    InstructBlipProcessor(processor, tokenizer, bert, num_query_tokens=4).save_pretrained(folder)
    made = json.loads((folder / "config.json").read_text())
    made["image_token_index"] = tokenizer.convert_tokens_to_ids("<image>")
    (folder / "config.json").write_text(json.dumps(made))
    return folder


def test_vqa_score_is_the_probability_of_the_answer(make_context, world_data, images, instruct_blip):
    """exp(−loss) of transformers' own model, an image at a time, resized and cut as the authors' package does it."""
    from torchvision import transforms
    from transformers import AutoProcessor, InstructBlipForConditionalGeneration

    images = images[:, :, 8:49]
    row = measured("vqa_score", make_context, images, world_data, path=str(instruct_blip))
    # instructblip_model.py of t2v-metrics 3.0
    prepared = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.functional.InterpolationMode.BICUBIC),
            transforms.CenterCrop((32, 32)),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    net = InstructBlipForConditionalGeneration.from_pretrained(instruct_blip).eval()
    processor = AutoProcessor.from_pretrained(instruct_blip)
    labels = processor.tokenizer("yes", return_tensors="pt")["input_ids"]
    assert labels.shape[1] > 1 and labels[0, -1] == processor.tokenizer.eos_token_id
    theirs = []
    for image, prompt in zip(images, world_data.prompts(range(N)), strict=True):
        question = f'Question: Does this figure show "{prompt}"? Please answer yes or no.'
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        given = processor(images=picture, text=question, return_tensors="pt")
        given["pixel_values"] = prepared(picture)[None]
        with torch.inference_mode():
            theirs.append(float((-net(**given, labels=labels).loss).exp()))
    assert np.allclose(row["values"], theirs, rtol=1e-3) and np.ptp(theirs) > 0
    assert 0 < row["vqa_score"] < 1 and "2404.01291" in row["vqa_score_definition"]


@pytest.mark.parametrize(
    ("option", "said"), [({"question": "yes?"}, r"write \{\} where"), ({"answer": " "}, "give a word")]
)
def test_a_question_without_a_place_for_the_prompt_is_refused(option, said):
    with pytest.raises(InputError, match=said):
        load.check([{"name": "vqa_score", "optional": True, **option}])


def test_cmmd_is_the_authors_formula(make_context, world_data, images, clip_folder):
    row = measured("cmmd", make_context, images, world_data, path=str(clip_folder))
    extractor = cmmd.ClipFeatures(cmmd.TransformersClip(clip_folder, "cpu"))
    x = torch.from_numpy(extractor(images)).double()
    y = torch.from_numpy(np.concatenate([extractor(part) for part in world_data.reference(512)])).double()

    def kernel(a, b):  # cmmd/distance.py: the mean over all pairs, γ = 1/2σ²
        return torch.exp(-(torch.cdist(a, b) ** 2) / (2 * 10**2)).mean()

    assert row["cmmd"] == pytest.approx(1000 * float(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)), rel=1e-6)
    assert torch.allclose(x.norm(dim=1), torch.ones(N).double()) and "512 reference images" in row["cmmd_definition"]


def test_the_influence_on_cmmd_is_its_derivative():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)) + 0.5, rng.normal(size=(60, 8))

    def value(weights):
        near = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 200)
        across = np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 200).mean(1)
        w = weights / weights.sum()
        return 1000 * (w @ near @ w - 2 * w @ across)

    moved = 2000 * (cmmd.kernel_means(x, x) - cmmd.kernel_means(x, y))
    moved -= moved.mean()
    for k in (0, 7):
        weights = np.ones(40)
        weights[k] += 1e-6
        assert (value(weights) - value(np.ones(40))) / 1e-6 * 40 == pytest.approx(moved[k], rel=1e-3, abs=1e-6)


def test_fd_dinov2_is_the_frechet_distance_of_class_tokens(make_context, world_data, tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    images = world_data.images(range(40))
    row = measured("fd_dinov2", make_context, images, world_data, path=str(tmp_path))
    net = Dinov2Model.from_pretrained(tmp_path).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def tokens(some):
        seen = [
            Image.fromarray(one.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC) for one in some
        ]
        pixels = torch.stack([torch.from_numpy(np.array(one)) for one in seen]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            return net((pixels - mean) / std).pooler_output.numpy()  # the class token behind the last norm

    ours = fd_dinov2.DinoV2(tmp_path, "cpu")(images[:4])
    assert np.allclose(ours, tokens(images[:4]), atol=1e-5)
    assert "2306.04675" in row["fd_dinov2_definition"] and row["fd_dinov2_n"] == 40
    real = np.concatenate([fd_dinov2.DinoV2(tmp_path, "cpu")(part) for part in world_data.reference(512)])
    fake = fd_dinov2.DinoV2(tmp_path, "cpu")(images)
    assert row["fd_dinov2"] == pytest.approx(frechet_distance(gaussian_of(fake), gaussian_of(real)), rel=1e-6)


# -------------------------------------------------------------------------------------------------------- Inception's


class Flat(torch.nn.Module):
    """A "network" for torchmetrics: the logits come as they are."""

    num_features = 12

    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize("splits", [1, 4])
def test_inception_score_equals_torchmetrics(splits):
    from torchmetrics.image.inception import InceptionScore

    logits = np.random.default_rng(0).normal(size=(64, 12)) * 2
    theirs = InceptionScore(feature=Flat(), splits=splits).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(logits)[:, :, None, None])
    torch.manual_seed(3)
    order = torch.randperm(64).numpy()  # as it shuffles
    ours = np.mean([inception_score.score(logits[rows])[0] for rows in np.array_split(order, splits)])
    torch.manual_seed(3)
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_the_influence_on_the_inception_score_is_its_derivative():
    logits = np.random.default_rng(1).normal(size=(30, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def value(weights):
        w = weights / weights.sum()
        return np.exp(w @ (p * np.log(p)).sum(1) - (w @ p * np.log(w @ p)).sum())

    found, moved = inception_score.score(logits)
    assert found == pytest.approx(value(np.ones(30)))
    weights = np.ones(30)
    weights[4] += 1e-6
    assert (value(weights) - found) / 1e-6 * 30 == pytest.approx(moved[4], rel=1e-3)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """torch-fidelity's network with weights that know nothing, where torch.hub would have put the real ones."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        net = FeatureExtractorInceptionV3("x", ["2048"])
        patch.undo()
        patch.setenv("TORCH_HOME", str(home))
        place = files.hub_file(files.INCEPTION)
        place.parent.mkdir(parents=True)
        torch.save(net.state_dict(), place)
        yield net


def test_the_inception_network_behind_three_resizers(inception, make_context, images):
    """One network; each resizer is its library's own: torch-fidelity's inside, clean-fid's, torch's bilinear."""
    from cleanfid.resize import build_resizer

    context = make_context(model_is_embedded=False)
    found = {name: extractors.get(name, context) for name in files.INCEPTIONS}
    with torch.inference_mode():
        assert np.allclose(found["inception"](images[:2]), inception(images[:2])[0].numpy(), atol=1e-5)
    ours = found["inception_clean"]._resized(images[:2])
    theirs = [build_resizer("clean")(image.permute(1, 2, 0).numpy()) for image in images[:2]]
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), np.stack(theirs))
    theirs = [build_resizer("legacy_pytorch")(image.permute(1, 2, 0).numpy()) for image in images[:2]]
    ours = found["inception_pytorch"]._resized(images[:2])
    assert np.allclose(ours.permute(0, 2, 3, 1).numpy(), np.stack(theirs), atol=1e-4)
    # Of images that need no resizing all three see the same.
    ready = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    first, *others = (found[name](ready) for name in files.INCEPTIONS)
    assert all(np.allclose(first, other, atol=1e-4) for other in others)
    assert len({one.id for one in found.values()}) == 3
    assert found["inception_clean"].resizer((64, 64)) == "pil-bicubic-float to 299x299"


def test_inception_score_of_a_network_that_is_there(inception, make_context, world_data, images):
    row = measured("inception_score", make_context, images, world_data)
    with torch.inference_mode():
        features = inception(images)[0]
        logits = (features @ inception.fc.weight.T).double().numpy()
    assert row["inception_score"] == pytest.approx(inception_score.score(logits)[0], rel=1e-6)
    assert row["inception_score_splits"] is None and "splits: 10" in row["inception_score_definition"]


# -------------------------------------------------------------------------------------------------- what is not there


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(own_weights.Source, "_cached", lambda self: None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_absent_weights_are_one_line_before_anything_runs_and_null_where_optional(
    name, nothing_here, make_context, world_data
):
    with pytest.raises(InputError) as caught:
        load.check([name])
    assert "\n" not in str(caught.value) and name in str(caught.value) and len(str(caught.value)) < 400
    (metric,) = load.build([{"name": name, "optional": True}], make_context())
    row = feed(metric, world_data, 4).compute()
    assert row[name] is None and row[f"{name}_definition"].startswith("none: ")
    assert str(caught.value)[:30] in row[f"{name}_definition"]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_path_that_has_nothing_is_named(name, tmp_path):
    with pytest.raises(InputError, match=r"path='.*nowhere' of metric \w+ is not there"):
        load.check([{"name": name, "path": str(tmp_path / "nowhere")}])
    with pytest.raises(InputError, match="give true or false"):
        load.check([{"name": name, "optional": "maybe"}])


def test_a_pickle_needs_its_flag_and_safetensors_come_first(tmp_path, clip_folder):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="allow_pickle of metric pick_score=true"):
        load.check([{"name": "pick_score", "path": str(tmp_path)}])
    shutil.copy(clip_folder / "model.safetensors", tmp_path)
    load.check([{"name": "pick_score", "path": str(tmp_path)}])


# ------------------------------------------------------------------------------- what the authors' own packages said


@pytest.fixture(scope="module")
def said():
    return json.loads((FIXTURES / "published_packages.json").read_text())


def scored(metric: str, path: Path, make_context, **options) -> list[float]:
    """Our score of each of the recorded images with its prompt."""
    (made,) = load.build([{"name": metric, "path": str(path), **options}], make_context())
    images = (torch.from_numpy(published_packages.image(*size)).permute(2, 0, 1) for size in published_packages.SIZES)
    pairs = zip(images, published_packages.PROMPTS, strict=True)
    return [float(made.scorer(image[None], [prompt])[0]) for image, prompt in pairs]


def test_hps_v2_is_what_its_own_package_says(said, make_context, tmp_path):
    import open_clip

    net = open_clip.CLIP(**published_packages.CLIP)
    published_packages.fill(net)
    weights = tmp_path / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, weights)
    config = {"model_cfg": published_packages.CLIP, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    ours = scored("hps_v2", weights, make_context, model=f"local-dir:{tmp_path}")
    assert np.allclose(ours, said["hps_v2"], atol=2e-6) and np.ptp(ours) > 0.1


def test_image_reward_is_what_its_own_package_says(said, make_context, tmp_path):
    shapes = {name: ast.literal_eval(shape) for name, shape in said["image_reward"]["shapes"].items()}
    numbers = {name: shape for name, shape in shapes.items() if not name.endswith("position_ids")}
    save_file(published_packages.weights(numbers), tmp_path / "ImageReward.safetensors")
    tokenizer = str(published_packages.vocabulary(tmp_path))
    ours = scored("image_reward", tmp_path / "ImageReward.safetensors", make_context, tokenizer=tokenizer)
    assert np.allclose(ours, said["image_reward"]["scores"], atol=1e-4) and np.ptp(ours) > 1


@pytest.mark.parametrize("net", published_packages.BACKBONES)
def test_lpips_is_what_its_own_package_says(said, monkeypatch, net):
    """The linear layers on top come with each package: lpips' there, torchmetrics' here."""
    import torchvision

    from harness.metrics.similarity import Lpips

    made = published_packages.backbone(net)
    monkeypatch.setattr(torchvision.models, published_packages.BACKBONES[net], lambda *given, **named: made)
    ours = Lpips(net, "cpu")
    pairs = ([torch.from_numpy(one).permute(2, 0, 1)[None] for one in pair] for pair in published_packages.pairs())
    assert np.allclose([float(ours(*pair)[0]) for pair in pairs], said["lpips"][net], rtol=1e-5)
