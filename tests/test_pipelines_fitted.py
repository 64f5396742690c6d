"""Adapters and switches of a pipeline, each an axis: what they change, and what is said where they cannot be."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import zoo_models
from safetensors.torch import save_file

from harness.errors import InputError
from harness.measure.session import Session
from harness.models.load import load, named
from harness.sweep.commandline import read
from harness.sweep.settle import ask

FEW = ["n_images=2", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "data=embedded", "metrics=[]"]
FEW += ["model=pipeline", "model.height=32", "model.width=32"]
RANK = 2
lora_only = pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed: uv sync --extra adapters")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("fitted")
    return {name: zoo_models.folder(top / name, name) for name in ("sd", "flux", "sana")}


def cell(folder, *words, **changes):
    (values,) = read([*FEW, f"model.path={folder}", "sampler=euler", "cfg=3", *words]).values
    return ask({**values, **changes})


def made(folder, *words, **changes):
    asked = cell(folder, *words, **changes)
    session = Session(folder.parent / "results")
    generator = session._generator(asked, session._model(asked))
    return generator.batch([0, 1])


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# ------------------------------------------------------------------------------------------------------- switches


@pytest.mark.parametrize(
    ("model", "word", "most"),
    [
        ("sd", "attention=sliced", 1e-5),
        ("sd", "vae_slicing=true", 1e-5),
        ("sd", "vae_tiling=true", 1e-5),
        ("sd", "channels_last=true", 1e-5),
        ("sd", "fuse_qkv=true", 1e-5),
        pytest.param("sd", "offload=group", 1e-5, marks=pytest.mark.skipif(not find_spec("accelerate"), reason="none")),
        pytest.param("sd", "compile=default", 1e-4, marks=pytest.mark.zoo),  # half a minute of compiling
        ("flux", "step_cache=first_block", 1.0),
    ],
)
def test_a_switch_that_is_to_change_cost_changes_no_image(folders, model, word, most):
    plain, switched = made(folders[model]), made(folders[model], word)
    assert relative(switched.latents, plain.latents) <= most
    if most < 1:
        assert (switched.images.int() - plain.images.int()).abs().max() <= 1


def test_switches_are_thrown_on_the_networks(folders):
    def fitted(name, **switches):
        return load(named("pipeline", path=str(folders[name])), "fp32", "cpu", switches)

    sliced = fitted("sd", attention="sliced", vae_slicing=True, vae_tiling=True, fuse_qkv=True)
    assert sliced.vae.use_slicing and sliced.vae.use_tiling
    kinds = {type(processor).__name__ for processor in sliced.network.attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"}
    kernels = [p for p in fitted("sd", channels_last=True).network.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert fitted("flux", step_cache="first_block").network.is_cache_enabled
    stored = fitted("sd", layerwise_casting=True).network
    assert torch.float8_e4m3fn in {p.dtype for p in stored.parameters()}


@pytest.mark.parametrize("word", ["freeu=true", "layerwise_casting=true"])
def test_a_switch_that_is_to_change_images_does(folders, word):
    plain, switched = made(folders["sd"]), made(folders["sd"], word)
    assert switched.latents.isfinite().all() and relative(switched.latents, plain.latents) > 1e-4


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("sd", ["attention=flash"], "attention=flash cannot be for model pipeline here: it needs a CUDA device"),
        ("sd", ["offload=model"], "moves networks between a GPU and the CPU, and this is cpu"),
        ("sd", ["compile=max-autotune"], "take compile=default"),
        ("sd", ["step_cache=first_block"], "UNet2DConditionModel is not one of FluxTransformer2DModel"),
        ("sd", ["layerwise_casting=true", "offload=group"], "offload and layerwise_casting exclude each other"),
        ("sd", ["layerwise_casting=true", "precision=fp64"], "weights of 8 bits are for fp32"),
        ("sd", ["attention=slised"], "did you mean 'sliced'"),
        ("flux", ["freeu=true"], "freeu=true cannot be for model pipeline here: it is of UNet2DConditionModel"),
        ("flux", ["fuse_qkv=true"], "has no projections that fuse"),
        ("sana", ["vae_tiling=true"], "it is of AutoencoderKL, and its VAE is AutoencoderDC"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(folders, model, words, said):
    with pytest.raises(InputError, match=said):
        cell(folders[model], *words)


def test_other_models_take_none():
    (values,) = read([*FEW[:8], "model=embedded", "vae_tiling=true"]).values
    with pytest.raises(InputError, match="vae_tiling is put into pipelines: use model=pipeline, not embedded"):
        ask(values)


# ------------------------------------------------------------------------------------------------------- adapters


def lora(path, seed=0):
    """Low-rank changes of every query projection of the tiny UNet, and the UNet with them added by hand."""
    unet = zoo_models.pipeline("sd").unet
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, module in unet.named_modules():
        if name.endswith("to_q"):
            down = torch.randn(RANK, module.in_features, generator=generator)
            up = torch.randn(module.out_features, RANK, generator=generator)
            weights |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
            module.weight += up @ down
    save_file(weights, path)
    return unet


@lora_only
def test_a_lora_is_what_its_product_added_to_the_weights_is(folders, tmp_path):
    unet = lora(tmp_path / "style.safetensors")
    pipe = zoo_models.pipeline("sd")
    pipe.unet = unet
    pipe.save_pretrained(tmp_path / "merged")
    one = [{"kind": "lora", "path": str(tmp_path / "style.safetensors")}]
    plain, merged = made(folders["sd"]).latents, made(tmp_path / "merged").latents
    put_in = made(folders["sd"], adapters=one).latents
    assert relative(merged, plain) > 1e-2 and relative(put_in, merged) < 1e-4
    assert relative(made(folders["sd"], "adapter_scale=0", adapters=one).latents, plain) < 1e-5
    half = made(folders["sd"], adapters=[{**one[0], "scale": 0.5}]).latents
    assert (
        relative(made(folders["sd"], "adapter_scale=0.5", adapters=one).latents, half) < 1e-6 < relative(half, put_in)
    )


def test_a_cell_knows_an_adapter_by_what_its_file_holds(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.models.switches.find_spec", lambda name: True)
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        lora(tmp_path / f"{name}.safetensors", seed)
    ids = [
        cell(folders["sd"], adapters=[{"kind": "lora", "path": str(tmp_path / f"{name}.safetensors")}]).cell_id
        for name in ("a", "again", "other")
    ]
    assert ids[0] == ids[1] != ids[2] and cell(folders["sd"]).cell_id not in ids
    assert cell(folders["sd"], adapters=[]).cell_id == cell(folders["sd"]).cell_id


def test_a_textual_inversion_is_a_word_of_the_prompt(folders, tmp_path):
    vector = torch.randn(zoo_models.WIDTH, generator=torch.Generator().manual_seed(0))
    save_file({"<thing>": vector}, tmp_path / "thing.safetensors")
    one = {"kind": "textual_inversion", "path": str(tmp_path / "thing.safetensors"), "token": "<thing>"}
    spec = named("pipeline", path=str(folders["sd"]))
    plain, taught = load(spec, "fp32", "cpu"), load(spec, "fp32", "cpu", {"adapters": (one,)})

    def text(model, prompt):
        return model.encode_text([prompt]).parts["prompt_embeds"]

    assert torch.equal(text(plain, "a red circle"), text(taught, "a red circle"))
    assert relative(text(taught, "a red <thing>"), text(plain, "a red <thing>")) > 1e-2
    place = taught.tokenizer.convert_tokens_to_ids("<thing>")
    assert torch.equal(taught.pipe.text_encoder.get_input_embeddings().weight[place], vector)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("style", r"adapters='style' is not valid: give a list as adapters=\[\{kind: lora"),
        ([{"kind": "lorra", "path": "x"}], "did you mean 'lora'"),
        ([{"kind": "lora"}], "path=None is not valid"),
        ([{"kind": "lora", "path": "x", "sclae": 1}], "a lora has no 'sclae'; did you mean 'scale'"),
        ([{"kind": "lora", "path": "x", "scale": "big"}], r"adapters\.scale='big' is not valid"),
        ([{"kind": "lora", "path": "/nowhere/x.safetensors"}], "cannot be read"),
        ([{"kind": "lora", "path": "/nowhere/x.bin"}], "is no .safetensors file"),
    ],
)
def test_a_list_of_adapters_that_cannot_be_is_one_line(folders, monkeypatch, given, said):
    monkeypatch.setattr("harness.models.switches.find_spec", lambda name: True)
    with pytest.raises(InputError, match=said):
        cell(folders["sd"], adapters=given)
