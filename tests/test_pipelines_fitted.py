"""Adapters and switches of a pipeline, each an axis: what they change, and what is said where they cannot be."""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import diffusers
import pytest
import torch
import zoo
import zoo_adapters
import zoo_models
from PIL import Image
from safetensors.torch import save_file

from harness.errors import InputError
from harness.measure.session import Session
from harness.models import adapters, annotators, families, hints, lycoris, switches
from harness.models.adapters import CONTROLLED
from harness.models.load import load, named
from harness.sweep import against
from harness.sweep.commandline import read
from harness.sweep.settle import ask
from samplers.core.noise import NoiseStreams

FEW = ["n_images=2", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "data=embedded", "metrics=[]"]
FEW += ["model=pipeline", "model.height=32", "model.width=32"]
lora_only = pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed: uv sync --extra adapters")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("fitted")
    return {name: zoo_models.folder(top / name, name) for name in ("sd", "sdxl", "flux", "sana")}


def cell(folder, *words, drop=(), **changes):
    usual = [*(word for word in FEW if word not in drop), f"model.path={folder}", "sampler=euler", "cfg=3"]
    keys = {word.split("=")[0] for word in words}
    (values,) = read([*(word for word in usual if word.split("=")[0] not in keys), *words]).values
    return ask({**values, **changes})


def generated(folder, *words, **changes):
    asked = cell(folder, *words, **changes)
    session = Session(folder.parent / "results")
    return session._generator(asked, session._model(asked))


def made(folder, *words, **changes):
    return generated(folder, *words, **changes).batch([0, 1])


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# ------------------------------------------------------------------------------------------------------- switches


@pytest.mark.parametrize(
    ("model", "word", "most"),
    [
        ("sd", "attention=sliced", 1e-5),
        ("sd", "attention=math", 1e-5),
        pytest.param("flux", "attention=math", 1e-5, marks=pytest.mark.zoo),
        ("sd", "vae_slicing=true", 1e-5),
        ("sd", "channels_last=true", 1e-5),
        ("sd", "fuse_qkv=true", 1e-5),
        pytest.param("sd", "offload=group", 1e-5, marks=pytest.mark.skipif(not find_spec("accelerate"), reason="none")),
        pytest.param("sd", "compile=default", 1e-4, marks=pytest.mark.zoo),  # half a minute of compiling
    ],
)
def test_a_switch_that_is_to_change_cost_changes_no_image(folders, model, word, most):
    plain, switched = made(folders[model]), made(folders[model], word)
    assert relative(switched.latents, plain.latents) <= most
    assert (switched.images.int() - plain.images.int()).abs().max() <= 1


def test_images_are_decoded_one_by_one_or_in_tiles(folders):
    """As often as there are images; and a VAE for 32 pixels makes 64 of several pieces, whose seams show."""
    calls = []
    for words in ([], ["vae_slicing=true"]):
        generator = generated(folders["sd"], *words)
        counted = []
        generator.model.vae.decoder.register_forward_pre_hook(lambda *given, counted=counted: counted.append(1))
        generator.batch([0, 1])
        calls.append(len(counted))
    assert calls == [1, 2]
    large = ("model.height=64", "model.width=64")
    plain, tiled = made(folders["sd"], *large), made(folders["sd"], *large, "vae_tiling=true")
    assert torch.equal(plain.latents, tiled.latents)
    assert 0 < (plain.images.int() - tiled.images.int()).abs().float().mean() < 20


def deeper(top, name):
    """A tiny pipeline with two blocks, of which a cache may leave the second out."""
    pipe = zoo_models.pipeline(name)
    if name != "flux":  # which has two kinds of blocks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            settings = {**pipe.transformer.config, "num_layers": 2}
            pipe.transformer = type(pipe.transformer).from_config(settings)
    pipe.save_pretrained(top)
    return top


VIDEO = {name: zoo_models.WORDS[name] for name in ("wan", "ltx", "cogview4")}


@pytest.mark.zoo
@pytest.mark.parametrize("name", ["flux", "qwen_image", "cogview4", "ltx", "wan"])
def test_a_cache_leaves_blocks_out(tmp_path, monkeypatch, name):
    """The first block's residual decides for the others, or every fifth call is made; a run begins anew."""
    folder = deeper(tmp_path / name, name)
    few = ("steps=10", "cfg=1", "n_images=3", *VIDEO.get(name, ()))

    def run(word, threshold=0.05):
        monkeypatch.setattr("harness.models.fitting.FIRST_BLOCK", threshold)
        generator, counted = generated(folder, *few, word), []
        blocks = [part for part in generator.model.network.children() if isinstance(part, torch.nn.ModuleList)]
        last = next(one for key, one in blocks[-1][-1].named_modules() if key.endswith("to_q"))
        last.register_forward_pre_hook(lambda *given: counted.append(1))
        three = generator.batch([0, 1, 2]).latents
        once = len(counted)
        assert torch.equal(generator.batch([0, 1, 2]).latents, three) and len(counted) == 2 * once
        return three, once, generator.batch([1]).latents

    plain, every, _ = run("step_cache=none")
    same, computed, _ = run("step_cache=first_block", threshold=-1.0)
    assert every == computed and relative(same, plain) < 1e-6
    reused, computed, _ = run("step_cache=first_block", threshold=1e9)
    assert computed == every / 10 and reused.isfinite().all() and relative(reused, plain) > 1e-6
    foretold, computed, alone = run("step_cache=taylorseer")
    assert computed == every / 2 and relative(foretold, plain) > 1e-6
    assert relative(alone, foretold[1:2]) < 1e-4


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo_models.MODELS)
def test_switches_know_what_networks_can(name):
    pipe = zoo_models.pipeline(name)
    family = families.FAMILIES[type(pipe).__name__]
    network, vae = getattr(pipe, family.network), getattr(pipe, family.vae)
    processors = [module.processor for module in network.modules() if hasattr(module, "processor")]
    dispatches = [hasattr(processor, "_attention_backend") for processor in processors]
    assert any(dispatches) == (type(network).__name__ in switches.DISPATCHING) and len({*dispatches}) == 1
    assert (hasattr(vae, "use_slicing") and hasattr(vae, "use_tiling")) == (type(vae).__name__ in switches.SLICED)
    within = "cache_context" in inspect.getsource(type(pipe).__call__)
    assert (within and hasattr(network, "enable_cache")) == (type(pipe).__name__ in switches.CACHING)


def test_a_kernel_of_attention_is_of_its_network_alone(folders):
    """diffusers would make it that of every network of the process."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    one = load(named("pipeline", path=str(folders["flux"])), "fp32", "cpu", {"attention": "math"}).network
    kinds = {module.processor._attention_backend for module in one.modules() if hasattr(module, "processor")}
    assert kinds == {AttentionBackendName._NATIVE_MATH}
    assert _AttentionBackendRegistry._active_backend == AttentionBackendName.NATIVE
    unet = load(named("pipeline", path=str(folders["sd"])), "fp32", "cpu", {"attention": "math"}).network
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"AttnProcessor"}
    assert cell(folders["sd"], "attention=sdpa").cell_id == cell(folders["sd"]).cell_id


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
        ("flux", ["attention=flash"], "attention=flash cannot be for model pipeline here: it needs a CUDA device"),
        ("sd", ["attention=flash"], "UNet2DConditionModel calls PyTorch's attention by name"),
        ("sd", ["attention=xformers"], "it needs a CUDA device, and this is cpu"),
        ("sana", ["attention=math"], "SanaTransformer2DModel calls PyTorch's attention by name"),
        ("sd", ["offload=model"], "moves networks between a GPU and the CPU, and this is cpu"),
        ("sd", ["compile=max-autotune"], "take compile=default"),
        ("sd", ["step_cache=first_block"], "StableDiffusionPipeline is not one of FluxPipeline, QwenImagePipeline"),
        ("sd", ["layerwise_casting=true", "offload=group"], "offload and layerwise_casting exclude each other"),
        ("sd", ["layerwise_casting=true", "precision=fp64"], "weights of 8 bits are for fp32"),
        ("sd", ["attention=slised"], "did you mean 'sliced'"),
        ("flux", ["freeu=true"], "freeu=true cannot be for model pipeline here: it is of UNet2DConditionModel"),
        ("flux", ["fuse_qkv=true"], "has no projections that fuse"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(folders, model, words, said):
    with pytest.raises(InputError, match=said):
        cell(folders[model], *words)


def test_a_vae_without_slices_is_told_before_it_is_loaded():
    where = switches.Where("UNet2DConditionModel", "VQModel", "cpu", "fp32", "KandinskyV22Pipeline", "txt2img")
    with pytest.raises(InputError, match=r"vae_tiling=true cannot be .*: it is of AutoencoderKL, .* VQModel"):
        switches.check("k", {"vae_tiling": True}, where)


def test_other_models_take_none():
    (values,) = read([*FEW[:8], "model=embedded", "vae_tiling=true"]).values
    with pytest.raises(InputError, match="vae_tiling is put into pipelines: use model=pipeline, not embedded"):
        ask(values)


# ------------------------------------------------------------------------------------------------------- adapters


@lora_only
def test_a_lora_is_what_its_product_added_to_the_weights_is(folders, tmp_path):
    pipe = zoo_models.pipeline("sd")
    one = [{"kind": "lora", "path": str(zoo_adapters.lora(tmp_path / "style.safetensors", pipe.unet))}]
    pipe.save_pretrained(tmp_path / "merged")
    plain, merged = made(folders["sd"]).latents, made(tmp_path / "merged").latents
    put_in = made(folders["sd"], adapters=one).latents
    assert relative(merged, plain) > 1e-2 and relative(put_in, merged) < 1e-4
    assert relative(made(folders["sd"], "adapter_scale=0", adapters=one).latents, plain) < 1e-5
    half = made(folders["sd"], adapters=[{**one[0], "scale": 0.5}]).latents
    assert (
        relative(made(folders["sd"], "adapter_scale=0.5", adapters=one).latents, half) < 1e-6 < relative(half, put_in)
    )


@lora_only
@pytest.mark.parametrize("kind", ["locon", "loha", "lokr"])
def test_a_lycoris_is_what_its_product_added_to_the_weights_is(folders, tmp_path, kind):
    pipe = zoo_models.pipeline("sd")
    file = zoo_adapters.lycoris(tmp_path / f"{kind}.safetensors", pipe.unet, kind, alpha=5.0)
    pipe.save_pretrained(tmp_path / "merged")
    one = [{"kind": "lora", "path": str(file)}]
    plain, merged = made(folders["sd"]).latents, made(tmp_path / "merged").latents
    put_in = made(folders["sd"], adapters=one).latents
    assert relative(merged, plain) > 1e-3 and relative(put_in, merged) < 1e-5
    assert relative(made(folders["sd"], "adapter_scale=0", adapters=one).latents, plain) < 1e-6
    half = made(folders["sd"], adapters=[{**one[0], "scale": 0.5}]).latents
    assert relative(made(folders["sd"], "adapter_scale=0.5", adapters=one).latents, half) < 1e-6
    assert relative(half, put_in) > 1e-4


@lora_only
def test_products_of_lycoris_are_those_of_the_paper():
    """A convolution's: of three factors by rank (Tucker), and Kronecker's of whole ones, which α does not scale."""
    generator = torch.Generator().manual_seed(0)
    t1, t2 = (torch.randn(2, 2, 3, 3, generator=generator) for _ in range(2))
    a1, a2 = (torch.randn(2, 6, generator=generator) for _ in range(2))
    b1, b2 = (torch.randn(2, 4, generator=generator) for _ in range(2))
    whole = [torch.einsum("xyij,xo,yc->ocij", t, a, b) for t, a, b in ((t1, a1, b1), (t2, a2, b2))]
    held = {"hada_t1": t1, "hada_w1_a": a1, "hada_w1_b": b1, "hada_t2": t2, "hada_w2_a": a2, "hada_w2_b": b2}
    assert torch.allclose(
        lycoris._change({**held, "alpha": torch.tensor(6.0)}).reshape(6, 4, 3, 3),
        3 * (whole[0] * whole[1]), atol=1e-5,
    )  # fmt: skip
    w1, w2 = torch.randn(3, 2, generator=generator), torch.randn(2, 2, 3, 3, generator=generator)
    expected = torch.einsum("ab,cdij->acbdij", w1, w2).reshape(6, 4, 3, 3)
    found = lycoris._change({"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(1e10)})
    assert torch.allclose(found, expected, atol=1e-6)


@lora_only
def test_names_of_a_lycoris_are_those_of_diffusers_kohya_or_sdxl(tmp_path):
    pipe = zoo_models.pipeline("sdxl")
    own = {
        "unet.down_blocks.0.attentions.0.proj_in": pipe.unet.down_blocks[0].attentions[0].proj_in,
        "lora_unet_up_blocks_1_resnets_0_conv1": pipe.unet.up_blocks[1].resnets[0].conv1,
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": layer(pipe.text_encoder),
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj": layer(pipe.text_encoder_2),
    }
    _holds(tmp_path / "own.safetensors", pipe, own)
    sgm = {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_k": (
            pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_k
        ),
        "lora_unet_input_blocks_2_0_op": pipe.unet.down_blocks[0].downsamplers[0].conv,
        "lora_unet_middle_block_1_proj_out": pipe.unet.mid_block.attentions[0].proj_out,
        "lora_unet_output_blocks_2_0_in_layers_2": pipe.unet.up_blocks[1].resnets[0].conv1,
    }
    _holds(tmp_path / "sgm.safetensors", pipe, sgm)


def layer(encoder):
    return next(module for name, module in encoder.named_modules() if name.endswith("layers.0.self_attn.q_proj"))


def _holds(file, pipe, layers):
    """Of a file whose every change is one: put in, its layers have one more, and nothing else has changed."""
    held = {}
    for name, module in layers.items():
        held[f"{name}.lokr_w1"] = torch.ones(1, 1)
        held[f"{name}.lokr_w2"] = torch.ones(module.weight.shape)
    save_file(held, file)
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    before = {id(w): w.clone() for network in networks for w in network.parameters()}
    lycoris.put_in(pipe, file, 1.0)
    moved = {id(module.weight) for module in layers.values()}
    for network in networks:
        for weight in network.parameters():
            assert torch.allclose(weight, before[id(weight)] + (id(weight) in moved), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_unet_mid_block.oft_blocks", "holds oft_blocks: of LyCORIS, LoRA, LoCon, LoHa and LoKr are read"),
        ("lora_unet_mid_block.dora_scale", "holds dora_scale: of LyCORIS"),
        ("lora_unet_mid_block.lora_mid.weight", "holds lora_mid: of LyCORIS"),
        ("lora_unet_elsewhere.lokr_w1", "changes lora_unet_elsewhere, which this pipeline has not"),
    ],
)
def test_a_lycoris_that_cannot_be_is_one_line(folders, tmp_path, name, said):
    one = torch.ones(1, 1)
    save_file({name: one, name.replace("w1", "w2"): one.clone()}, tmp_path / "own.safetensors")
    with pytest.raises(InputError, match=said):
        if not lycoris.check(tmp_path / "own.safetensors"):
            raise AssertionError("LoKr is not seen to be one")
        lycoris.put_in(zoo_models.pipeline("sd"), tmp_path / "own.safetensors", 1.0)


def test_an_adapter_that_is_named_after_its_kind_sweeps(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.models.adapters.find_spec", lambda name: True)
    zoo_adapters.lora(tmp_path / "style.safetensors", zoo_models.pipeline("sd").unet)
    own = [f"adapters.lora.path={tmp_path / 'style.safetensors'}", "adapters.lora.scale=0,0.5,1"]
    cells = [ask(values) for values in read([*FEW, f"model.path={folders['sd']}", *own]).values]
    assert [(one.adapters[0]["kind"], one.adapters[0]["scale"]) for one in cells] == [
        ("lora", scale) for scale in (0, 0.5, 1)
    ]
    assert len({one.cell_id for one in cells}) == 3


def test_a_cell_knows_an_adapter_by_what_its_file_holds(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.models.adapters.find_spec", lambda name: True)
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        zoo_adapters.lora(tmp_path / f"{name}.safetensors", zoo_models.pipeline("sd").unet, seed=seed)
    ids = [
        cell(folders["sd"], adapters=[{"kind": "lora", "path": str(tmp_path / f"{name}.safetensors")}]).cell_id
        for name in ("a", "again", "other")
    ]
    assert ids[0] == ids[1] != ids[2] and cell(folders["sd"]).cell_id not in ids
    assert cell(folders["sd"], adapters=[]).cell_id == cell(folders["sd"]).cell_id


def test_a_textual_inversion_is_a_word_of_the_prompt(folders, tmp_path):
    vector = zoo_adapters.word(tmp_path / "thing.safetensors")
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
    monkeypatch.setattr("harness.models.adapters.find_spec", lambda name: True)
    with pytest.raises(InputError, match=said):
        cell(folders["sd"], adapters=given)


# ------------------------------------------------------------------------------------- adapters that look at images


def red(path):
    Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    return str(path)


SIX = ("euler", "dpmpp", "unipc", "heun", "euler_a", "dpmpp_2s")
# From pure noise three steps of DPM++ are Euler's: the first call has no λ to extrapolate from, the last is of order 1.
SIX_FLOW = ("euler", "restart", "unipc", "heun", "euler_a", "dpmpp_2s")


def adapted(what, model, top):
    if what == "two controlnets":
        second = {**zoo_adapters.control(top / "b", model=model, seed=1), "hint": "scribble", "scale": 0.5, "end": 0.7}
        return [zoo_adapters.control(top / "a", model=model), second]
    if what == "ip_adapter":
        return [zoo_adapters.image_prompt(top)]
    if what == "ip_adapter with an image":
        return [{**zoo_adapters.image_prompt(top), "image": red(top / "red.png")}]
    if what == "lora":
        file = zoo_adapters.lora(top / "lora.safetensors", zoo_models.pipeline(model).unet)
        return [{"kind": "lora", "path": str(file)}]
    if what == "textual_inversion":
        zoo_adapters.word(top / "word.safetensors")
        return [{"kind": what, "path": str(top / "word.safetensors"), "token": zoo_adapters.WORD}]
    return [zoo_adapters.control(top / "a", what, model)]


@pytest.mark.parametrize(
    ("what", "model", "samplers"),
    [
        ("controlnet", "sd", SIX[:2]),
        pytest.param("controlnet", "sd", SIX, marks=pytest.mark.zoo),
        pytest.param("two controlnets", "sd", SIX, marks=pytest.mark.zoo),
        pytest.param("t2i_adapter", "sd", SIX, marks=pytest.mark.zoo),
        ("ip_adapter", "sd", SIX[:2]),
        pytest.param("ip_adapter", "sd", SIX, marks=pytest.mark.zoo),
        pytest.param("ip_adapter with an image", "sd", SIX, marks=pytest.mark.zoo),
        pytest.param("controlnet", "sdxl", SIX, marks=pytest.mark.zoo),
        pytest.param("controlnet", "flux", SIX_FLOW, marks=pytest.mark.zoo),
        pytest.param("lora", "sd", SIX, marks=[pytest.mark.zoo, lora_only]),
        pytest.param("lora", "sdxl", SIX, marks=[pytest.mark.zoo, lora_only]),
        pytest.param("textual_inversion", "sd", SIX, marks=pytest.mark.zoo),
    ],
)
def test_a_pipeline_with_an_adapter_is_diffusers_own_with_it(folders, tmp_path, what, model, samplers):
    """Off at scale 0; any sampler; an image is the same in every batch and in every call."""
    given = adapted(what, model, tmp_path)
    task = "task=txt2img" if what in ("ip_adapter with an image", "lora", "textual_inversion") else "task=edit"
    words = (task, "n_images=3", *(captions(tmp_path / "data") if what == "textual_inversion" else ()))
    generator = generated(folders[model], *words, adapters=given)
    three = generator.batch([0, 1, 2])
    plain = made(folders[model], *(word for word in words if not word.startswith("task"))).latents
    assert relative(three.latents[:2], plain) > 1e-3
    alone = generator.batch([1])
    assert relative(alone.latents, three.latents[1:2]) < 1e-4
    assert torch.equal(generator.batch([1]).latents, alone.latents)
    if what != "textual_inversion":  # which has no scale: it is a word
        off = made(folders[model], *words, "adapter_scale=0", adapters=given).latents
        assert relative(off, plain) < 1e-5
    assert relative(three.latents, stock(generator, three, model, given)) < 3e-5
    for sampler in samplers[1:]:
        other = generated(folders[model], *words, f"sampler={sampler}", adapters=given).batch([0, 1, 2])
        assert other.latents.isfinite().all() and relative(other.latents, three.latents) > 1e-7


def captions(top):
    """Words of a folder of three images whose captions have the word that a textual inversion teaches."""
    top.mkdir()
    for k in range(3):
        red(top / f"{k}.png")
        (top / f"{k}.txt").write_text(f"a red {zoo_adapters.WORD}")
    return "data=folder", f"data.path={top}"


def stock(generator, found, model, given):
    """The same through diffusers' pipeline, called by hand."""
    pipe, ours = zoo_models.pipeline(model), generator.model
    network = {
        "controlnet": lambda one: type(zoo._control()) if model != "flux" else diffusers.FluxControlNetModel,
        "t2i_adapter": lambda one: diffusers.T2IAdapter,
    }
    controls = [one for one in given if one["kind"] in network]
    start = NoiseStreams(generator.cell.seed, [0, 1, 2], ours.latent_shape).draw()
    call = {
        "prompt": found.prompts, "num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "latent",
        "latents": ours._packed(start), "height": 32, "width": 32, "max_sequence_length": ours.tokens,
        "generator": [torch.Generator().manual_seed(k) for k in range(3)],
    }  # fmt: skip
    if controls:
        made_of = [network[one["kind"]](one).from_pretrained(one["path"]) for one in controls]
        name = "adapter" if controls[0]["kind"] == "t2i_adapter" else "controlnet"
        one = made_of if len(made_of) > 1 else made_of[0]
        kind = getattr(diffusers, CONTROLLED[type(pipe).__name__][controls[0]["kind"]])
        takes = inspect.signature(kind.__init__).parameters
        pipe = kind(**{part: it for part, it in pipe.components.items() if part in takes}, **{name: one})
        seen = [hints.drawn(one["hint"], found.sources) for one in controls]
        call["control_image" if model == "flux" else "image"] = seen if len(seen) > 1 else seen[0]
        if len(seen) > 1:
            call |= {"controlnet_conditioning_scale": [1.0, 0.5], "control_guidance_end": [1.0, 0.7]}
    elif given[0]["kind"] == "lora":
        pipe.load_lora_weights(str(Path(given[0]["path"]).parent), weight_name=Path(given[0]["path"]).name)
    elif given[0]["kind"] == "textual_inversion":
        pipe.load_textual_inversion(given[0]["path"], token=given[0]["token"])
    else:
        sight = zoo_models._sight()
        encoder = type(sight["image_encoder"]).from_pretrained(given[0]["encoder"])
        pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=sight["feature_extractor"])
        path = Path(given[0]["path"])
        pipe.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None)
        sources = [
            Image.fromarray(one.permute(1, 2, 0).numpy()) for one in ([] if found.sources is None else found.sources)
        ]
        pictures = sources or [Image.open(given[0]["image"])] * 3
        embedded = [torch.cat(pipe.encode_image(one, "cpu", 1)[::-1])[:, None] for one in pictures]
    zoo._quiet(pipe)
    takes = inspect.signature(type(pipe).__call__).parameters
    call = {name: value for name, value in call.items() if name in takes}
    if given[0]["kind"] != "ip_adapter":
        return ours._unpacked(pipe(**call).images)
    # Image by image: for more than one the pipeline takes all image prompts to be of one.
    alone = [{**call, "prompt": found.prompts[k], "latents": start[k : k + 1], "generator": None} for k in range(3)]
    every = [pipe(**one, ip_adapter_image_embeds=[row]).images for one, row in zip(alone, embedded, strict=True)]
    return torch.cat(every)


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (["task=txt2img"], {}, "it is shown a source, which task=txt2img has not; use task=edit"),
        (["task=edit"], {"hint": "cany"}, "did you mean 'canny'"),
        (["task=edit"], {"hint": "depth"}, "hint=depth is drawn by a network: give annotator=FOLDER"),
        (["task=edit"], {"hint": "depth", "annotator": "/nowhere"}, "annotator='/nowhere': there is no such folder"),
        (["task=edit"], {"annotator": "/nowhere"}, r"annotator= draws hint=depth\|normal"),
        (["task=edit"], {"images": "/nowhere"}, "there is no such folder"),
        (["task=edit"], {"end": 2}, r"adapters\.end=2 is not valid: give a number from 0 to 1"),
        (["task=edit"], {"kind": "t2i_adapter"}, "is of a ControlNetModel; a t2i_adapter is a T2IAdapter"),
        (["task=edit"], {"kind": "ip_adapter", "hint": None}, "a ip_adapter has no 'hint'"),
    ],
)
def test_a_control_that_cannot_be_is_one_line(folders, tmp_path, words, change, said):
    one = {**zoo_adapters.control(tmp_path / "a"), **change}
    with pytest.raises(InputError, match=said):
        cell(folders["sd"], *words, adapters=[one])


def test_a_control_is_refused_by_models_that_take_none(folders, tmp_path):
    one = zoo_adapters.control(tmp_path / "a")
    with pytest.raises(InputError, match="a controlnet is for StableDiffusionPipeline, StableDiffusionXLPipeline"):
        cell(folders["sana"], "task=img2img", adapters=[one])
    with pytest.raises(InputError, match="which is shown no source: use it with task=txt2img or img2img or inpaint"):
        cell(folders["sd"], "task=edit")


def test_adapters_have_names_by_which_their_scales_sweep(folders, tmp_path):
    one = zoo_adapters.control(tmp_path / "a")
    own = [f"adapters.edges.{name}={value}" for name, value in one.items()]
    words = [*FEW, f"model.path={folders['sd']}", "task=edit", *own, "adapters.edges.scale=0,0.5,1"]
    cells = [ask(values) for values in read(words).values]
    assert [each.adapters[0]["scale"] for each in cells] == [0, 0.5, 1] and len({each.cell_id for each in cells}) == 3
    assert (
        cell(folders["sd"], "task=edit", "sampler=dpmpp", adapters=[{**one, "scale": 1}]).adapters == cells[2].adapters
    )


def test_control_images_lie_in_a_folder_under_the_names_of_the_images(folders, tmp_path):
    data, drawings = tmp_path / "data", tmp_path / "drawn"
    for top in (data, drawings):
        top.mkdir()
    for k in range(2):
        red(data / f"{k}.png"), (data / f"{k}.txt").write_text("a red circle")
        Image.new("RGB", (40, 40), (k * 200,) * 3).save(drawings / f"{k}.png")
    one = {**zoo_adapters.control(tmp_path / "a"), "hint": "depth", "images": str(drawings)}
    for hint in (*hints.HINTS, *hints.BY_NETWORK):  # of whatever kind they are
        assert adapters.check([{**one, "hint": hint}], "StableDiffusionPipeline", "edit") is None
        assert adapters.check([{**one, "hint": hint}], "FluxPipeline", "img2img") is None
    words = ("task=edit", "data=folder", f"data.path={data}")
    generator = generated(folders["sd"], *words, adapters=[one])
    shown = generator._start(generator._remembered([0, 1]), generator.levels).shown.parts["control0"]
    assert [float(image.mean()) for image in shown] == pytest.approx([0, 200 / 255], abs=1e-6)


def test_a_network_draws_the_control_images(folders, tmp_path):
    """By the network in a folder, which the cell knows by its content; as they are drawn of each source by itself."""
    pipe = zoo_models.pipeline("depth2img")
    for part in (pipe.depth_estimator, pipe.feature_extractor):
        part.save_pretrained(tmp_path / "dpt")
    one = {**zoo_adapters.control(tmp_path / "a"), "hint": "normal", "annotator": str(tmp_path / "dpt")}
    generator = generated(folders["sd"], "task=edit", adapters=[one])
    found = generator.batch([0, 1])
    shown = generator._start(generator._remembered([0, 1]), generator.levels).shown.parts["control0"]
    with torch.no_grad():
        expected = hints.drawn("normal", found.sources, annotators.load("normal", str(tmp_path / "dpt"), "cpu"))
    assert torch.equal(shown, expected) and len(shown[0].flatten(1).unique(dim=1).T) > 10
    assert generator.cell.adapters[0]["sha256"].count("+") == 2  # weights, configuration, annotator


def test_hints_are_drawn():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 16:] = 255
    edges = hints.drawn("canny", image)[0, 0]
    assert {*edges.sum(0).nonzero().flatten().tolist()} <= {15, 16} and {*edges.unique().tolist()} == {0, 1}
    strokes = hints.drawn("scribble", image)[0, 0]  # where it is darker than around: on the dark side of the edge
    assert strokes[16, 13:16].all() and not strokes[:, 16:].any() and not strokes[:, :8].any()
    assert torch.equal(hints.drawn("none", image), image / 255)
    assert hints.drawn("grey", image)[0, :, 5, 20].tolist() == pytest.approx([1, 1, 1])


# ------------------------------------------------------------------------- quantization, PAG, an interval of guidance


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        (["quantization=int8"], 1e-5, 0.1),
        pytest.param(
            ["quantization=nf4"], 1e-4, 1.0,
            marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="no bitsandbytes: --extra quantization"),
        ),
        (["pag_scale=3"], 1e-3, 2.0),
    ],
)  # fmt: skip
def test_a_switch_changes_images_as_much_as_it_should(folders, words, least, most):
    plain, switched = made(folders["sd"]).latents, made(folders["sd"], *words).latents
    assert switched.isfinite().all() and least < relative(switched, plain) < most


def test_int8_weights_are_eight_bits(folders):
    network = load(named("pipeline", path=str(folders["sd"])), "fp32", "cpu", {"quantization": "int8"}).network
    linear = [module for module in network.modules() if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)]
    assert linear and {module.weight().dtype for module in linear} == {torch.qint8}
    assert not any(type(module) is torch.nn.Linear for module in network.modules())


def test_perturbed_attention_is_the_stock_pipelines(folders):
    generator = generated(folders["sd"], "pag_scale=2")
    found, ours = generator.batch([0, 1]), generator.model
    pipe = zoo_models.pipeline("sd")
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    stock = zoo._quiet(diffusers.StableDiffusionPAGPipeline(**parts, requires_safety_checker=False))
    start = NoiseStreams(generator.cell.seed, [0, 1], ours.latent_shape).draw()
    call = {"num_inference_steps": 3, "guidance_scale": 3.0, "pag_scale": 2.0, "output_type": "latent"}
    expected = stock(found.prompts, latents=start, height=32, width=32, **call).images
    assert relative(found.latents, expected) < 3e-5


@pytest.mark.parametrize("model", ["pipeline", "native"])
def test_guidance_may_be_of_an_interval(folders, model):
    """Everywhere is as without one, nowhere is as cfg=1, and between it is neither; native and pipeline agree."""

    def latents(model, *words):
        if model == "pipeline":
            return made(folders["sd"], *words).latents
        return made(folders["sd"], "model=diffusers", *words, drop=("model=pipeline",)).latents

    guided, plain = latents(model, "schedule=karras"), latents(model, "schedule=karras", "cfg=1")
    everywhere = latents(model, "schedule=karras", "cfg_interval=[0,1000]")
    nowhere = latents(model, "schedule=karras", "cfg_interval=[500,1000]")
    between = latents(model, "schedule=karras", "cfg_interval=[0.5,5]")
    assert relative(everywhere, guided) < 1e-6 and relative(nowhere, plain) < 1e-5
    assert relative(between, guided) > 1e-3 and relative(between, plain) > 1e-3
    if model == "native":
        assert relative(between, latents("pipeline", "schedule=karras", "cfg_interval=[0.5,5]")) < 1e-4


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("sd", ["quantization=fp8"], "products of 8-bit floats need a CUDA device, and this is cpu"),
        ("sd", ["quantization=int8", "precision=bf16"], "on the CPU it is for precision=fp32"),
        ("sd", ["quantization=int8", "compile=default"], "compile and quantization exclude each other"),
        ("sd", ["tf32=true"], "it needs a CUDA device of Ampere or later, and this is cpu"),
        ("flux", ["pag_scale=2"], "it is for StableDiffusionPipeline"),
        ("flux", ["cfg_interval=[0,1]"], "does not ask for both halves of guidance in one batch"),
        ("sd", ["cfg_interval=[3,1]"], "give the smaller number first"),
        ("sd", ["cfg_interval=2"], "give two numbers"),
        ("sd", ["cfg_interval=[0,1]", "pag_scale=1"], "pag_scale and cfg_interval exclude each other"),
        ("flux", ["model.gguf=/nowhere.gguf"], r"there is no such \.gguf file"),
    ],
)
def test_a_new_switch_that_cannot_be_is_one_line(folders, model, words, said):
    with pytest.raises(InputError, match=said):
        cell(folders[model], *words)


@pytest.mark.skipif(not find_spec("gguf"), reason="no gguf: uv sync --extra quantization")
def test_a_gguf_file_is_the_networks_weights(folders, tmp_path):
    import gguf

    network = zoo_models.pipeline("flux").transformer
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "flux")
    for name, weight in network.state_dict().items():
        array = weight.float().numpy()
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            quantized = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plain, quantized = (made(folders["flux"], *w) for w in ([], [f"model.gguf={tmp_path / 'tiny.gguf'}"]))
    assert 1e-6 < relative(quantized.latents, plain.latents) < 0.1


# ------------------------------------------------------------------------------------- a model against another


@pytest.mark.zoo
def test_a_model_and_its_fine_tune_are_one_command(folders, tmp_path, capfd):
    """The same prompts and noise for both, and a table of paired differences."""
    tuned = zoo_models.pipeline("sd")
    for weight in tuned.unet.parameters():
        weight += 0.01
    tuned.save_pretrained(tmp_path / "tuned")
    shared = [word for word in FEW if not word.startswith("metrics")]
    shared += [f"results_dir={tmp_path / 'results'}", "metrics=[clip_score]", "n_images=4", "cfg=3"]
    assert against.main([f"model.path={folders['sd']}", f"model.path={tmp_path / 'tuned'}", "--", *shared]) == 0
    said = capfd.readouterr().out
    row = re.search(r"^ *CLIP +-?[\d.]+ +-?[\d.]+ +[−-]?[\d.]+ ± [\d.]+ +4 ", said, re.MULTILINE)
    assert row and "B − A" in said, said
    assert f"A is model.path={folders['sd']}, B is model.path={tmp_path / 'tuned'}" in said
    assert against.main(["cfg=1", "--", "steps=5"]) == 2 and "write A B -- WORDS" in capfd.readouterr().err
