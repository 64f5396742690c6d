"""Adapters and switches of a pipeline, each an axis: what they change, and what is said where they cannot be."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path

import diffusers
import pytest
import torch
import zoo
import zoo_models
from PIL import Image
from safetensors.torch import save_file

from harness.errors import InputError
from harness.measure.session import Session
from harness.models import hints
from harness.models.adapters import CONTROLLED
from harness.models.load import load, named
from harness.sweep import against
from harness.sweep.commandline import read
from harness.sweep.settle import ask
from samplers.core.noise import NoiseStreams

FEW = ["n_images=2", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "data=embedded", "metrics=[]"]
FEW += ["model=pipeline", "model.height=32", "model.width=32"]
RANK = 2
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
    monkeypatch.setattr("harness.models.adapters.find_spec", lambda name: True)
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
    monkeypatch.setattr("harness.models.adapters.find_spec", lambda name: True)
    with pytest.raises(InputError, match=said):
        cell(folders["sd"], adapters=given)


# ------------------------------------------------------------------------------------- adapters that look at images


def control(path, kind="controlnet", model="sd", seed=0):
    """A tiny control network beside a tiny model, none of whose weights is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "t2i_adapter":
            made = diffusers.T2IAdapter(
                in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter"
            )
        elif model == "flux":
            made = diffusers.FluxControlNetModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=zoo_models.WIDTH,
                pooled_projection_dim=zoo_models.WIDTH,
                guidance_embeds=True,
                axes_dims_rope=(2, 2, 4),
            )
        else:
            made = zoo._control_xl(2 * zoo_models.WIDTH) if model == "sdxl" else zoo._control(strides=2)
        for name, weight in made.named_parameters():
            if "controlnet" in name or "zero" in name:
                torch.nn.init.normal_(weight, std=0.3)
        made.eval().save_pretrained(path)
    return {"kind": kind, "path": str(path), "hint": "canny"}


def image_prompt(path):
    """An IP-Adapter of the tiny UNet, and the network that sees its image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet, width = zoo_models.pipeline("sd").unet, zoo_models.WIDTH
        weights = {
            "image_proj.proj.weight": torch.randn(4 * width, width),
            "image_proj.proj.bias": torch.randn(4 * width),
            "image_proj.norm.weight": torch.ones(width),
            "image_proj.norm.bias": torch.zeros(width),
        }
        key = 1
        for name in unet.attn_processors:
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            if "attn2" in name:
                weights |= {f"ip_adapter.{key}.to_{one}_ip.weight": torch.randn(hidden, width) for one in "kv"}
                key += 2
        zoo_models._sight()["image_encoder"].eval().save_pretrained(path / "encoder")
    save_file(weights, path / "ip.safetensors")
    return {"kind": "ip_adapter", "path": str(path / "ip.safetensors"), "encoder": str(path / "encoder")}


def red(path):
    Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    return str(path)


SIX = ("euler", "dpmpp", "unipc", "heun", "euler_a", "dpmpp_2s")


def adapted(what, model, top):
    if what == "two controlnets":
        second = {**control(top / "b", model=model, seed=1), "hint": "scribble", "scale": 0.5, "end": 0.7}
        return [control(top / "a", model=model), second]
    if what == "ip_adapter":
        return [image_prompt(top)]
    if what == "ip_adapter with an image":
        return [{**image_prompt(top), "image": red(top / "red.png")}]
    return [control(top / "a", what, model)]


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
        pytest.param("controlnet", "flux", SIX, marks=pytest.mark.zoo),
    ],
)
def test_an_adapter_shows_the_pipeline_an_image(folders, tmp_path, what, model, samplers):
    """As diffusers' own pipeline with it; off at scale 0; any sampler; an image is the same in every batch."""
    given = adapted(what, model, tmp_path)
    own = "ip_adapter with" in what
    task = "task=txt2img" if own else "task=edit"
    generator = generated(folders[model], task, "n_images=3", adapters=given)
    three = generator.batch([0, 1, 2])
    plain = made(folders[model]).latents
    assert relative(three.latents[:2], plain) > 1e-3
    alone = generator.batch([1])
    assert relative(alone.latents, three.latents[1:2]) < 1e-4
    off = made(folders[model], task, "adapter_scale=0", adapters=given).latents
    assert relative(off, plain) < 1e-5
    assert relative(three.latents, stock(generator, three, model, given)) < 3e-5
    for sampler in samplers[1:]:
        other = generated(folders[model], task, "n_images=3", f"sampler={sampler}", adapters=given).batch([0, 1, 2])
        assert other.latents.isfinite().all() and relative(other.latents, three.latents) > 1e-7


def stock(generator, found, model, given):
    """The same through diffusers' pipeline, called by hand."""
    pipe, ours = zoo_models.pipeline(model), generator.model
    network = {
        "controlnet": lambda one: type(zoo._control()) if model != "flux" else diffusers.FluxControlNetModel,
        "t2i_adapter": lambda one: diffusers.T2IAdapter,
    }
    controls = [one for one in given if one["kind"] != "ip_adapter"]
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
    if controls:
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
        (["task=edit"], {"hint": "depth"}, "hint=depth is drawn by a network that is not part of this"),
        (["task=edit"], {"images": "/nowhere"}, "there is no such folder"),
        (["task=edit"], {"end": 2}, r"adapters\.end=2 is not valid: give a number from 0 to 1"),
        (["task=edit"], {"kind": "t2i_adapter"}, "is of a ControlNetModel; a t2i_adapter is a T2IAdapter"),
        (["task=edit"], {"kind": "ip_adapter", "hint": None}, "a ip_adapter has no 'hint'"),
    ],
)
def test_a_control_that_cannot_be_is_one_line(folders, tmp_path, words, change, said):
    one = {**control(tmp_path / "a"), **change}
    with pytest.raises(InputError, match=said):
        cell(folders["sd"], *words, adapters=[one])


def test_a_control_is_refused_by_models_that_take_none(folders, tmp_path):
    one = control(tmp_path / "a")
    with pytest.raises(InputError, match="a controlnet is for StableDiffusionPipeline, StableDiffusionXLPipeline"):
        cell(folders["sana"], "task=img2img", adapters=[one])
    with pytest.raises(InputError, match="which is shown no source: use it with task=txt2img or img2img or inpaint"):
        cell(folders["sd"], "task=edit")


def test_adapters_have_names_by_which_their_scales_sweep(folders, tmp_path):
    one = control(tmp_path / "a")
    own = [f"adapters.edges.{name}={value}" for name, value in one.items()]
    words = [*FEW, f"model.path={folders['sd']}", "task=edit", *own, "adapters.edges.scale=0,0.5,1"]
    cells = [ask(values) for values in read(words).values]
    assert [each.adapters[0]["scale"] for each in cells] == [0, 0.5, 1] and len({each.cell_id for each in cells}) == 3
    assert (
        cell(folders["sd"], "task=edit", "sampler=dpmpp", adapters=[{**one, "scale": 1}]).adapters == cells[2].adapters
    )


def test_control_images_lie_in_a_folder_under_the_names_of_the_images(folders, tmp_path):
    data, drawings = tmp_path / "data", tmp_path / "depth"
    for top in (data, drawings):
        top.mkdir()
    for k in range(2):
        red(data / f"{k}.png"), (data / f"{k}.txt").write_text("a red circle")
        Image.new("RGB", (40, 40), (k * 200,) * 3).save(drawings / f"{k}.png")
    one = {**control(tmp_path / "a"), "hint": "depth", "images": str(drawings)}
    words = ("task=edit", "data=folder", f"data.path={data}")
    generator = generated(folders["sd"], *words, adapters=[one])
    shown = generator._start(generator._remembered([0, 1]), generator.levels).shown.parts["control0"]
    assert [float(image.mean()) for image in shown] == pytest.approx([0, 200 / 255], abs=1e-6)


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
    assert "CLIP score" in said and "B − A" in said
    assert against.main(["cfg=1", "--", "steps=5"]) == 2 and "write A B -- WORDS" in capfd.readouterr().err
