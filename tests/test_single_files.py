"""`model=pipeline model.path=FILE.safetensors`: its networks are those of the folder, or one line says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import single_files as made_files
import torch
import transformers
import zoo_models
from diffusers.loaders import single_file_model, single_file_utils

from harness.errors import InputError
from harness.measure.session import Session
from harness.models import families, single_files
from harness.models.load import check, fingerprint, load, named
from harness.sweep.commandline import read
from harness.sweep.settle import ask

FEW = ["n_images=2", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "data=embedded", "metrics=[]"]
FEW += ["model=pipeline", "model.height=32", "model.width=32", "cfg=3", "sampler=euler"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Of each model the folder, its file, and a folder that has of the file's parts no weights."""
    top = tmp_path_factory.mktemp("single")
    pipes = {"sdxl": made_files.sdxl(), "sd3": made_files.sd3()}
    pipes |= {name: zoo_models.pipeline(name) for name in ("flux", "z_image")}
    tensors = {
        "sd3": made_files.sd3_tensors(pipes["sd3"]),
        "sdxl": made_files.sdxl_tensors(pipes["sdxl"]),
        "flux": dict(pipes["flux"].transformer.state_dict()),  # in the names of diffusers
        "z_image": made_files.z_image_tensors(pipes["z_image"].transformer),
    }
    in_file = {
        "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
        "sd3": ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"),
    }
    found = {}
    for name, pipe in pipes.items():
        folder, beside = top / name, top / f"{name}_beside"
        pipe.save_pretrained(folder)
        shutil.copytree(folder, beside)
        for part in in_file.get(name, ("transformer",)):
            (weights,) = (beside / part).glob("*.safetensors")
            weights.unlink()
        found[name] = folder, made_files.written(top / f"{name}.safetensors", tensors[name]), beside
    return found


def spec(file, **changes):
    return named("pipeline", path=str(file), height=32, width=32, **{k: str(v) for k, v in changes.items()})


def cell(path, *words):
    (values,) = read([*FEW, f"model.path={path}", *words]).values
    return ask(values)


def latents(path, results, *words):
    session, asked = Session(results), cell(path, *words)
    return session._generator(asked, session._model(asked)).batch([0, 1]).latents


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "z_image"])
def test_networks_of_a_single_file_are_those_of_the_folder(places, tmp_path, name):
    """Weight by weight, in an original layout and in diffusers' own, and in what a cell makes of them."""
    folder, file, beside = places[name]
    whole, single = load(spec(folder), "fp32", "cpu"), load(spec(file, config=beside), "fp32", "cpu")
    for part, network in whole.pipe.components.items():
        if isinstance(network, torch.nn.Module):
            want, got = network.state_dict(), getattr(single.pipe, part).state_dict()
            assert want.keys() == got.keys() and all(torch.equal(want[key], got[key]) for key in want), part
            assert not getattr(single.pipe, part).training
    expected = latents(folder, tmp_path)
    assert torch.equal(latents(file, tmp_path, f"model.config={beside}"), expected)


def test_weights_have_the_precision_that_is_asked_for(places):
    model = load(spec(places["sdxl"][1], config=places["sdxl"][2]), "bf16", "cpu")
    networks = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for network in networks for weight in network.parameters()} == {torch.bfloat16}


def test_a_file_says_by_its_tensors_whose_configuration_fits(places, monkeypatch):
    """The hub id is diffusers' own; without a network and a copy of it, one line says what is wanted."""
    folder, file, beside = places["sdxl"]
    asked = []

    def copy(told, hub_id, patterns, what="path"):
        asked.append((hub_id, tuple(patterns), what))
        return beside

    with monkeypatch.context() as here:
        here.setattr("harness.models.locate.hub_folder", copy)
        model = load(spec(file), "fp32", "cpu")
    assert {(hub_id, what) for hub_id, _, what in asked} == {("stabilityai/stable-diffusion-xl-base-1.0", "config")}
    assert not any("safetensors" in one for _, patterns, _ in asked for one in patterns)  # the file lacks nothing
    assert torch.equal(model.network.conv_in.weight, load(spec(folder), "fp32", "cpu").network.conv_in.weight)

    def none(*given, **how):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", none)
    with pytest.raises(InputError, match=r"needs the configuration of its pipeline: .*stable-diffusion-xl-base-1\.0 is "
                       r"not on this machine .*or give model\.config=FOLDER") as said:  # fmt: skip
        check(spec(file))
    assert "\n" not in str(said.value)


def test_of_a_hub_only_the_networks_that_the_file_lacks_are_fetched(places, monkeypatch):
    folder, file, _ = places["flux"]
    asked = []

    def copy(told, hub_id, patterns, what="path"):
        asked.append(tuple(patterns))
        return folder

    monkeypatch.setattr("harness.models.locate.hub_folder", copy)
    load(spec(file, config="black-forest-labs/FLUX.1-dev"), "fp32", "cpu")
    weights = {one for patterns in asked for one in patterns if "safetensors" in one}
    assert weights == {f"{part}/*.safetensors" for part in ("text_encoder", "text_encoder_2", "vae")}


def test_a_pipelines_copy_on_this_machine_is_taken(places, monkeypatch):
    """Whether or not one of its tokenizers has a file of SentencePiece."""

    def copy(hub_id, local_files_only=False, **how):
        assert local_files_only, "must not ask the network"
        return str(places["sdxl"][0])

    monkeypatch.setattr("huggingface_hub.snapshot_download", copy)
    assert load(named("sdxl", height=32, width=32, variant=None), "fp32", "cpu").network


def test_a_cell_knows_a_file_by_what_it_and_its_configuration_hold(places, tmp_path):
    folder, file, beside = places["flux"]
    moved = Path(shutil.copy(file, tmp_path / "elsewhere.safetensors"))
    other = made_files.written(
        tmp_path / "other.safetensors", zoo_models.pipeline("flux_kontext").transformer.state_dict()
    )
    ids = [cell(one, f"model.config={beside}").cell_id for one in (file, moved, other)]
    assert ids[0] == ids[1] != ids[2] and cell(folder).cell_id not in ids
    changed = Path(shutil.copytree(beside, tmp_path / "changed"))
    config = json.loads((changed / "scheduler" / "scheduler_config.json").read_text())
    (changed / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"shift": 2.5}))
    assert fingerprint(spec(file, config=changed)) != fingerprint(spec(file, config=beside))


def test_what_single_files_hold_is_as_diffusers_has_it():
    """The tables are diffusers' own: classes that it reads, and tensors by which it knows a text encoder."""
    for kind in single_files.READ:
        assert single_file_model._get_single_file_loadable_mapping_class(getattr(diffusers, kind)) == kind
    networks = {
        "PixArtTransformer2DModel",
        "HunyuanDiT2DModel",
        "CogView4Transformer2DModel",
        "Kandinsky3UNet",
        "VQModel",
    }
    assert not networks.intersection(single_file_model.SINGLE_FILE_LOADABLE_CLASSES)
    assert set(single_files.VAES) == set(single_file_utils.LDM_VAE_KEYS)
    clip = {name for name in single_files._CLIP if single_file_utils.is_clip_model_in_single_file(
        transformers.CLIPTextModel, {name: None})}  # fmt: skip
    assert clip == set(single_files._CLIP)
    assert all(single_file_utils.is_t5_in_single_file({one: None}) for one in single_files.ENCODERS["T5EncoderModel"])


def without(tensors, *beginnings):
    return {name: value for name, value in tensors.items() if not name.startswith(beginnings)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: without(held, "model."), "holds no network that denoises, but"),
        (lambda held: without(held, "first_"), r"vae has no \.safetensors file of weights, and own\.safetensors holds"),
        (lambda held: held | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)},
         r"is of shape \[8, 9, 3, 3\], where unet/config\.json has in_channels=4; give another model\.config"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_told_before_anything_is_loaded(places, tmp_path, change, said):
    held = made_files.sdxl_tensors(made_files.sdxl())
    file = made_files.written(tmp_path / "own.safetensors", change(held))
    with pytest.raises(InputError, match=said):
        cell(file, f"model.config={places['sdxl'][2]}")


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("model.diffusion_model.time_embed.0.bias", r"the unet in own\.safetensors .*time_embedding\.linear_1\.bias"),
        ("first_stage_model.decoder.conv_in.bias", r"the vae in own\.safetensors .*decoder\.conv_in\.bias"),
        ("conditioner.embedders.1.model.ln_final.bias", r"text_encoder_2 in own\.safetensors .*final_layer_norm\.bias"),
    ],
)
def test_a_tensor_that_is_missing_is_named(places, tmp_path, lacking, said):
    held = made_files.sdxl_tensors(made_files.sdxl())
    file = made_files.written(tmp_path / "own.safetensors", without(held, lacking))
    with pytest.raises(InputError, match=said):
        load(spec(file, config=places["sdxl"][2]), "fp32", "cpu")


def test_what_is_no_single_file_of_a_pipeline_is_one_line(places, tmp_path):
    _, file, beside = places["sdxl"]
    (tmp_path / "old.ckpt").write_bytes(b"PK")
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    one = made_files.written(tmp_path / "lora.safetensors", {"lora.up.weight": torch.zeros(2)})
    pixart = zoo_models.folder(tmp_path / "pixart", "pixart")
    other = Path(shutil.copytree(beside, tmp_path / "other"))
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableCascadeDecoderPipeline"}))
    for path, words, said in (
        (tmp_path / "none.safetensors", [], "there is no such file"),
        (tmp_path / "old.ckpt", [], r"reads \.safetensors alone: convert it"),
        (one, [], r"is no checkpoint that diffusers knows .*model\.config=FOLDER_OR_HUB_ID"),
        (file, [f"model.config={pixart}"], "diffusers reads no single file of a PixArtTransformer2DModel"),
        (file, [f"model.config={other}"], "'StableCascadeDecoderPipeline', which is unknown here"),
        (file, [f"model.config={tmp_path / 'nowhere'}"], r"model\.config=.*nowhere: no such folder"),
        (file, [f"model.gguf={tmp_path / 'w.gguf'}"], "both hold a network"),
    ):
        with pytest.raises(InputError, match=said):
            cell(path, *words)


@pytest.mark.zoo
def test_what_diffusers_reads_no_single_file_of_is_said():
    """Of every family: its network and VAE are on the list if diffusers reads them, and in the documentation if not."""
    page = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text()
    for name in zoo_models.MODELS:
        pipe = zoo_models.pipeline(name)
        family = families.FAMILIES[type(pipe).__name__]
        for kind in (type(getattr(pipe, family.network)), type(getattr(pipe, family.vae))):
            reads = single_file_model._get_single_file_loadable_mapping_class(kind) is not None
            assert reads == (kind.__name__ in single_files.READ), kind
            assert reads or f"`{kind.__name__}`" in page, kind


def test_the_later_knob_changes_no_id(places):
    """Cells of pipelines in folders were recorded before there was model.config."""
    folder, file, beside = places["flux"]
    assert "config" not in cell(folder).model and cell(file, f"model.config={beside}").model["config"] == str(beside)
