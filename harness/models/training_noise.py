"""What a scheduler_config.json says: the forward process of a diffusers model, and what it predicts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.errors import InputError, nearest
from harness.models.base import Spec
from samplers.core.levels import TRAINING_SCHEDULES, DiscreteVP, Process, RectifiedFlow, falling, rescaled_to_zero_snr
from samplers.core.levels import alphas_cumprod as of_training

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")
# What they are also called.
OTHER_NAMES = {
    **dict.fromkeys(("v", "vprediction", "v_pred", "velocity"), "v_prediction"),
    **dict.fromkeys(("eps", "epsilon_prediction", "eps_prediction"), "epsilon"),
    **dict.fromkeys(("x0", "x_0", "sample_prediction"), "sample"),
}
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def _is_flow(noise: Mapping[str, Any]) -> bool:
    told = noise.get("prediction_type")
    return noise.get("_class_name") in FLOW_SCHEDULERS or (bool(told) and _canonical(told) == "flow_prediction")


def process(noise: Mapping[str, Any]) -> Process:
    if _is_flow(noise):
        return RectifiedFlow(_train_steps(noise))
    return DiscreteVP.from_alphas_cumprod(alphas_cumprod(noise))


def predicts(spec: Spec, noise: Mapping[str, Any]) -> str:
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


def check(spec: Spec, noise: Mapping[str, Any]) -> None:
    """How noise is predicted is known, fits the scheduler, and can be done at every level."""
    predicted = predicts(spec, noise)
    if predicted == "epsilon" and (noise.get("rescale_betas_zero_snr") or alphas_cumprod(noise)[-1] <= 0):
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
