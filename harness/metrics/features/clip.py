"""Image-text models for the CLIP score, through open_clip. Only what is on this machine is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InputError
from harness.metrics.features import files
from harness.models import pickles

if TYPE_CHECKING:
    import torch

    from harness.metrics.context import Context

LOCAL = "local-dir:"
CUSTOMARY = "ViT-B-32"  # with `openai` the model of MLPerf's CLIP score


def check(model: str, allow_pickle: bool = False) -> None:
    """InputError where a folder is asked for that has no open_clip model, or a pickled one without the flag."""
    if model == "embedded" or model.startswith(LOCAL):
        _check_pickled(_weight_file(_local_folder(model)), allow_pickle)


def get(model: str, pretrained: str, context: Context, allow_pickle: bool = False) -> tuple[ClipScorer | None, str]:
    """The scorer, loaded once per worker, or None and why: only `auto` may find none, a named model must be there."""
    asked = model
    if model == "auto":
        model = "embedded" if context.data.name == "embedded" else CUSTOMARY
    try:
        key = ("clip", model, pretrained, str(files.EMBEDDED), context.device)
        return context.once(key, lambda: load(model, pretrained, context.device, allow_pickle)), ""
    except InputError as error:
        if asked == "auto" and model == CUSTOMARY:
            return None, str(error)
        raise


def check_named(model: str, pretrained: str, allow_pickle: bool, metric: str) -> None:
    """InputError where a model is not on this machine; asks open_clip, which imports torch, where it is no folder."""
    if model == "embedded" or model.startswith(LOCAL):
        _check_pickled(_weight_file(_local_folder(model)), allow_pickle, metric)
    else:
        _check_pickled(Path(_tagged(model, pretrained)["pretrained"]), allow_pickle, metric)


def untrained(model: str, device: str) -> tuple[Any, Any]:
    """A network of open_clip's architecture for weights from elsewhere, and its tokenizer; `model` may be a folder."""
    import open_clip

    if not model.startswith(LOCAL) and model not in open_clip.list_models():
        from harness.errors import nearest

        raise InputError(f"clip model {model!r} is not known; {nearest(model, open_clip.list_models())}")
    with pickles.weights_only():
        net = open_clip.create_model(model, device=device)
    return net.eval().requires_grad_(False), open_clip.get_tokenizer(model)


def load(model: str, pretrained: str, device: str, allow_pickle: bool, metric: str = "clip_score") -> ClipScorer:
    """The network that the options name, from this machine. InputError where it is not there."""
    import open_clip

    if model == "embedded" or model.startswith(LOCAL):
        folder = _local_folder(model)
        file = _weight_file(folder)
        name, label, given = f"{LOCAL}{folder}", _label(model, folder), {}
    else:
        name, label = model, f"{model}/{pretrained}"
        given = _tagged(model, pretrained)
        file = Path(given["pretrained"])
    _check_pickled(file, allow_pickle, metric)
    with pickles.weights_only():
        net, _, preprocess = open_clip.create_model_and_transforms(name, device=device, **given)
    return ClipScorer(net, preprocess, open_clip.get_tokenizer(name), label, device)


def _check_pickled(file: Path, allow_pickle: bool, metric: str = "clip_score") -> None:
    if not allow_pickle and file.suffix != ".safetensors":
        pickles.refuse(file, f"allow_pickle of metric {metric}")


def _local_folder(model: str) -> Path:
    folder = files.embedded_clip() if model == "embedded" else Path(model.removeprefix(LOCAL)).expanduser()
    if not (folder / "open_clip_config.json").is_file():
        what = "make it with `python -m harness.embedded.train`" if model == "embedded" else "give local-dir:FOLDER"
        raise InputError(f"no open_clip model in {folder} (open_clip_config.json is not there): {what}")
    if not _weight_file(folder):
        raise InputError(f"the open_clip model in {folder} has no weights: open_clip_model.safetensors is not there")
    return folder


def _weight_file(folder: Path) -> Path | None:
    return next(
        (
            p
            for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            if (p := folder / name).is_file()
        ),
        None,
    )


def _label(model: str, folder: Path) -> str:
    kind = "embedded-open_clip-v1" if model == "embedded" else f"open_clip-{folder.name}"
    return f"{kind}-{files.short_hash(_weight_file(folder))}"


def _tagged(model: str, pretrained: str) -> Mapping[str, Any]:
    """What makes open_clip load a tag's weights from the file on this machine, without a call to anywhere."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if model not in open_clip.list_models():
        from harness.errors import nearest

        few = [name for name in open_clip.list_models() if name.startswith(str(model)[:5])] or ["ViT-B-32", "ViT-L-14"]
        raise InputError(f"clip model {model!r} is not known; {nearest(model, few)}, embedded, local-dir:FOLDER")
    config = get_pretrained_cfg(model, pretrained)
    if Path(pretrained).is_file():
        return {"pretrained": pretrained}
    if not config:
        tags = ", ".join(list_pretrained_tags_by_model(model))
        raise InputError(f"pretrained={pretrained!r} is not known for {model}; valid: {tags}, or a file")
    looked = list(_places(config))
    found = next((path for path in looked if path.is_file()), None)
    if found is None:
        raise InputError(
            f"{model}/{pretrained} is not on this machine, looked for {' and '.join(map(str, looked))}: "
            "put its weights there, or give local-dir:FOLDER"
        )
    named = {
        "mean": "image_mean",
        "std": "image_std",
        "interpolation": "image_interpolation",
        "resize_mode": "image_resize_mode",
    }
    given = {ours: config[theirs] for theirs, ours in named.items() if config.get(theirs)}
    return {"pretrained": str(found), "force_quick_gelu": bool(config.get("quick_gelu")), **given}


def _places(config: Mapping[str, Any]):
    """Files that open_clip would have downloaded the weights to."""
    if hub := config.get("hf_hub"):
        from huggingface_hub import constants, try_to_load_from_cache

        repository, filename = os.path.split(hub)
        files = [filename] if filename else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        for file in files:
            cached = try_to_load_from_cache(repository, file)
            folder = (
                Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / "main" / file
            )
            yield Path(cached) if isinstance(cached, str) else folder
    if url := config.get("url"):
        yield Path("~/.cache/clip").expanduser() / os.path.basename(url)


class ClipScorer:
    """Image and prompt to 100·cos. Prompts are embedded once a worker: cells share them."""

    def __init__(self, net: Any, preprocess: Any, tokenizer: Any, label: str, device: str) -> None:
        import torch

        self.net, self.tokenizer, self.label, self.device = net.eval().requires_grad_(False), tokenizer, label, device
        self.preprocess = preprocess
        size = net.visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        config = net.visual.preprocess_cfg
        self.how = f"pil-{config['interpolation']}-{config['resize_mode']}"
        self.mean, self.std = (torch.tensor(config[k], device=device).view(1, 3, 1, 1) for k in ("mean", "std"))
        self._texts: dict[str, torch.Tensor] = {}

    def definition(self, size: tuple[int, int]) -> str:
        resizer = "no resize" if tuple(size) == self.size else f"{self.how} to {self.size[0]}x{self.size[1]}"
        return f"100*cos, unclamped, {self.label}, {resizer}"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> np.ndarray:
        """One score an image, float64 (N,)."""
        import torch

        with torch.inference_mode():
            score = 100 * (self.see(images).double() * self._embed(prompts).double()).sum(1)
        return score.cpu().numpy()

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (N, dim)."""
        import torch

        with torch.inference_mode():
            return self.net.encode_image(self._prepare(images), normalize=True)

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        from PIL import Image

        if tuple(images.shape[-2:]) == self.size:  # nothing to resize: only the normalisation is left of `preprocess`
            return (images.to(self.device).float() / 255 - self.mean) / self.std
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
        return torch.stack([self.preprocess(picture) for picture in pictures]).to(self.device)

    def _embed(self, prompts: list[str]) -> torch.Tensor:
        import torch

        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            tokens = self.tokenizer(new).to(self.device)
            self._texts.update(zip(new, self.net.encode_text(tokens, normalize=True), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])
