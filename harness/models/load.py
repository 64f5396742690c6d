"""From the plain values of conf/model/NAME.yaml to a `LatentModel`. Only `load` itself imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from harness import paths
from harness.cell import PRECISIONS
from harness.errors import InputError, nearest
from harness.models import locate, mixture
from harness.models.files import read_json
from harness.models.locate import Facts, Spec, facts, place
from samplers.core.levels import TRAINING_SCHEDULES, DiscreteVP, Process, RectifiedFlow, falling, rescaled_to_zero_snr
from samplers.core.levels import alphas_cumprod as of_training

if TYPE_CHECKING:
    import torch

    from harness.models.analytic import AnalyticModel
    from harness.models.latent import LatentModel

__all__ = ["alphas_cumprod", "check", "fingerprint", "load", "named", "process"]

CONF = paths.CONF / "model"

KINDS = ("latent", "analytic")
KEYS = (
    "name",
    "kind",
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
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")
# What they are also called.
OTHER_NAMES = {
    **dict.fromkeys(("v", "vprediction", "v_pred", "velocity"), "v_prediction"),
    **dict.fromkeys(("eps", "epsilon_prediction", "eps_prediction"), "epsilon"),
    **dict.fromkeys(("x0", "x_0", "sample_prediction"), "sample"),
}


def named(name: str, **changes: Any) -> Spec:
    """The values of conf/model/NAME.yaml with these changes."""
    valid = [path.stem for path in CONF.glob("*.yaml")]
    if name not in valid:
        raise InputError(f"model={name!r} is unknown; {nearest(name, valid)}")
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")), **changes}


def check(spec: Spec, task: str | None = None) -> Facts | None:
    """Everything that can be wrong with a model before it is loaded, as one InputError; without torch.

    What its files say of it, None for an analytic model, which has none.
    """
    if is_analytic(spec):
        return mixture.check(spec, task)
    for key in spec:
        if key not in KEYS:
            raise InputError(f"model.{key} is unknown; {nearest(key, KEYS)}")
    _one_of(spec, "time", TIMES, "continuous")
    _one_of(spec, "vae_precision", ("same", *PRECISIONS), "same")
    known = facts(spec)
    _check_noise(spec)
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


def check_use(spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str = "") -> None:
    """What is wrong with a model only together with these data, this precision or this negative prompt: InputError."""
    if is_analytic(spec):
        mixture.check_use(spec, data, precision, negative_prompt)
    elif data["name"] == "classes":
        raise InputError(f"data=classes has no captions and no images: it is for model=gmm, not {spec.get('name')}")


def is_analytic(spec: Spec) -> bool:
    """Whether the model is a formula (harness/models/analytic.py) and no network."""
    return _one_of(spec, "kind", KINDS, "latent") == "analytic"


def fingerprint(spec: Spec) -> str:
    """16 hexadecimal digits that change with the weights or, of an analytic model, with its numbers."""
    return mixture.fingerprint(spec) if is_analytic(spec) else locate.fingerprint(spec)


def load(spec: Spec, precision: str, device: str) -> LatentModel | AnalyticModel:
    """The model on `device`: text encoder, UNet and VAE in `precision` (the VAE in `model.vae_precision`)."""
    known = check(spec)
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not valid; {nearest(precision, PRECISIONS)}")
    if known is None:
        return _analytic(spec, precision, device)
    from harness.models.latent import LatentModel
    from harness.models.networks import load_parts

    found, noise = place(spec, weights=True), _noise(spec)
    dtype = _dtype(precision)
    same = spec.get("vae_precision") in (None, "same")
    return LatentModel(
        name=str(spec.get("name")),
        parts=load_parts(spec, found, dtype, dtype if same else _dtype(spec["vae_precision"]), device),
        process=_process(noise),
        prediction_type=_predicts(spec, noise),
        size=known.size,
        rounded_time=spec.get("time") == "rounded",
    )


def _analytic(spec: Spec, precision: str, device: str) -> AnalyticModel:
    from harness.models.analytic import AnalyticModel

    mixture.check_precision(spec, precision)
    numbers, how = mixture.mixture(spec), mixture.process(spec)
    return AnalyticModel(str(spec.get("name")), numbers, how, _dtype(precision), device)


def process(spec: Spec) -> Process:
    """The model's forward process, known before it is loaded: noise levels are checked against it. Without torch."""
    if is_analytic(spec):
        return mixture.process(spec)
    return _process(_noise(spec))


def _noise(spec: Spec) -> dict[str, Any]:
    """The configuration of the noise that the model was trained with."""
    return read_json(place(spec, weights=False).folder / "scheduler" / "scheduler_config.json")


FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def _is_flow(noise: Mapping[str, Any]) -> bool:
    told = noise.get("prediction_type")
    return noise.get("_class_name") in FLOW_SCHEDULERS or (bool(told) and _canonical(told) == "flow_prediction")


def _process(noise: Mapping[str, Any]) -> Process:
    if _is_flow(noise):
        return RectifiedFlow(_train_steps(noise))
    return DiscreteVP.from_alphas_cumprod(alphas_cumprod(noise))


def _predicts(spec: Spec, noise: Mapping[str, Any]) -> str:
    """The prediction type: what the spec says, else the scheduler's configuration. InputError where they cannot fit."""
    told = spec.get("prediction_type") or noise.get("prediction_type")
    given = _canonical(told) if told else "flow_prediction" if _is_flow(noise) else "epsilon"
    if given not in PREDICTION_TYPES:
        where = "model.prediction_type" if spec.get("prediction_type") else "prediction_type in scheduler_config.json"
        raise InputError(
            f"model {spec.get('name')}: {where} is {told!r}, which is not known; {nearest(given, PREDICTION_TYPES)}"
        )
    if (given == "flow_prediction") != _is_flow(noise):
        raise InputError(
            f"model {spec.get('name')}: prediction_type={given} does not go with its scheduler "
            f"{noise.get('_class_name')}: flow_prediction is of rectified-flow models, the others of diffusion models"
        )
    return given


def _canonical(told: Any) -> str:
    """A prediction type as it is called here: `v-prediction`, `V_Prediction`, `v` and `velocity` are one."""
    words = "_".join(str(told).lower().replace("-", " ").replace("_", " ").split())
    return OTHER_NAMES.get(words, words)


def _check_noise(spec: Spec) -> None:
    """How noise is predicted is known, fits the scheduler, and can be done at every level."""
    noise = _noise(spec)
    predicts = _predicts(spec, noise)
    if predicts == "epsilon" and (noise.get("rescale_betas_zero_snr") or alphas_cumprod(noise)[-1] <= 0):
        raise InputError(
            f"model {spec.get('name')}: its scheduler_config.json says zero terminal SNR and prediction_type=epsilon, "
            "which cannot be: pure noise tells nothing of the image. Set rescale_betas_zero_snr to false there or, if "
            "the model was trained so, model.prediction_type=v_prediction"
        )


MOST_TRAIN_STEPS = 1_000_000  # the table of levels is held in memory


def alphas_cumprod(noise: Mapping[str, Any]) -> np.ndarray:
    """ᾱ (T,) float64 of a scheduler's configuration; the defaults of absent keys are those of diffusers."""
    try:
        return _alphas_cumprod(noise)
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"a value in the model's scheduler_config.json is not valid: {error}") from error


def _train_steps(noise: Mapping[str, Any]) -> int:
    given = noise.get("num_train_timesteps", 1000)
    if isinstance(given, bool) or not isinstance(given, int) or not 2 <= given <= MOST_TRAIN_STEPS:
        raise InputError(f"the model's scheduler has num_train_timesteps={given!r}: 2 to {MOST_TRAIN_STEPS} can be")
    return given


def _alphas_cumprod(noise: Mapping[str, Any]) -> np.ndarray:
    zero_snr = bool(noise.get("rescale_betas_zero_snr"))
    if noise.get("trained_betas") is not None:
        cumprod = falling(np.cumprod(1 - np.asarray(noise["trained_betas"], np.float64)))
        return rescaled_to_zero_snr(cumprod) if zero_snr else cumprod
    kind = noise.get("beta_schedule", "linear")
    if kind not in TRAINING_SCHEDULES:
        raise InputError(f"the model's scheduler has beta_schedule={kind!r}; {nearest(kind, TRAINING_SCHEDULES)}")
    start, end = float(noise.get("beta_start", 1e-4)), float(noise.get("beta_end", 0.02))
    return of_training(kind, start, end, _train_steps(noise), zero_snr)


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _one_of(spec: Spec, key: str, valid: tuple[str, ...], default: str) -> str:
    given = spec.get(key, default)
    if given not in valid:
        raise InputError(f"model.{key}={given!r} is not valid; {nearest(str(given), valid)}")
    return given
