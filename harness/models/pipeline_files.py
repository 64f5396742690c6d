"""What the files of a pipeline of diffusers say of it, and where they are. No torch at its top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import InputError, nearest
from harness.knob_paths import expanded
from harness.models import families, locate, single_files
from harness.models.base import Spec
from harness.models.families import Family
from harness.models.files import read_json, safetensors_shapes

LIBRARIES = ("diffusers", "transformers")  # whose classes an index may name
NORMALIZER = ["stable_diffusion", "StableUnCLIPImageNormalizer"]  # and one that diffusers names by its folder
FRAMES = ("first", "middle", "last")
UNUSED = ("safety_checker", "watermark")  # parts that judge or mark a finished image, and are never loaded
PATTERNS = ("*.json", "tokenizer*/*")


@dataclass(frozen=True)
class Facts:
    """What the configuration files of a pipeline say."""

    folder: Path
    index: Mapping[str, Any]  # model_index.json
    family: Family
    size: tuple[int, int]  # pixels, height x width
    downscale: int
    channels: int  # of its latents
    noise: Mapping[str, Any]  # scheduler_config.json
    ways: tuple[str, ...]  # in which it can be guided, the customary first
    frames: families.Frames | None = None  # of a video
    prior: Facts | None = None  # the pipeline that reads its text
    file: Path | None = None  # the single file of its networks; `folder` then has the configuration and what it lacks
    held: tuple[str, ...] = ()  # the parts that the file holds


def place(spec: Spec, weights: bool) -> Path:
    """The folder of the pipeline; of a hub's its configuration is fetched, and with `weights` those too.

    For a single file that of its configuration, and `weights` are those that the file lacks.
    """
    if not spec.get("path"):
        raise InputError(
            f"model {spec.get('name')} needs model.path=: the folder of a diffusers pipeline, a hub id, or a single "
            ".safetensors file"
        )
    file = single_files.given(spec)
    if file is not None:
        return _beside(spec, file, weights)
    given = str(spec["path"])
    if given == "embedded":
        return locate.EMBEDDED
    path = Path(given).expanduser()
    if path.is_dir():
        return path
    return locate.hub_folder(spec, given, (*PATTERNS, f"*/{_ending(spec)}") if weights else PATTERNS)


def _ending(spec: Spec) -> str:
    """The names of files of weights."""
    return f"*.{spec['variant']}*.safetensors" if spec.get("variant") else "*.safetensors"


def _beside(spec: Spec, file: Path, weights: bool) -> Path:
    """The folder of what a single file does not hold: the configuration, and with `weights` those of other parts."""
    wanted = single_files.configuration(spec, file)
    if expanded(wanted).is_dir():
        return expanded(wanted)
    try:
        folder = locate.hub_folder(spec, wanted, PATTERNS, "config")
        if not weights:
            return folder
        known = _facts_in(spec, folder, file)
        lacking = [
            name
            for name in known.index
            if name not in (*known.held, *UNUSED) and (folder / name / "config.json").is_file()
        ]
        return locate.hub_folder(spec, wanted, (*PATTERNS, *(f"{name}/{_ending(spec)}" for name in lacking)), "config")
    except InputError as error:
        raise InputError(f"model.path={file} needs the configuration of its pipeline: {error}") from error


def fingerprint(spec: Spec) -> str:
    """What the model's weights are, as short text; of a single file it and what goes with it."""
    file = single_files.given(spec)
    if file is None:
        return locate.fingerprint(spec)
    folder = place(spec, weights=False)
    hub_id = single_files.configuration(spec, file) if "snapshots" in folder.parts else None
    return f"{locate.content(file)}+{locate.identity(folder, hub_id)}"


def facts(spec: Spec) -> Facts:
    """What the files say; InputError for a class that is not known, a part that is not there, a size that cannot be."""
    with locate.read_from(spec, "configuration"):
        return _facts(spec)


def _facts(spec: Spec) -> Facts:
    return _facts_in(spec, place(spec, weights=False), single_files.given(spec))


def _facts_in(spec: Spec, folder: Path, file: Path | None) -> Facts:
    index = read_json(folder / "model_index.json")
    family = families.family_of(index.get("_class_name"), str(folder / "model_index.json"))
    held = () if file is None else single_files.held(file, index, family)
    _check_parts(spec, folder, index, (family.network, family.vae, "scheduler"), file, held)
    noise = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = index["scheduler"][1]
    if kind not in families.SCHEDULERS:
        raise InputError(
            f"model {spec.get('name')}: its {kind} has levels that are not known here; "
            f"{nearest(str(kind), families.SCHEDULERS)}"
        )
    network = read_json(folder / family.network / "config.json")
    if file is not None:
        single_files.check_network(file, index[family.network][1], network)
    vae = read_json(folder / family.vae / "config.json")
    downscale = downscale_of(vae)
    side = family.side or network.get("sample_size") or 64
    sides = [side, side] if isinstance(side, int) else list(side)[-2:]
    own = family.pixels or [latents * downscale for latents in sides]
    height, width = (
        locate.pixels(spec, name, own[k], downscale * family.multiple) for k, name in enumerate(("height", "width"))
    )
    channels = int(vae.get("latent_channels") or vae.get("z_dim") or 4)
    frames = _frames(spec, vae) if family.frames else None
    ways = family.guidance
    if ways[0] == families.DISTILLED and network.get("guidance_embeds") is not True:  # FLUX schnell is told none
        ways = (families.NONE, *ways[1:])
    prior = _prior(spec, family)
    if spec.get("gguf"):
        _check_gguf(spec)
    noise = {**noise, "_class_name": kind}
    size = (height, width)
    return Facts(folder, index, family, size, downscale, channels, noise, ways, frames, prior, file, held)


def _check_gguf(spec: Spec) -> None:
    """A file of quantized weights of the network is there, and can be read."""
    path = expanded(spec["gguf"])
    if path.suffix != ".gguf" or not path.is_file():
        raise InputError(f"model.gguf={spec['gguf']!r}: there is no such .gguf file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path} is not a GGUF file: it does not begin as one")
    missing = [package for package in ("gguf", "accelerate") if not find_spec(package)]
    if missing:
        raise InputError(f"model.gguf needs the package {' and '.join(missing)}: uv sync --extra quantization")


def prior_spec(spec: Spec) -> Spec:
    """The spec of the pipeline that reads its text."""
    return {**spec, "path": spec["prior"]}


def _prior(spec: Spec, family: Family) -> Facts | None:
    if family.prior is None:
        if spec.get("prior"):
            raise InputError(f"model {spec.get('name')} reads its text itself: leave model.prior empty")
        return None
    if not spec.get("prior"):
        raise InputError(f"model {spec.get('name')} needs model.prior=: the folder or hub id of a {family.prior}")
    folder = place(prior_spec(spec), weights=False)
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != family.prior:
        raise InputError(f"{folder / 'model_index.json'} names {index.get('_class_name')!r}, not a {family.prior}")
    _check_parts(spec, folder, index, ())
    return Facts(folder, index, family, (0, 0), 1, 0, {}, ())


def _frames(spec: Spec, vae: Mapping[str, Any]) -> families.Frames:
    number, which = spec.get("num_frames") or 17, spec.get("frame") or "middle"
    if which not in FRAMES:
        raise InputError(f"model.frame={which!r} is not valid; {nearest(str(which), FRAMES)}")
    each = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio")
    each = each or vae.get("patch_size_t", 1) * 2 ** sum(
        vae.get("spatio_temporal_scaling") or vae["temperal_downsample"]
    )
    if isinstance(number, bool) or not isinstance(number, int) or number < 1 or (number - 1) % each:
        raise InputError(f"model.num_frames={number!r} is not valid: give 1 or a multiple of {each} and 1 more")
    return families.Frames(number, (number - 1) // each + 1, which)


def _check_parts(
    spec: Spec,
    folder: Path,
    index: Mapping[str, Any],
    needed: Sequence[str],
    single: Path | None = None,
    held: Sequence[str] = (),
) -> None:
    """Every part that is named is of diffusers or transformers and there, its weights in whole .safetensors files.

    Those of the parts that are `held` are in the file `single`.
    """
    for name, entry in index.items():
        if not isinstance(entry, list) or name in UNUSED or entry[:1] == [None]:
            continue
        known = entry == NORMALIZER or entry[0] in LIBRARIES
        if len(entry) != 2 or not known or not str(entry[1]).isidentifier():
            raise InputError(
                f"{folder / 'model_index.json'}: {name} is {entry!r}; a part must be of {' or '.join(LIBRARIES)}"
            )
        part = folder / name
        if not part.is_dir():
            raise InputError(f"model {spec.get('name')}: {folder} has no {name}/, which its model_index.json names")
        if (part / "config.json").is_file() and "snapshots" not in part.parts and name not in held:
            files = sorted(part.glob(_ending(spec)))
            if not files and not (name.startswith("tokenizer") or "processor" in name or "extractor" in name):
                neither = "" if single is None else f", and {single.name} holds none of it"
                raise InputError(f"model {spec.get('name')}: {part} has no .safetensors file of weights{neither}")
            for file in files:
                safetensors_shapes(file)
    for name in needed:
        if not isinstance(index.get(name), list) or index[name][0] is None:
            raise InputError(f"model {spec.get('name')}: its model_index.json names no {name}")


def downscale_of(vae: Mapping[str, Any]) -> int:
    """Pixels a latent, each way, by a VAE's configuration."""
    if vae.get("scale_factor_spatial"):  # AutoencoderKLWan
        return int(vae["scale_factor_spatial"])
    if vae.get("spatio_temporal_scaling") is not None:  # AutoencoderKLLTXVideo
        return int(vae.get("spatial_compression_ratio") or vae["patch_size"] * 2 ** sum(vae["spatio_temporal_scaling"]))
    if vae.get("temperal_downsample") is not None:  # AutoencoderKLQwenImage; their word
        return 2 ** len(vae["temperal_downsample"])
    blocks = vae.get("encoder_block_out_channels") or vae.get("block_out_channels") or [64]
    return 2 ** (len(blocks) - 1)
