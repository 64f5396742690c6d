"""Known pipelines of diffusers, which run their own loop under our plans, before one is loaded. No torch at its top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError, nearest
from harness.models import families, locate, switches, training_noise
from harness.models.base import STOCK, Kind, Model, Spec, built, dtype_of
from harness.models.families import Family
from harness.models.files import read_json, safetensors_shapes
from harness.models.guidance import Guidance
from samplers.core.levels import NoiseLevels, Process, RectifiedFlow

KEYS = (
    "name", "kind", "path", "variant", "revision", "height", "width", "max_sequence_length", "guidance",
    "default_data", "default_cfg", "default_precision", "pixel_range", "auto_schedule",
)  # fmt: skip
LIBRARIES = ("diffusers", "transformers")  # whose classes an index may name
UNUSED = ("safety_checker", "watermark")  # parts that judge or mark a finished image, and are never loaded
PATTERNS = ("*.json", "tokenizer*/*", "*/*.model")


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


class Pipeline(Kind):
    def check(self, spec: Spec, task: str | None = None) -> Facts:
        for key in spec:
            if key not in KEYS:
                raise InputError(f"model.{key} is unknown for kind=pipeline; {nearest(key, KEYS)}")
        known = facts(spec)
        training_noise.check(spec, known.noise)
        if task not in (None, *known.family.tasks):
            raise InputError(
                f"model {spec.get('name')} is a {known.index['_class_name']}: use it with "
                f"task={' or '.join(known.family.tasks)}, not {task}"
            )
        _way(spec, known)
        return known

    def check_use(self, spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str) -> None:
        if data["name"] == "classes":
            raise InputError(f"data=classes has no captions and no images: it is for model=gmm, not {spec.get('name')}")
        known = facts(spec)
        way = _way(spec, known)
        if negative_prompt and way in (families.DISTILLED, families.NONE):
            raise InputError(
                f"model {spec.get('name')} is told its guidance and computes nothing unconditional: it has no use for "
                "a negative_prompt; leave it empty"
                + (", or set model.guidance=true_cfg" if families.TRUE in known.ways else "")
            )

    def check_run(self, spec: Spec, guidance: Guidance, adaptive: bool, implementation: str) -> None:
        name, known = spec.get("name"), facts(spec)
        if adaptive:
            raise InputError(f"model {name} wants to know its steps before it begins: no sampler that chooses them")
        if implementation != "native":
            raise InputError(f"model {name} is stepped by our plans alone: use implementation=native")
        if guidance.rescale and not known.family.rescales:
            raise InputError(f"a {known.index['_class_name']} has no guidance rescale: set guidance.rescale=0")
        check_scale(str(name), _way(spec, known), guidance)

    def check_fitted(self, spec: Spec, fitted: Mapping[str, Any], precision: str, device: str) -> Mapping[str, Any]:
        known = facts(spec)
        network, vae = (str(known.index[name][1]) for name in (known.family.network, known.family.vae))
        switches.check(str(spec.get("name")), fitted, switches.Where(network, vae, device, precision))
        if "adapters" in fitted:
            return {**fitted, "adapters": switches.with_digests(fitted["adapters"])}
        return fitted

    def fingerprint(self, spec: Spec) -> str:
        return locate.fingerprint(spec)

    def process(self, spec: Spec) -> Process:
        return training_noise.process(facts(spec).noise)

    def levels(self, spec: Spec, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
        """For `stock` as many levels, by which a plan can be judged: its own are known by its pipeline alone."""
        process = self.process(spec)
        if schedule["name"] != STOCK:
            return built(schedule, process, steps)
        if isinstance(process, RectifiedFlow):
            t = np.linspace(1, 0, steps + 1)
            return NoiseLevels(1 - t, t, t * process.train_steps, process)
        return built({"name": "linspace"}, process, steps)

    def load(self, spec: Spec, precision: str, device: str) -> Model:
        known = self.check(spec)
        from harness.models.pipeline import PipelineModel
        from harness.models.pipeline_parts import load_pipeline

        folder = place(spec, weights=True)
        return PipelineModel(
            name=str(spec.get("name")),
            pipe=load_pipeline(spec, folder, known, dtype_of(precision), device),
            family=known.family,
            process=training_noise.process(known.noise),
            dtype=dtype_of(precision),
            size=known.size,
            downscale=known.downscale,
            channels=known.channels,
            way=_way(spec, known),
            tokens=spec.get("max_sequence_length") or known.family.tokens,
        )


KIND = Pipeline()


def place(spec: Spec, weights: bool) -> Path:
    """The folder of the pipeline; of a hub's its configuration is fetched, and with `weights` those too."""
    if not spec.get("path"):
        raise InputError(f"model {spec.get('name')} needs model.path=: the folder of a diffusers pipeline, or a hub id")
    given = str(spec["path"])
    if given == "embedded":
        return locate.EMBEDDED
    path = Path(given).expanduser()
    if path.is_dir():
        return path
    if path.suffix in (".safetensors", ".ckpt", ".bin", ".pt"):
        raise InputError(
            f"model.path={given}: model=pipeline takes the folder of a pipeline or a hub id; a single file of Stable "
            "Diffusion 1.x or 2.x is for model=diffusers"
        )
    ending = f"*/*.{spec['variant']}*.safetensors" if spec.get("variant") else "*/*.safetensors"
    return locate.hub_folder(spec, given, (*PATTERNS, ending) if weights else PATTERNS)


def facts(spec: Spec) -> Facts:
    """What the files say; InputError for a class that is not known, a part that is not there, a size that cannot be."""
    try:
        return _facts(spec)
    except InputError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(f"model {spec.get('name')}: a value in its configuration is not valid ({error})") from error


def _facts(spec: Spec) -> Facts:
    folder = place(spec, weights=False)
    index = read_json(folder / "model_index.json")
    family = families.family_of(index.get("_class_name"), str(folder / "model_index.json"))
    _check_parts(spec, folder, index, family)
    noise = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = index["scheduler"][1]
    if kind not in families.SCHEDULERS:
        raise InputError(
            f"model {spec.get('name')}: its {kind} has levels that are not known here; "
            f"{nearest(str(kind), families.SCHEDULERS)}"
        )
    network = read_json(folder / family.network / "config.json")
    vae = read_json(folder / family.vae / "config.json")
    downscale = downscale_of(vae)
    side = family.side or network.get("sample_size") or 64
    own = [side, side] if isinstance(side, int) else list(side)[-2:]
    height, width = (
        _pixels(spec, name, own[k] * downscale, downscale * family.multiple)
        for k, name in enumerate(("height", "width"))
    )
    channels = int(vae.get("latent_channels") or vae.get("z_dim") or 4)
    ways = family.guidance
    if ways[0] == families.DISTILLED and network.get("guidance_embeds") is not True:  # FLUX schnell is told none
        ways = (families.NONE, *ways[1:])
    return Facts(folder, index, family, (height, width), downscale, channels, {**noise, "_class_name": kind}, ways)


def _check_parts(spec: Spec, folder: Path, index: Mapping[str, Any], family: Family) -> None:
    """Every part that is named is of diffusers or transformers and there, its weights in whole .safetensors files."""
    for name, entry in index.items():
        if not isinstance(entry, list) or name in UNUSED or entry[:1] == [None]:
            continue
        if len(entry) != 2 or entry[0] not in LIBRARIES or not str(entry[1]).isidentifier():
            raise InputError(
                f"{folder / 'model_index.json'}: {name} is {entry!r}; a part must be of {' or '.join(LIBRARIES)}"
            )
        part = folder / name
        if not part.is_dir():
            raise InputError(f"model {spec.get('name')}: {folder} has no {name}/, which its model_index.json names")
        if (part / "config.json").is_file() and "snapshots" not in part.parts:
            files = sorted(part.glob(f"*.{spec['variant']}*.safetensors" if spec.get("variant") else "*.safetensors"))
            if not files and not (name.startswith("tokenizer") or "processor" in name or "extractor" in name):
                raise InputError(f"model {spec.get('name')}: {part} has no .safetensors file of weights")
            for file in files:
                safetensors_shapes(file)
    for name in (family.network, family.vae, "scheduler"):
        if not isinstance(index.get(name), list) or index[name][0] is None:
            raise InputError(f"model {spec.get('name')}: its model_index.json names no {name}")


def downscale_of(vae: Mapping[str, Any]) -> int:
    """Pixels a latent, each way, by a VAE's configuration."""
    if vae.get("temperal_downsample") is not None:  # AutoencoderKLQwenImage and Wan's; their word
        return 2 ** len(vae["temperal_downsample"])
    blocks = vae.get("encoder_block_out_channels") or vae.get("block_out_channels") or [64]
    return 2 ** (len(blocks) - 1)


def _pixels(spec: Spec, name: str, own: int, multiple: int) -> int:
    given = spec.get(name)
    if given is None:
        return own
    if isinstance(given, bool) or not isinstance(given, int) or given < multiple or given % multiple:
        raise InputError(
            f"model.{name}={given!r} is not valid: give a multiple of {multiple}, or null for the model's own {own}"
        )
    return given


def _way(spec: Spec, known: Facts) -> str:
    """How guidance is done: the customary way of the model, or another that it has."""
    given = spec.get("guidance") or known.ways[0]
    if given not in known.ways:
        raise InputError(f"model.guidance={given!r} is not valid for this model; valid: {', '.join(known.ways)}")
    return given


def check_scale(name: str, way: str, guidance: Guidance) -> None:
    """InputError for a scale that a pipeline would not follow."""
    scale = guidance.scale
    if way in (families.CFG, families.TRUE) and scale < 1:
        raise InputError(f"cfg={scale:g}: the pipeline of model {name} does no guidance below 1; give 1 (off) or more")
    if way == families.NONE and scale != 1:
        raise InputError(f"cfg={scale:g}: model {name} has no guidance; give cfg=1")
    if guidance.threshold != "none":
        raise InputError(f"guidance.threshold={guidance.threshold} is not for a pipeline: set it to none")
