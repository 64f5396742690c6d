"""What is put into a pipeline beside its own weights, known before one is loaded: files, and whether they can be there.

An adapter is a mapping: `kind`, `path`, and the knobs of its kind (`KNOBS`). Diffusers has no hypernetworks, so neither
has this. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import InputError, nearest
from harness.knob_paths import expanded
from harness.models import annotators, locate, lycoris
from harness.models.files import check_is_weights, read_json, safetensors_shapes
from harness.models.hints import BY_NETWORK, HINTS

Adapter = Mapping[str, Any]

CONTROLS = ("controlnet", "t2i_adapter")  # which look at a control image
# The pipeline that a pipeline becomes with them. Stable Diffusion 3's draws from its VAE without a generator, so that
# an image would not be the same twice: it is not here.
CONTROLLED: dict[str, dict[str, str]] = {
    "StableDiffusionPipeline": {
        "controlnet": "StableDiffusionControlNetPipeline",
        "t2i_adapter": "StableDiffusionAdapterPipeline",
    },
    "StableDiffusionXLPipeline": {
        "controlnet": "StableDiffusionXLControlNetPipeline",
        "t2i_adapter": "StableDiffusionXLAdapterPipeline",
    },
    "FluxPipeline": {"controlnet": "FluxControlNetPipeline"},
}
PROMPTED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")  # which take an image beside the prompt
CLASSES = {"controlnet": ("ControlNetModel", "FluxControlNetModel"), "t2i_adapter": ("T2IAdapter",)}
FILES = ("path", "image", "encoder", "images", "annotator")  # knobs that name files


def check(adapters: Sequence[Adapter], pipeline: str, task: str) -> str | None:
    """Why these cannot be in a pipeline of this class and this task, in words; None where they can."""
    kinds = {one["kind"] for one in adapters}
    if "lora" in kinds and not find_spec("peft"):
        return "a LoRA needs the package peft"
    for kind in CONTROLS:
        if kind in kinds and kind not in CONTROLLED.get(pipeline, {}):
            able = ", ".join(name for name, has in CONTROLLED.items() if kind in has)
            return f"a {kind} is for {able}, and this is a {pipeline}"
    if kinds.issuperset(CONTROLS):
        return "no pipeline has both a controlnet and a t2i_adapter"
    if "ip_adapter" in kinds and pipeline not in PROMPTED:
        return f"an ip_adapter is for {', '.join(PROMPTED)}, and this is a {pipeline}"
    if looks(adapters) and task == "txt2img":
        return (
            "it is shown a source, which task=txt2img has not; use task=edit (from noise alone), img2img or inpaint"
            + (", or give it an image" if "ip_adapter" in kinds else "")
        )
    for one in adapters:
        _check_one(one)
    return None


def looks(adapters: Sequence[Adapter]) -> bool:
    """Whether one of them is shown the source of a task."""
    return any(one["kind"] in CONTROLS or (one["kind"] == "ip_adapter" and not one.get("image")) for one in adapters)


def _check_one(one: Adapter) -> None:
    file = weights(one)
    if one["kind"] == "lora":
        lycoris.check(file)
    hint, folder = one.get("hint", "canny"), one.get("images")
    if one["kind"] in CONTROLS:
        if hint not in (*HINTS, *BY_NETWORK):
            raise InputError(f"adapters: hint={hint!r} is not known; {nearest(str(hint), (*HINTS, *BY_NETWORK))}")
        if one.get("annotator") is not None:
            if hint not in BY_NETWORK or folder is not None:
                raise InputError(
                    f"adapters: annotator= draws hint={'|'.join(BY_NETWORK)}, and not with images=: leave it out here"
                )
            annotators.check(hint, one["annotator"])
        elif hint in BY_NETWORK and folder is None:
            raise InputError(
                f"adapters: hint={hint} is drawn by a network: give annotator=FOLDER, where it is, or images=FOLDER of "
                "control images, with a file of the name of each image of the data"
            )
        if folder is not None and not expanded(folder).is_dir():
            raise InputError(f"adapters: images={folder!r}: there is no such folder")
    for knob in ("image", "encoder"):
        if one.get(knob) is not None and not expanded(one[knob]).exists():
            raise InputError(f"adapters: {knob}={one[knob]!r}: there is no such file or folder")


def control_class(folder: Path) -> str:
    """The class of a control network by its configuration."""
    return str(read_json(folder / "config.json").get("_class_name"))


def weights(adapter: Adapter) -> Path:
    """The file of an adapter's weights: the path itself, or the only .safetensors file of a folder."""
    path = expanded(adapter["path"])
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise InputError(f"adapters: {path} holds {len(found)} .safetensors files; give the path of one")
        path = found[0]
    if path.suffix != ".safetensors":
        raise InputError(f"adapters: {path} is no .safetensors file, the one format that is read")
    check_is_weights(path)
    kinds = CLASSES.get(adapter["kind"])
    if kinds is not None:
        found = control_class(path.parent)
        if found not in kinds:
            config, valid = path.parent / "config.json", " or ".join(kinds)
            raise InputError(f"adapters: {config} is of a {found}; a {adapter['kind']} is a {valid}")
        safetensors_shapes(path)
    return path


def with_digests(adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Each with the digest of its files, by which a cell knows it."""
    return tuple({**one, "sha256": _digest(one)} for one in adapters)


def _digest(one: Adapter) -> str:
    file = weights(one)
    found = [locate.content(file)]
    if one["kind"] in CONTROLS:
        found.append(locate.content(file.parent / "config.json"))
    found += [locate.content(expanded(one[knob])) for knob in FILES[1:] if one.get(knob)]
    return "+".join(found)
