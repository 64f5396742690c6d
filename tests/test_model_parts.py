"""A part of a model that is absent, damaged or of another kind is one line, most of them before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from harness.errors import LONGEST, InputError
from harness.models import locate
from harness.models.load import check, load, named

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 3438167540\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("models") / "sd1")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "model")


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The tensors of a single file."""
    return load_file(tiny.single_file(tmp_path_factory.mktemp("single") / "model.safetensors"))


def weights(folder: Path, part: str) -> Path:
    return folder / part / f"{WEIGHTS[part]}.safetensors"


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(spec: dict, pattern: str, at=check) -> str:
    """The line that refuses it; by default without loading anything."""
    with pytest.raises(InputError, match=pattern) as caught:
        at(spec) if at is check else at(spec, "fp32", "cpu")
    said = str(caught.value)
    assert "\n" not in said and len(said) <= LONGEST
    return said


# --------------------------------------------------------------------------------------------------- files of weights


def empty(file: Path) -> None:
    file.write_bytes(b"")


def pointer(file: Path) -> None:
    file.write_text(POINTER)


def page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><html><body>401 Unauthorized</body></html>")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 7)


def pickled(file: Path) -> None:
    torch.save({"a": torch.zeros(2)}, file)


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (empty, "is empty"),
        (pointer, "is a Git LFS pointer.*git lfs pull"),
        (page, "is a web page"),
        (cut, r"is truncated: \d+ bytes of \d+"),
        (cut_in_header, r"is truncated: 100 bytes of at least \d+"),
        (longer, "is damaged"),
        (pickled, "is a pickled checkpoint"),
    ],
)
def test_a_file_of_weights_that_is_none(folder, part, spoil, said):
    file = weights(folder, part)
    whole = file.stat().st_size
    spoil(file)
    line = refused(tiny.spec(folder), said)
    assert str(file) in line
    if spoil is cut:
        assert f"truncated: {whole - 100} bytes of {whole}" in line


def test_a_header_of_any_length_is_taken(tmp_path):
    """The file begins with the header's length: its first byte may be that of a web page or of a pickle."""
    for first in range(256):
        file = tmp_path / f"{first}.safetensors"
        text = b"{}".ljust(256 + first)
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        assert locate.safetensors_shapes(file) == {}, first


def test_a_pointer_in_place_of_pickled_weights(folder):
    file = weights(folder, "unet")
    file.unlink()
    pointer(file.with_suffix(".bin"))
    refused(tiny.spec(folder, allow_pickle=True), "is a Git LFS pointer")


def test_the_weights_of_another_vae_are_looked_at(folder, made):
    cut(weights(folder, "vae"))
    refused(tiny.spec(made, vae=str(folder)), "is truncated")
    weights(folder, "vae").unlink()
    refused(tiny.spec(made, vae=str(folder)), "no weights")


def shards(folder: Path, part: str) -> tuple[Path, list[Path]]:
    """The part's weights in two files, and their index."""
    whole = weights(folder, part)
    tensors = load_file(whole)
    names = sorted(tensors)
    files = [whole.with_name(f"{WEIGHTS[part]}-0000{k}-of-00002.safetensors") for k in (1, 2)]
    where = {name: files[k % 2].name for k, name in enumerate(names)}
    for file in files:
        save_file({name: tensors[name] for name in names if where[name] == file.name}, file, {"format": "pt"})
    index = whole.with_name(f"{whole.name}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    whole.unlink()
    return index, files


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_in_several_files(folder, part, made):
    index, files = shards(folder, part)
    check(tiny.spec(folder))
    if part == "unet":
        got, want = (load(tiny.spec(path), "fp32", "cpu").parts.unet.state_dict() for path in (folder, made))
        assert all(torch.equal(got[name], want[name]) for name in want)
    tensors = load_file(files[1])
    lost = sorted(tensors)[0]
    save_file({name: value for name, value in tensors.items() if name != lost}, files[1])
    assert lost in refused(tiny.spec(folder), "names 1 tensors that its files lack")
    files[1].unlink()
    assert files[1].name in refused(tiny.spec(folder), "lacks 1 of the 2 files")
    change(index, weight_map={"a.weight": "elsewhere/a.safetensors"})
    refused(tiny.spec(folder), "elsewhere/a.safetensors")
    change(index, weight_map={})
    refused(tiny.spec(folder), "names no files")
    index.unlink()
    refused(tiny.spec(folder), f"not their {index.name}")


# ------------------------------------------------------------------------------------------ tensors and their shapes


def spoilt(file: Path, lost: list[str], value: torch.Tensor | None = None) -> None:
    tensors = load_file(file)
    for name in lost:
        tensors.pop(name)
        if value is not None:
            tensors[name] = value
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("count", [1, 5])
def test_tensors_that_a_file_lacks_are_named(folder, part, count):
    file = weights(folder, part)
    lost = [name for name in sorted(load_file(file)) if "norm" in name][:count]
    spoilt(file, lost)
    said = refused(tiny.spec(folder), f"the weights of {part} do not fit.*{count} tensors are missing", load)
    assert lost[0].removeprefix("text_model.") in said and ("and 2 more" in said) == (count == 5)


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_tensor_of_another_shape_is_named(folder, part):
    file = weights(folder, part)
    (name, *_) = [name for name in sorted(load_file(file)) if "norm" in name]
    spoilt(file, [name], torch.zeros(3))
    said = refused(tiny.spec(folder), f"the weights of {part} do not fit.*of another shape", load)
    assert name.removeprefix("text_model.") in said


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "in_channels", 9),
        ("vae", "in_channels", 4),
        ("text_encoder", "max_position_embeddings", 77),
    ],
)
def test_a_configuration_of_other_weights_is_seen_before_loading(folder, part, key, value):
    change(folder / part / "config.json", **{key: value})
    refused(tiny.spec(folder), f"do not fit its config.json.*{key}={value}")


def test_the_first_layer_is_missed_before_loading(folder):
    spoilt(weights(folder, "unet"), ["conv_in.weight"])
    refused(tiny.spec(folder), r"lack conv_in\.weight")


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("text_encoder", {"hidden_size": 32}, "text of width 32.*reads text of width 16"),
        ("text_encoder", {"model_type": "t5"}, "is a 't5'.*clip_text_model"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "is a AutoencoderTiny"),
        ("unet", {"out_channels": 8}, "predicts 8 channels and the VAE has 4"),
    ],
)
def test_parts_that_are_not_of_one_model(folder, part, values, said):
    change(folder / part / "config.json", **values)
    refused(tiny.spec(folder), said)


# ---------------------------------------------------------------------------------------------------------- tokenizer


def test_a_tokenizer_without_its_vocabulary(folder):
    """transformers would give every prompt the same tokens."""
    (folder / "tokenizer" / "tokenizer.json").unlink()
    said = refused(tiny.spec(folder), "has no vocabulary: vocab.json and merges.txt missing")
    assert str(folder / "tokenizer") in said and "tokenizer.json" in said
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    refused(tiny.spec(folder), "has no vocabulary: merges.txt missing")


@pytest.fixture
def pair(folder) -> Path:
    """A tokenizer as Stable Diffusion has it: vocab.json and merges.txt."""
    whole = folder / "tokenizer" / "tokenizer.json"
    model = json.loads(whole.read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    whole.unlink()
    return folder


def test_a_vocabulary_in_two_files(pair, made):
    ours, other = (load(tiny.spec(path), "fp32", "cpu").encode_text(["a red circle"]) for path in (pair, made))
    assert torch.equal(ours.parts["text"], other.parts["text"])
    merges = pair / "tokenizer" / "merges.txt"
    merges.write_text("#version: 0.2\n")
    refused(tiny.spec(pair), "holds no merges")
    pointer(pair / "tokenizer" / "vocab.json")
    refused(tiny.spec(pair), "vocab.json is not readable JSON")


@pytest.mark.parametrize("change_by", [-20, 1, 300])
def test_a_vocabulary_of_another_model(folder, change_by):
    file = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    size = len(vocabulary) + change_by
    if change_by > 0:
        vocabulary |= {f"more{k}": len(vocabulary) + k for k in range(change_by)}
    else:
        content["model"]["vocab"] = {token: k for token, k in vocabulary.items() if k < size}
        content["added_tokens"] = []
    file.write_text(json.dumps(content))
    refused(tiny.spec(folder), f"knows {size} tokens and the text encoder beside it {size - change_by}")


def test_an_embedding_may_be_padded(folder):
    rows = -(-json.loads((folder / "text_encoder" / "config.json").read_text())["vocab_size"] // 64) * 64
    file = weights(folder, "text_encoder")
    (name,) = [name for name in load_file(file) if "token_embedding" in name]
    spoilt(file, [name], torch.zeros(rows, tiny.WIDTH))
    change(folder / "text_encoder" / "config.json", vocab_size=rows)
    assert check(tiny.spec(folder)) is not None


@pytest.mark.parametrize("content", ['{"model": {"type": "Unigram", "vocab": [["a", 0]]}}', '{"model": {}}', "{}"])
def test_a_tokenizer_of_another_kind(folder, content):
    (folder / "tokenizer" / "tokenizer.json").write_text(content)
    refused(tiny.spec(folder), "that of CLIP|holds no vocabulary")


# ---------------------------------------------------------------------------------------------------------- scheduler


def test_a_model_without_its_scheduler(folder):
    (folder / "scheduler" / "scheduler_config.json").rename(folder / "scheduler" / "config.json")
    refused(tiny.spec(folder), r"has no scheduler/scheduler_config\.json")


@pytest.mark.parametrize("name", ["v-prediction", "V_Prediction", "v prediction", "v"])
@pytest.mark.parametrize("where", ["scheduler", "spec"])
def test_a_prediction_type_by_another_spelling(folder, name, where):
    change(folder / "scheduler" / "scheduler_config.json", prediction_type=name if where == "scheduler" else "epsilon")
    model = load(tiny.spec(folder, **({"prediction_type": name} if where == "spec" else {})), "fp32", "cpu")
    assert model.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", ["score", "v_predicton", 7])
def test_an_unknown_prediction_type(folder, name):
    refused(tiny.spec(folder, prediction_type=name), "model.prediction_type is .*valid: epsilon, flow_prediction")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type=name)
    refused(tiny.spec(folder), "prediction_type in scheduler_config.json is .*valid: epsilon, flow_prediction, sample")


@pytest.mark.parametrize("told", [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.1, 0.5, 1.0]}])
def test_nothing_can_be_told_of_an_image_from_pure_noise_by_its_noise(folder, told):
    change(folder / "scheduler" / "scheduler_config.json", **told)
    refused(tiny.spec(folder), "zero terminal SNR and prediction_type=epsilon")
    assert check(tiny.spec(folder, prediction_type="v-prediction")) is not None


# -------------------------------------------------------------------------------------------------------- single file


def written(path: Path, state: dict[str, torch.Tensor], without: str = "", **more: torch.Tensor) -> Path:
    kept = {name: value for name, value in state.items() if not without or not name.startswith(without)}
    save_file({**kept, **more}, path)
    return path


def test_a_single_file_without_a_vae_takes_the_one_given(state, made, tmp_path):
    file = written(tmp_path / "one.safetensors", state, "first_stage_model.")
    refused(tiny.spec(file, config=str(made)), r"holds no VAE.*model\.vae=")
    other = tiny.folder(tmp_path / "other", "sd2")
    model = load(tiny.spec(file, config=str(made), vae=str(other)), "fp32", "cpu")
    want = load_file(weights(other, "vae"))
    got = model.parts.vae.state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_the_vae_given_goes_before_that_of_the_single_file(state, made, tmp_path):
    file = written(tmp_path / "one.safetensors", state)
    other = tiny.folder(tmp_path / "other", "sd2")
    model = load(tiny.spec(file, config=str(made), vae=str(other)), "fp32", "cpu")
    want = load_file(weights(other, "vae"))
    assert torch.equal(model.parts.vae.state_dict()["decoder.conv_in.weight"], want["decoder.conv_in.weight"])


@pytest.mark.parametrize(
    ("without", "said"),
    [("model.diffusion_model.", "no UNet"), ("cond_stage_model.", "holds no text encoder .*model=pipeline")],
)
def test_a_single_file_without_a_part(state, made, tmp_path, without, said):
    file = written(tmp_path / "one.safetensors", state, without)
    refused(tiny.spec(file, config=str(made)), said)


def test_averaged_weights_alone(state, tmp_path, made):
    kept = {n: v for n, v in state.items() if not n.startswith("model.diffusion_model.")}
    averaged = {f"model_ema.{n[6:].replace('.', '')}": v for n, v in state.items() if n not in kept}
    save_file({**kept, **averaged}, tmp_path / "one.safetensors")
    for config in (None, str(made)):
        refused(
            tiny.spec(tmp_path / "one.safetensors", config=config), r"averaged weights alone \(\d+ tensors model_ema"
        )


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_single_file_that_lacks_a_tensor(state, made, tmp_path, prefix):
    lost = next(name for name in sorted(state) if name.startswith(prefix) and "attn" in name and "bias" in name)
    file = written(tmp_path / "one.safetensors", state, lost)
    refused(tiny.spec(file, config=str(made)), "tensors are missing: .*bias", load)


def test_a_single_file_of_another_width(state, made, tmp_path):
    first = "model.diffusion_model.input_blocks.0.0.weight"
    file = written(tmp_path / "one.safetensors", state, first, **{first: torch.zeros(8, 9, 3, 3)})
    refused(tiny.spec(file, config=str(made)), "does not fit its configuration.*in_channels=4")
    last = "model.diffusion_model.out.0.weight"
    file = written(tmp_path / "two.safetensors", state, last, **{last: torch.zeros(3)})
    refused(
        tiny.spec(file, config=str(made)), "unet in two.safetensors do not fit.*of another shape: conv_norm_out", load
    )


@pytest.mark.parametrize("spoil", [empty, pointer, page, cut, pickled])
def test_a_single_file_that_is_none(state, made, tmp_path, spoil):
    file = written(tmp_path / "one.safetensors", state)
    spoil(file)
    refused(tiny.spec(file, config=str(made)), "is empty|Git LFS|web page|truncated|pickled")


# ------------------------------------------------------------------------------------------------- prompts too long

LONG = "a large red circle on a white background left of a small blue square " * 3


def test_prompts_that_are_cut_are_counted_and_said_once(made, tmp_path):
    from PIL import Image
    from rich.console import Console

    from harness.executors.base import Notable, Progress
    from harness.measure.session import Session
    from harness.sweep.display import Display
    from harness.sweep.enumerate import enumerate_cells

    data = tmp_path / "data"
    data.mkdir()
    for k, caption in enumerate(["a red circle", LONG, "a blue square", LONG + "again"]):
        Image.new("RGB", (32, 32)).save(data / f"{k}.png")
        (data / f"{k}.txt").write_text(caption)
    words = ["model=diffusers", f"model.path={made}", "data=folder", f"data.path={data}", "n_images=4", "batch_size=2"]
    words += ["timing=off", "metrics=[]", "threads=1", "steps=1,2", "cfg=1,3", f"negative_prompt={LONG}", "device=cpu"]
    cells, session = list(enumerate_cells(words).cells.values()), Session(tmp_path / "results")
    display = Display(cells, Console(file=(tmp_path / "said").open("w")))
    assert len(cells) == 4
    for cell in cells:

        def report(what, images, cell=cell):
            display.show(Progress(cell.cell_id, str(what), images, notable=isinstance(what, Notable)))

        assert session.run(cell, report).checked().cell["prompts_truncated"] == 2
    said = (tmp_path / "said").read_text()
    assert said.count("prompts_truncated") == 1 and "prompt 1 ('a large red" in said and "24 tokens" in said
    assert said.count("the negative prompt is cut") == 1


def test_a_prompt_at_the_limit_is_whole(made):
    model = load(tiny.spec(made), "fp32", "cpu")
    words = model.token_limit - 2
    assert model.too_long([" ".join(["red"] * words), " ".join(["red"] * (words + 1)), ""]) == [False, True, False]


def test_without_a_tokenizer_nothing_is_cut():
    from harness.measure.prompt_lengths import PromptLengths

    counted = PromptLengths(load(named("gmm"), "fp64", "cpu"), LONG)
    counted.add(range(1), [LONG])
    assert counted.truncated is None and counted.words() == []


# ---------------------------------------------------------------------------------------------------- NaN and infinity


def ends(model, tmp_path, made, *words: str) -> str:
    """How a cell of this model fails."""
    from harness.measure.session import Session
    from harness.sweep.enumerate import enumerate_cells

    asked = ["model=diffusers", f"model.path={made}", "data=embedded", "n_images=2", "timing=off", "metrics=[]"]
    (cell,) = enumerate_cells([*asked, "threads=1", "steps=2", "device=cpu", *words]).cells.values()
    session = Session(tmp_path / "results")
    session.model, session.model_key = model, cell.model_key
    with pytest.raises(FloatingPointError) as caught:
        session.run(cell, lambda what, images: None)
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "tensor", "task", "said"),
    [
        ("text_encoder", "layers.1.mlp.fc1.weight", "txt2img", "the text encoder first gave"),
        ("unet", "mid_block.resnets.0.conv1.weight", "txt2img", "the unet first gave"),
        ("vae", "decoder.conv_in.weight", "txt2img", r"the vae \(decoder\) first gave"),
        ("vae", "encoder.conv_in.weight", "img2img", r"the vae \(encoder\) first gave"),
    ],
)
def test_the_part_that_first_gives_nan_is_named(made, tmp_path, value, part, tensor, task, said):
    import re

    model = load(tiny.spec(made), "fp32", "cpu")
    (name,) = [n for n, _ in getattr(model.parts, part).named_parameters() if n.endswith(tensor)]
    weight = getattr(model.parts, part).get_parameter(name)
    weight.data[(0,) * weight.ndim] = value
    line = ends(model, tmp_path, made, f"task={task}")
    assert re.search(said, line) and f"1 of its tensors hold such values, {name} first" in line


def test_a_sampler_that_gives_nan_is_named(made, tmp_path, monkeypatch):
    model = load(tiny.spec(made), "fp32", "cpu")

    def spoilt(plan, denoise, x, *others):
        for _ in range(2):
            x = denoise(x, model.process.level(1.0)) if x is not None else x
            x = x * float("inf")
        return x

    monkeypatch.setattr("samplers.core.integrate.integrate", spoilt)
    assert "the sampler, and no network, first gave NaN" in ends(model, tmp_path, made)


def test_what_half_precision_cannot_hold_is_said_so(made, tmp_path):
    model = load(tiny.spec(made), "fp32", "cpu")
    unet = model.parts.unet.half()
    model.dtype = torch.float16
    unet.conv_in.weight.data.fill_(6e4)
    line = ends(model, tmp_path, made)
    assert "the unet first gave NaN or infinity in torch.float16" in line and "precision=bf16" in line
