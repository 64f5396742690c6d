"""From the plain values of conf/model/NAME.yaml to a `LatentModel`. Only `load` itself imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from harness.cell import PRECISIONS
from harness.errors import InputError, nearest
from harness.models.locate import Facts, Place, Spec, facts, fingerprint, place, read_json, vae_place

if TYPE_CHECKING:
    import torch

    from harness.models.latent import LatentModel

__all__ = ["alphas_cumprod", "check", "fingerprint", "load", "named"]

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"

KEYS = (
    "name",
    "path",
    "unet",
    "vae",
    "config",
    "variant",
    "revision",
    "height",
    "width",
    "time",
    "prediction_type",
    "vae_precision",
    "allow_pickle",
    "default_data",
    "default_cfg",
    "pixel_range",
)
TIMES = ("continuous", "rounded")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def named(name: str, **changes: Any) -> Spec:
    """The values of conf/model/NAME.yaml with these changes."""
    valid = [path.stem for path in CONF.glob("*.yaml")]
    if name not in valid:
        raise InputError(f"model={name!r} is unknown; {nearest(name, valid)}")
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")), **changes}


def check(spec: Spec, task: str | None = None) -> Facts:
    """Everything that can be wrong with a model before it is loaded, as one InputError; without torch."""
    for key in spec:
        if key not in KEYS:
            raise InputError(f"model.{key} is unknown; {nearest(key, KEYS)}")
    _one_of(spec, "time", TIMES, "continuous")
    _one_of(spec, "vae_precision", ("same", *PRECISIONS), "same")
    if spec.get("prediction_type") is not None:
        _one_of(spec, "prediction_type", PREDICTION_TYPES, "epsilon")
    known = facts(spec)
    extra = known.in_channels - known.latent_channels
    if extra not in (0, 1 + known.latent_channels):
        raise InputError(
            f"model {spec.get('name')}: its UNet has {known.in_channels} input channels; known are "
            f"{known.latent_channels} (text to image) and {2 * known.latent_channels + 1} (inpainting)"
        )
    if task is not None and extra and task != "inpaint":
        raise InputError(
            f"model {spec.get('name')} is an inpainting model ({known.in_channels} input channels): use it with "
            f"task=inpaint, or take a model with {known.latent_channels} input channels for task={task}"
        )
    return known


def load(spec: Spec, precision: str, device: str) -> LatentModel:
    """The model on `device`: text encoder, UNet and VAE in `precision` (the VAE in `model.vae_precision`)."""
    known = check(spec)
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not valid; {nearest(precision, PRECISIONS)}")
    from harness.models.latent import LatentModel
    from samplers.levels import DiscreteVP

    found = place(spec, weights=True)
    dtype = _dtype(precision)
    same = spec.get("vae_precision") in (None, "same")
    parts, noise = _parts(spec, found, dtype, dtype if same else _dtype(spec["vae_precision"]), device)
    return LatentModel(
        name=str(spec.get("name")),
        parts=parts,
        process=DiscreteVP.from_alphas_cumprod(alphas_cumprod(noise)),
        prediction_type=spec.get("prediction_type") or noise.get("prediction_type") or "epsilon",
        size=known.size,
        rounded_time=spec.get("time") == "rounded",
    )


def alphas_cumprod(noise: Mapping[str, Any]) -> np.ndarray:
    """ᾱ (T,) float64 of a scheduler's configuration; the defaults of absent keys are those of diffusers."""
    steps = int(noise.get("num_train_timesteps", 1000))
    start, end = float(noise.get("beta_start", 1e-4)), float(noise.get("beta_end", 0.02))
    kind = noise.get("beta_schedule", "linear")
    if noise.get("trained_betas") is not None:
        betas = np.asarray(noise["trained_betas"], np.float64)
    elif kind == "linear":
        betas = np.linspace(start, end, steps)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, steps) ** 2
    elif kind == "squaredcos_cap_v2":  # 2102.09672, eq. 17
        bar = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    else:
        known = ("linear", "scaled_linear", "squaredcos_cap_v2")
        raise InputError(f"the model's scheduler has beta_schedule={kind!r}; {nearest(kind, known)}")
    cumprod = np.cumprod(1 - betas)
    if noise.get("rescale_betas_zero_snr"):  # 2305.08891, algorithm 1: shift √ᾱ to end in 0, keep its first value
        root = np.sqrt(cumprod)
        cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return cumprod


def _parts(
    spec: Spec, found: Place, dtype: torch.dtype, vae_dtype: torch.dtype, device: str
) -> tuple[Any, dict[str, Any]]:
    """The networks, and the configuration of the noise they were trained with."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from harness.models.latent import Parts

    safe = None if spec.get("allow_pickle") else True
    here = {"local_files_only": True, "use_safetensors": safe, "output_loading_info": True}
    own = {"variant": spec.get("variant"), **here}
    folder, vae = found.folder, None
    with _quiet():
        if found.file:
            unet, vae, text_encoder = _from_single_file(found, dtype)
        else:
            subfolder = spec.get("unet") or "unet"
            unet = _whole(UNet2DConditionModel.from_pretrained(folder, subfolder=subfolder, torch_dtype=dtype, **own))
            text_encoder = _whole(CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=dtype, **own))
        if vae is None or spec.get("vae"):
            where, subfolder = vae_place(spec, weights=True)
            own["variant"] = _vae_variant(where / (subfolder or "")) if spec.get("vae") else spec.get("variant")
            vae = _whole(AutoencoderKL.from_pretrained(where, subfolder=subfolder, torch_dtype=vae_dtype, **own))
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
        # channels_last: convolutions take it faster (figures in latent.py).
        fast = torch.channels_last
        parts = Parts(
            unet=unet.to(device).to(memory_format=fast),
            vae=vae.to(device).to(vae_dtype).to(memory_format=fast),
            text_encoder=text_encoder.to(device),
            tokenizer=tokenizer,
        )
    return parts, read_json(folder / "scheduler" / "scheduler_config.json")


def _whole(loaded: tuple[Any, dict[str, Any]]) -> Any:
    """The network, if its files held every weight: a missing one would be left at random values."""
    network, info = loaded
    missing = [*info["missing_keys"], *(str(key) for key in info.get("mismatched_keys", []))]
    if missing:
        raise InputError(
            f"the weights of {type(network).__name__} do not fit its config.json: {len(missing)} tensors are missing "
            f"or of another shape, {missing[0]} first; fetch the model again, or the right model.variant"
        )
    return network


def _from_single_file(found: Place, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_single_file(
        str(found.file), config=str(found.folder), torch_dtype=dtype, local_files_only=True, safety_checker=None
    )
    return pipe.unet, pipe.vae, pipe.text_encoder


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and hints of the libraries while weights load: the sweep shows its own, errors still raise."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [library.get_verbosity() for library in (of_diffusers, of_transformers)]
    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip((of_diffusers, of_transformers), before, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()


def _vae_variant(folder: Path) -> str | None:
    """A VAE from elsewhere has the variants that it has: the plain file, else the first other."""
    files = sorted(path.name for path in folder.glob("diffusion_pytorch_model*.safetensors"))
    if "diffusion_pytorch_model.safetensors" in files or not files:
        return None
    return files[0].split(".")[1]


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _one_of(spec: Spec, key: str, valid: tuple[str, ...], default: str) -> None:
    given = spec.get(key, default)
    if given not in valid:
        raise InputError(f"model.{key}={given!r} is not valid; {nearest(str(given), valid)}")
