"""ControlNets, T2I-Adapters and IP-Adapters in a pipeline that is loaded: what each is shown, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models import annotators, hints
from harness.models.adapters import CONTROLLED, control_class, weights
from harness.models.base import Drawn
from harness.models.networks import naming, quiet, whole
from harness.models.switches import PERTURBED

PART, PROMPT = "control", "image_prompt"  # how parts of a conditioning are named, each with its number


@dataclass(frozen=True)
class Shown:
    """One adapter that looks at an image."""

    part: str
    hint: str = "none"
    folder: str | None = None  # control images of the sources' names, in the place of the sources
    draw: annotators.Draw | None = None  # where a network draws the hint
    fixed: Tensor | None = None  # an image for every prompt, uint8 (1, 3, H, W)

    def of(self, images: Tensor, drawn: Drawn) -> Tensor:
        """What it is shown, float32 (N, 3, H, W) in [0, 1]."""
        if self.folder is not None:
            return hints.drawn("none", drawn(self.folder))
        with torch.no_grad():
            return hints.drawn(self.hint, images, self.draw)


@dataclass
class Controls:
    """The adapters of a pipeline that look at images; `pipe` has them in it."""

    pipe: Any
    controls: Sequence[Shown] = ()
    prompts: Sequence[Shown] = ()
    call: Mapping[str, Any] = field(default_factory=dict)  # that is always passed: scales, shares of the run
    image: str = "image"  # the call's name for control images

    def __bool__(self) -> bool:
        return bool(self.controls or self.prompts)

    def parts(self, images: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """Parts of a conditioning, by which `told` calls the pipeline: control images, and embedded image prompts."""
        found = {one.part: one.of(images, drawn).to(self.pipe.device) for one in self.controls}
        for k, one in enumerate(self.prompts):
            if one.fixed is None:
                found |= self._embedded(k, one.of(images, drawn))
        return found

    def _embedded(self, k: int, images: Tensor) -> dict[str, Tensor]:
        """What image prompt k makes of images float32 (N, 3, H, W) in [0, 1], and of none."""
        seen = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        pictures = [Image.fromarray(picture) for picture in seen]
        projection = self.pipe.unet.encoder_hid_proj.image_projection_layers[k]
        hidden = type(projection).__name__ != "ImageProjection"  # of all patches, not of the image as a whole
        cond, uncond = self.pipe.encode_image(pictures, self.pipe.device, 1, hidden)
        part = self.prompts[k].part
        return {part: cond[:, None], f"{part}_negative": uncond[:, None]}

    def told(self, parts: Mapping[str, Tensor], images: int, guided: bool) -> dict[str, Any]:
        """Arguments of the call. `guided`: both halves of an image prompt go in, the negative one first."""
        given = dict(self.call)
        if self.controls:
            shown = [parts[one.part] for one in self.controls]
            given[self.image] = shown[0] if len(shown) == 1 else shown
        every = dict(parts)
        for k, one in enumerate(self.prompts):
            if one.fixed is not None:
                rows = self._embedded(k, one.fixed.float() / 255)
                every |= {name: row.expand(images, *row.shape[1:]) for name, row in rows.items()}
        if self.prompts:
            names = [[f"{one.part}_negative", one.part] if guided else [one.part] for one in self.prompts]
            given["ip_adapter_image_embeds"] = [torch.cat([every[name] for name in both]) for both in names]
        return given


def is_shown(part: str) -> bool:
    """Whether a part of a conditioning is an adapter's."""
    return part.startswith((PART, PROMPT))


def put_in(
    pipe: Any, adapters: Sequence[Mapping[str, Any]], scale: float, dtype: torch.dtype, pag_scale: float = 0.0
) -> Controls:
    """The pipeline with its control networks and image prompts, or with perturbed-attention guidance; else the same."""
    controlling = [one for one in adapters if one["kind"] in ("controlnet", "t2i_adapter")]
    prompting = [one for one in adapters if one["kind"] == "ip_adapter"]
    scales = [float(one.get("scale", 1.0)) * scale for one in controlling]
    found = Controls(pipe)
    if pag_scale:
        found.pipe = _joined(pipe, PERTURBED[type(pipe).__name__])
        found.call = {"pag_scale": pag_scale}
    if controlling:
        kind = controlling[0]["kind"]
        networks: Any = [_network(pipe, one, dtype) for one in controlling]
        name = "controlnet" if kind == "controlnet" else "adapter"
        one: Any = networks if len(networks) > 1 else networks[0]
        found.pipe = _joined(pipe, CONTROLLED[type(pipe).__name__][kind], **{name: one})
        found.controls = [_shown(f"{PART}{k}", one, pipe.device) for k, one in enumerate(controlling)]
        each = scales[0] if len(scales) == 1 else scales
        if kind == "t2i_adapter":
            found.call = {"adapter_conditioning_scale": each}
        else:
            ends = {"start": 0.0, "end": 1.0}
            shares = {name: [float(one.get(name, end)) for one in controlling] for name, end in ends.items()}
            found.call = {"controlnet_conditioning_scale": each}
            found.call |= {f"control_guidance_{k}": v[0] if len(v) == 1 else v for k, v in shares.items()}
        found.image = "control_image" if "Flux" in type(found.pipe).__name__ else "image"
    if prompting:
        _load_prompts(found.pipe, prompting, scale, dtype)
        found.prompts = [Shown(f"{PROMPT}{k}", fixed=_picture(one.get("image"))) for k, one in enumerate(prompting)]
    return found


def _shown(part: str, one: Mapping[str, Any], device: Any) -> Shown:
    hint, annotator = one.get("hint", "canny"), one.get("annotator")
    draw = annotators.load(hint, annotator, device) if annotator else None
    return Shown(part, hint, one.get("images"), draw)


def _joined(pipe: Any, name: str, **more: Any) -> Any:
    """The parts of a pipeline in one of another class."""
    import diffusers

    made = getattr(diffusers, name)
    takes = inspect.signature(made.__init__).parameters
    settings = {"requires_safety_checker": False, "add_watermarker": False, "safety_checker": None}
    parts = {name: part for name, part in {**settings, **pipe.components, **more}.items() if name in takes}
    with quiet():
        joined = made(**parts)
    joined.set_progress_bar_config(disable=True)
    return joined


def _network(pipe: Any, one: Mapping[str, Any], dtype: torch.dtype) -> Any:
    import diffusers

    folder = weights(one).parent
    kind = getattr(diffusers, control_class(folder))
    own = {"local_files_only": True, "use_safetensors": True, "torch_dtype": dtype}
    own |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with naming(one["kind"]):
        network = whole(kind.from_pretrained(folder, **own), one["kind"])
    text, theirs = (net.config.get("cross_attention_dim") for net in (pipe.components.get("unet", network), network))
    if theirs is not None and text != theirs:
        raise InputError(f"adapters: {folder} is for text of width {theirs}, the model's is {text}: take another")
    return network.eval().requires_grad_(False).to(pipe.device)


def _load_prompts(pipe: Any, prompting: Sequence[Mapping[str, Any]], scale: float, dtype: torch.dtype) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    encoder = next((one["encoder"] for one in prompting if one.get("encoder")), None)
    if encoder is not None:
        own = {"local_files_only": True, "use_safetensors": True, "dtype": dtype, "output_loading_info": True}
        with naming("encoder"):
            network = whole(CLIPVisionModelWithProjection.from_pretrained(encoder, **own), "encoder")
        side = network.config.image_size
        sees = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        pipe.register_modules(image_encoder=network.eval().requires_grad_(False).to(pipe.device))
        pipe.register_modules(feature_extractor=sees)
    if getattr(pipe, "image_encoder", None) is None:
        raise InputError("adapters: an ip_adapter needs the network that sees its image: give encoder=FOLDER")
    files = [weights(one) for one in prompting]
    folders, names = [str(file.parent) for file in files], [file.name for file in files]
    pipe.load_ip_adapter(
        folders, subfolder=[""] * len(files), weight_name=names, image_encoder_folder=None, local_files_only=True
    )
    # A pipeline takes what it is given for one image for all prompts, and repeats it for each of them: here each prompt
    # has its own, and they go through as they are.
    pipe.prepare_ip_adapter_image_embeds = lambda image, embeds, *rest: embeds
    pipe.set_ip_adapter_scale([float(one.get("scale", 1.0)) * scale for one in prompting])


def _picture(path: str | None) -> Tensor | None:
    if path is None:
        return None
    import numpy as np

    with Image.open(expanded(path)) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)[None]
