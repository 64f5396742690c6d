"""`model=pipeline`: a pipeline of diffusers in the sweep, beside the native road and beside its own scheduler."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo_models

from harness.errors import InputError
from harness.measure.session import Session
from harness.models import families
from harness.models.kinds.pipeline import KEYS
from harness.models.load import load, named
from harness.paths import EMBEDDED, ROOT
from harness.sweep.commandline import read
from harness.sweep.settle import ask
from samplers.hosts.replaced import KINDS

FEW = ["n_images=3", "batch_size=2", "timing=off", "threads=1", "device=cpu", "steps=3", "data=embedded"]
QUICK = ("sdxl", "sd3", "flux")
# What steps as a scheduler of diffusers does; Euler as DDIM and the flow pipelines' do.
STOCK = {"UniPCMultistepScheduler": ("sampler=unipc", "sampler.lower_order_final=true")}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.zoo) for name in zoo_models.MODELS]


def cell(*words: str):
    (values,) = read([*FEW, *words]).values
    return ask(values)


def run(place: Path, *words: str):
    return Session(place).run(cell(*words), lambda what, images: None).checked()


@cache
def kept(name: str, top: Path) -> Path:
    return zoo_models.folder(top / name, name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("zoo")
    return lambda name: kept(name, top)


# -------------------------------------------------------------------------------------- beside the native road

PIPELINE = ["model=pipeline", f"model.path={EMBEDDED}", "cfg=3"]
SAME = {"nfe", "steps_run", "order", "flops", "plan_id", "height", "width", "n_images", "prompts_truncated"}
# Of the values, relative: sums of 3 images' features and of latents that agree to 1e-5.
NEAR = {"fid": 2e-3, "clip_score": 1e-4, "discretisation_error": 2e-2}


@pytest.mark.parametrize(
    "words",
    [
        ("sampler=unipc", "schedule=karras"),
        pytest.param(("sampler=dpmpp_2m_sde", "schedule=karras", "guidance.rescale=0.5"), marks=pytest.mark.zoo),
        pytest.param(("sampler=heun", "schedule=trailing", "task=img2img", "strength=0.7"), marks=pytest.mark.zoo),
        pytest.param(("sampler=dpmpp", "schedule=karras", "task=inpaint"), marks=pytest.mark.zoo),
    ],
)
def test_rows_equal_those_of_the_native_road(tmp_path, words):
    few = ["metrics=[fid,clip_score]", "reference_count=8", *words]
    if "sampler=heun" in words:  # 200 calls more, so of one image
        few = ["metrics=[clip_score,discretisation]", "n_images=1", *words]
    ours = run(tmp_path / "pipeline", *PIPELINE, *few)
    theirs = run(tmp_path / "native", "model=embedded", "cfg=3", *few)
    assert {name: ours.cell[name] for name in SAME} == {name: theirs.cell[name] for name in SAME}
    for name, most in NEAR.items():
        if name in theirs.cell:
            assert ours.cell[name] == pytest.approx(theirs.cell[name], rel=most), name
    for a, b in zip(ours.images, theirs.images, strict=True):
        assert a["prompt"] == b["prompt"] and a["clip_score"] == pytest.approx(b["clip_score"], abs=0.02)
        drawn, other = (np.array(row["image_sketch"], int) for row in (a, b))
        assert np.abs(drawn - other).mean() < 1


def test_latency_has_its_parts(tmp_path):
    row = run(tmp_path, *PIPELINE, "timing=quick", "metrics=[]", "n_images=1", "sampler=euler", "schedule=karras").cell
    assert row["timing_runs"] >= 8 and row["step_s"] > 0 and row["text_s"] > 0 and row["decode_s"] > 0
    assert row["latency_s"] > 3 * row["step_s"] * 0.5


# ------------------------------------------------------------------------------------------------ other families


def tiny(folder: Path, name: str) -> list[str]:
    """The words of a tiny pipeline, at a size that is as small."""
    own = [word.format(folder=folder) for word in zoo_models.WORDS.get(name, ())]
    words = ["model=pipeline", f"model.path={folder}", "model.height=32", "model.width=32", f"task={task_of(name)}"]
    return [word for word in words if not any(word.split("=")[0] == other.split("=")[0] for other in own)] + own


def made(folder: Path, name: str, *words: str):
    """A cell of a tiny pipeline, and three images of it."""
    asked = cell(*tiny(folder, name), "metrics=[]", *words)
    session = session_of(folder)
    generator = session._generator(asked, session._model(asked))
    return generator, generator.batch([0, 1, 2])


@lru_cache(maxsize=2)
def session_of(folder: Path) -> Session:
    """One session a pipeline, which loads it once."""
    return Session(folder.parent / "results")


def task_of(name: str) -> str:
    return zoo_models.TASKS.get(name, "txt2img")


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_is_a_cell_of_the_sweep(tmp_path, folders, name):
    """Into a record, calls counted; an image is the same in every batch; samplers differ."""
    cfg = "cfg=3"
    record = run(tmp_path, *tiny(folders(name), name), cfg, "sampler=unipc", "metrics=[]")
    row = record.cell
    assert row["status"] == "ok" and row["nfe"] == 3 and row["flops"] > 0
    latents = {}
    for sampler, calls in (("euler", 3), ("heun", None), ("euler_a", 3), ("dpmpp", 3), ("unipc", 3), ("restart", None)):
        generator, three = made(folders(name), name, cfg, f"sampler={sampler}")
        assert three.images.shape == (3, 3, *generator.model.size) and three.latents.isfinite().all()
        assert calls in (None, three.calls / 3)
        alone = generator.batch([1])
        assert relative(alone.latents, three.latents[1:2]) < 1e-4, sampler
        assert torch.equal(generator.batch([1]).latents, alone.latents)
        latents[sampler] = three.latents
    # From pure noise three steps of DPM++ are Euler's: at the end it lowers its order.
    every = [latents[sampler] for sampler in ("euler", "heun", "euler_a")]
    assert all(relative(a, b) > 1e-6 for k, a in enumerate(every) for b in every[:k])


@pytest.mark.parametrize("name", NAMES)
def test_latents_and_images_equal_those_of_the_stock_pipeline(folders, name):
    """The same prompts and noise through diffusers' own pipeline and scheduler, on its own levels."""
    folder, pipe = folders(name), zoo_models.pipeline(name)
    kind = type(pipe.scheduler).__name__
    generator, found = made(folder, name, "cfg=3", *STOCK.get(kind, ("sampler=euler",)))
    model, indices = generator.model, [0, 1, 2]
    start = generator._start(generator._remembered(indices), generator.levels).state
    call = {
        "num_inference_steps": 3, "latents": model._packed(start), "height": model.size[0], "width": model.size[1],
        "max_area": model.size[0] * model.size[1], "guidance_scale": 3.0 - model.family.offset,
        "true_cfg_scale": 3.0, "prompt": found.prompts, "use_resolution_binning": False,
        "num_frames": model.frames and model.frames.number, "max_sequence_length": model.tokens,
    }  # fmt: skip
    if model.family.guidance[0] == families.TRUE:
        call |= {"negative_prompt": " ", "guidance_scale": None}
    if model.family.fills:  # the pipeline would fill up to the longest of these, and the negative one less
        negative = model.encode_text([""] * 3).parts["prompt_embeds"]
        call |= {"prompt": None, **model.encode_text(found.prompts).parts, "negative_prompt_embeds": negative}
    if model.prior is not None:
        seeds = [torch.Generator().manual_seed(0) for _ in indices]
        call |= dict(zoo_models.prior()(found.prompts, generator=seeds))
    if model.family.shown:
        call["image"] = model._seen(model._pixels(found.sources))
        call["generator"] = [torch.Generator().manual_seed(k) for k in indices]
    if found.masks is not None:
        call |= {"mask_image": found.masks.float(), "strength": 1.0}
    if model.family.start or "latents" not in model._takes:  # it noises a source itself
        level = generator.levels[0]
        pipe.scheduler.add_noise = lambda *given: start / (level.alpha if kind == "EulerDiscreteScheduler" else 1)
        call = {"image": start, **{name: value for name, value in call.items() if name != "latents"}}
    call = {name: value for name, value in (call | dict(model.family.call)).items() if name in model._takes}

    def stock(what):
        again = {"generator": [torch.Generator().manual_seed(k) for k in indices]} if "generator" in call else {}
        return pipe(**{**call, **again}, output_type=what, return_dict=False)[0]

    latents = model._unpacked(stock("latent"))
    assert relative(found.latents, latents) <= 3e-5
    images = stock("pt")
    if model.frames is not None:
        images = images[:, model.frames.measured(images.shape[1])]
    if model.family.vae == "movq":  # as its decoder gives them, −1 to 1
        images = images / 2 + 0.5
    theirs = (images.float().clamp(0, 1) * 255).round()
    assert (theirs - found.images.float()).abs().max() <= 1.5


def test_the_families_the_zoo_and_the_documentation_name_the_same_classes():
    assert set(families.SCHEDULERS) <= set(KINDS)
    page = (ROOT / "docs" / "pipelines.md").read_text()
    rows = {
        cells[1].strip(" `"): cells[3].strip()
        for cells in (line.split("|") for line in page.splitlines())
        if len(cells) == 5
    }
    tasks = {name: ", ".join(family.tasks) for name, family in families.FAMILIES.items()}
    assert {name: rows.get(name) for name in tasks} == tasks
    presets = [named(path.stem) for path in (ROOT / "conf" / "model").glob("*.yaml")]
    for spec in presets:
        if spec.get("kind") == "pipeline":
            assert f"`{spec['name']}`" in page and set(spec) <= set(KEYS)
    assert len(zoo_models.MODELS) == len(families.FAMILIES)


@pytest.mark.zoo
def test_true_guidance_follows_its_negative_prompt(folders):
    def latents(*words):
        return made(folders("flux"), "flux", "model.guidance=true_cfg", "sampler=euler", *words)[1].latents

    plain, guided, negative = latents("cfg=1"), latents("cfg=3"), latents("cfg=3", "negative_prompt=a large circle")
    assert relative(guided, plain) > 1e-4 and relative(negative, guided) > 1e-5


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler=dpm_adaptive"], "wants to know its steps before it begins"),
        (["implementation=diffusers"], "use implementation=native"),
        (["cfg=0.5"], "does no guidance below 1"),
        (["task=edit"], "use it with task=txt2img or img2img or inpaint, not edit"),
        (["model.height=33"], r"model\.height=33 is not valid: give a multiple of"),
        (["model.guidance=distilled"], r"model\.guidance='distilled' is not valid for this model; valid: cfg"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(words, said):
    with pytest.raises(InputError, match=said):
        cell(*PIPELINE, *words)


def test_stock_is_a_schedule_of_pipelines_alone():
    with pytest.raises(InputError, match="schedule=stock is what a pipeline's own scheduler walks"):
        cell("model=embedded", "schedule=stock")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"_class_name": "StableCascadeDecoderPipeline"},
            "names the pipeline 'StableCascadeDecoderPipeline', which is unknown here",
        ),
        ({"unet": ["os", "system"]}, r"a part must be of diffusers or transformers"),
        ({"unet": ["diffusers", "../evil"]}, r"a part must be of diffusers or transformers"),
        ({"scheduler": ["diffusers", "EDMEulerScheduler"]}, "its EDMEulerScheduler has levels that are not known"),
        ({"image_encoder": ["transformers", "CLIPVisionModel"]}, "has no image_encoder/"),
    ],
)
def test_an_index_is_held_against_the_lists(tmp_path, folders, change, said):
    folder = tmp_path / "model"
    folder.mkdir()
    for part in folders("sd").iterdir():
        (folder / part.name).symlink_to(part) if part.is_dir() else (folder / part.name).write_bytes(part.read_bytes())
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(InputError, match=said):
        cell("model=pipeline", f"model.path={folder}")


def test_a_part_of_another_kind_is_not_made(folders):
    spec = named("pipeline", path=str(folders("sd")))
    from harness.models.pipeline_parts import _class

    with pytest.raises(InputError, match=r"transformers\.pipeline, which is no part"):
        _class("unet", "transformers", "pipeline")
    assert load(spec, "fp32", "cpu").networks


def test_a_distilled_model_has_no_negative_prompt(folders):
    words = ["model=pipeline", f"model.path={folders('flux')}", "cfg=3", "negative_prompt=blurred"]
    with pytest.raises(InputError, match=r"has no use for a negative_prompt; leave it empty, or set model\.guidance"):
        cell(*words)
    cell(*words, "model.guidance=true_cfg")
