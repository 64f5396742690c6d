"""What a scheduler of diffusers says of the model it came with: process, prediction, scaling, and the levels it walks.

Only schedulers on the list are known. What is not known is refused: a scheduler that means something else by its
numbers would run, on wrong levels, and nobody would see it. The levels themselves are asked of the scheduler
(`set_timesteps`), so every option of it that spaces them counts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch

from samplers.core.levels import (
    TRAINING_SCHEDULES,
    DiscreteVP,
    Level,
    NoiseLevels,
    Process,
    RectifiedFlow,
    alphas_cumprod,
)

SHORTEST = 1e-8  # relative: a last step of length 0, as DDIM's without steps_offset, is made this long
SAME_TABLE = 1e-4  # relative: float32 cumulative products are off by 1e-5


@dataclass(frozen=True)
class Kind:
    """How a class of diffusers keeps its state, and what it makes of its configuration."""

    state: str  # ve: x0 + σ·ε; edm: the same, seen through EDM's preconditioning; vp; flow
    levels: str = "sigmas"  # where its levels are read; else how the walk over ᾱ ends: stride, clean, lowest
    clips: bool = False  # honours clip_sample
    thresholds: bool = False  # honours thresholding


_OVER_TIMESTEPS = Kind("vp", "stride", clips=True, thresholds=True)
_TO_CLEAN = Kind("vp", "clean", clips=True, thresholds=True)
_MULTISTEP = Kind("vp", thresholds=True)
KINDS: dict[str, Kind] = {
    "CogVideoXDDIMScheduler": Kind("vp", "stride"),
    "CogVideoXDPMScheduler": Kind("vp", "stride"),
    "DDIMParallelScheduler": _OVER_TIMESTEPS,
    "DDIMScheduler": _OVER_TIMESTEPS,
    "DDPMParallelScheduler": _TO_CLEAN,
    "DDPMScheduler": _TO_CLEAN,
    "DEISMultistepScheduler": _MULTISTEP,
    "DPMSolverMultistepScheduler": _MULTISTEP,
    "DPMSolverSDEScheduler": Kind("ve"),
    "DPMSolverSinglestepScheduler": _MULTISTEP,
    "EDMDPMSolverMultistepScheduler": Kind("edm", thresholds=True),
    "EDMEulerScheduler": Kind("edm"),
    "EulerAncestralDiscreteScheduler": Kind("ve"),
    "EulerDiscreteScheduler": Kind("ve"),
    "FlowMatchEulerDiscreteScheduler": Kind("flow"),
    "FlowMatchHeunDiscreteScheduler": Kind("flow"),
    "FlowMatchLCMScheduler": Kind("flow"),
    "HeunDiscreteScheduler": Kind("ve", clips=True),
    "KDPM2AncestralDiscreteScheduler": Kind("ve"),
    "KDPM2DiscreteScheduler": Kind("ve"),
    "LCMScheduler": _TO_CLEAN,
    "LMSDiscreteScheduler": Kind("ve"),
    "PNDMScheduler": Kind("vp", "stride"),
    "SASolverScheduler": _MULTISTEP,
    "TCDScheduler": Kind("vp", "lowest"),
    "UniPCMultistepScheduler": _MULTISTEP,
}
PREDICTIONS = {
    "vp": ("epsilon", "v_prediction", "sample"),
    "ve": ("epsilon", "v_prediction", "sample"),
    "edm": ("epsilon", "v_prediction"),
    "flow": ("flow_prediction",),
}


class Laid(NamedTuple):
    """Levels, and what the model is told at each of them and at any level between."""

    levels: NoiseLevels
    told: Callable[[Level], float]
    given: bool = False  # by timesteps= or sigmas=: a pipeline then counts calls where it says steps


class Replaced:
    """One scheduler, read. `scheduler` is ours alone: it is asked for levels and never steps."""

    def __init__(self, name: str, config: Mapping[str, Any], scheduler: Any = None) -> None:
        if name not in KINDS:
            raise ValueError(
                f"{name} is not a scheduler whose levels are known: it is not replaced; known: {', '.join(KINDS)}"
            )
        self.name, self.kind = name, KINDS[name]
        self.scheduler = _built(name, config) if scheduler is None else scheduler
        self.config = self.scheduler.config
        self.flow = self.kind.state == "flow" or bool(self.config.get("use_flow_sigmas"))
        self.state = "flow" if self.flow else self.kind.state
        self.inverted = bool(self.config.get("invert_sigmas"))
        self.prediction = self.config.get("prediction_type", "flow_prediction")
        self._check()
        self.process = self._process()
        # EDM's networks, and Stable Video Diffusion's, are told ln(σ)/4 in place of a timestep.
        continuous = self.config.get("timestep_type") == "continuous" and self.prediction == "v_prediction"
        self.told: Callable[[Level], float] = _quarter_log if self.state == "edm" or continuous else _time

    def _check(self) -> None:
        if self.prediction not in PREDICTIONS[self.state]:
            raise ValueError(
                f"{self.name} with prediction_type={self.prediction!r} is not replaced: for its {self.state} state "
                f"{' or '.join(PREDICTIONS[self.state])} is known"
            )
        for key in ("scale_factors", "per_token_timesteps"):
            if self.config.get(key):
                raise ValueError(f"{self.name} with {key}={self.config[key]!r} is not replaced: set it to null")
        steps = self.config.get("num_train_timesteps")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 3:
            raise ValueError(f"{self.name} with num_train_timesteps={steps!r} is not replaced: at least 3 are needed")

    def _process(self) -> Process:
        config = self.config
        if self.flow:
            return RectifiedFlow(config["num_train_timesteps"])
        low, high = config.get("sigma_min"), config.get("sigma_max")
        if self.state == "edm" or (config.get("timestep_type") == "continuous" and low and high):
            return DiscreteVP(np.geomspace(low, high, config["num_train_timesteps"]))
        return DiscreteVP.from_alphas_cumprod(self._cumprod())

    def _cumprod(self) -> np.ndarray:
        """ᾱ (T,): the scheduler's own float32 table, in float64 where its configuration gives the same numbers."""
        own, config = self.scheduler.alphas_cumprod.double().cpu().numpy(), self.config
        kind = config.get("beta_schedule")
        if config.get("trained_betas") is None and kind in TRAINING_SCHEDULES:
            exact = alphas_cumprod(kind, config.get("beta_start"), config.get("beta_end"), len(own))
            if np.allclose(own, exact, rtol=SAME_TABLE, atol=0):
                return exact
        return own

    # -------------------------------------------------------------------------------------------------- levels

    def lay(
        self,
        steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> Laid:
        """The levels that the scheduler itself would walk, from what a pipeline passes to `set_timesteps`."""
        timesteps, sigmas = _plain(timesteps), _plain(sigmas)
        given = {"timesteps": timesteps, "sigmas": sigmas, "mu": mu}
        given = {key: value for key, value in given.items() if value is not None}
        if timesteps is None and sigmas is None:
            if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
                raise ValueError(f"num_inference_steps={steps!r}: give a whole number of at least 1, or timesteps=")
            given["num_inference_steps"] = int(steps)
        takes = inspect.signature(self.scheduler.set_timesteps).parameters
        if missing := [key for key in given if key not in takes]:
            if self.flow or "mu" in missing or len(given) > 1:
                raise ValueError(f"{self.name} takes no {missing[0]}= in set_timesteps: leave it out")
            return Laid(self._from_given(timesteps, sigmas), self.told, True)
        if sigmas is not None:  # some classes take no list
            given["sigmas"] = torch.tensor(sigmas) if self.state == "edm" else np.array(sigmas)
        self.scheduler.set_timesteps(**given)
        by_call = timesteps is not None or sigmas is not None
        if self.kind.levels == "sigmas":
            levels = self._from_sigmas()
            return Laid(levels, self._told_as(levels), by_call)
        return Laid(self._from_timesteps(given.get("num_inference_steps")), self.told, by_call)

    def _from_sigmas(self) -> NoiseLevels:
        """What lies in the scheduler's `sigmas`: N levels (twice each in a method of two calls) and the end."""
        every = self.scheduler.sigmas.double().cpu().numpy()
        times = self.scheduler.timesteps.double().cpu().numpy()
        every = np.append(every[: len(times)][:: self.scheduler.order], every[-1])
        times = times[:: self.scheduler.order]
        if self.flow:
            t = _shortest(1 - every if self.inverted else every)
            return NoiseLevels(1 - t, t, np.append(times, self.process.time(t[-1] / (1 - t[-1]))), self.process)
        if self.told is _quarter_log:
            times = self.process.time(every[:-1])
        return self._at(every, times)

    def _from_timesteps(self, steps: int | None) -> NoiseLevels:
        """Schedulers that walk over ᾱ by whole timesteps, each to the next one."""
        times = self.scheduler.timesteps.double().cpu().numpy()
        if self.name == "PNDMScheduler":
            times = np.unique(times)[::-1]  # its second timestep comes twice
        cumprod = self.scheduler.alphas_cumprod.double().cpu().numpy()
        return self._at(_ratio(np.append(cumprod[times.astype(int)], self._last(times[-1], steps, cumprod))), times)

    def _last(self, time: float, steps: int | None, cumprod: np.ndarray) -> float:
        """ᾱ where the walk ends."""
        if self.kind.levels == "clean":
            return 1.0
        if self.kind.levels == "lowest":
            return float(cumprod[0])
        below = int(time) - len(cumprod) // steps if steps else -1
        return float(cumprod[below] if below >= 0 else self.scheduler.final_alpha_cumprod)

    def _from_given(self, timesteps: list[float] | None, sigmas: list[float] | None) -> NoiseLevels:
        """Levels that the class has no argument for: σ/α with the end among them, or trained timesteps without it."""
        if sigmas is not None:
            return NoiseLevels.from_ratios(self.process, sigmas)
        times = np.asarray(timesteps, np.float64)
        if len(times) == 0 or times.min() < 0 or times.max() >= self.process.train_steps:
            raise ValueError(f"timesteps={timesteps!r} must lie in 0 to {self.process.train_steps - 1}")
        last = 0.0
        if self.kind.levels != "sigmas":
            last = float(_ratio(self._last(times[-1], None, self.scheduler.alphas_cumprod.double().numpy())))
        return self._at(np.append(self.process.ratio(times), last), times)

    def _at(self, ratios: np.ndarray, times: np.ndarray) -> NoiseLevels:
        ratios = _shortest(ratios)
        with np.errstate(invalid="ignore"):
            alpha, sigma = self.process.scale(ratios)
        sigma = np.where(np.isinf(ratios), 1.0, sigma)  # zero terminal SNR: no signal at all in the first level
        if alpha[0] == 0 and self.prediction == "epsilon":
            raise ValueError(f"{self.name} starts without signal: a model that predicts epsilon says nothing there")
        return NoiseLevels(alpha, sigma, np.append(times, self.process.time(ratios[-1])), self.process)

    def _told_as(self, levels: NoiseLevels) -> Callable[[Level], float]:
        """What the model is told at a level: the times that a flow's pipeline gave beside σ, and between them linear.

        With `invert_sigmas` time grows with the signal.
        """
        t, times = levels.sigma[:-1], levels.time[:-1]
        expected = levels.process.train_steps * t if self.flow else times
        if np.abs(times - expected).max() <= 1.0:  # no more than what a scheduler rounds
            return self.told
        ends = (0.0, float(levels.process.train_steps)) if self.inverted else (0.0, 0.0)
        known = np.append(t[::-1], []), np.append(times[::-1], [])
        if known[0][0] > 0:
            known = np.insert(known[0], 0, ends[0]), np.insert(known[1], 0, ends[1])
        return lambda level: float(np.interp(level.sigma, *known))

    # ---------------------------------------------------------------- scalings; the walk's own state is VP, or flow's

    def x0(self, level: Level) -> tuple[float, float]:
        """(a, b) of x0 = a·x + b·output, for the walk's state x."""
        alpha, sigma = level.alpha, level.sigma
        if self.state == "edm":
            data, r = self.config["sigma_data"], level.ratio
            wide = r * r + data * data
            sign = 1 if self.prediction == "epsilon" else -1
            return data * data / wide / alpha, sign * r * data / math.sqrt(wide)
        return {
            "epsilon": lambda: (1 / alpha, -sigma / alpha),
            "v_prediction": lambda: (alpha, -sigma),
            "sample": lambda: (0.0, 1.0),
            "flow_prediction": lambda: (1.0, sigma if self.inverted else -sigma),
        }[self.prediction]()

    def level_at(self, time: float) -> Level:
        """The trained level at which the model is told `time`."""
        if self.told is _quarter_log:
            return self.process.level(math.exp(4 * time))
        if self.inverted:
            time = self.process.train_steps - time
        return self.process.level(float(self.process.ratio(time)))

    def shown(self, level: Level) -> float:
        """What the walk's state is multiplied by to be what the pipeline holds."""
        return 1 / level.alpha if self.state in ("ve", "edm") else 1.0

    def seen(self, level: Level) -> float:
        """What the pipeline's state is multiplied by to be what the model sees."""
        data = {"ve": 1.0, "edm": self.config.get("sigma_data")}.get(self.state)
        return 1.0 if data is None else 1 / math.hypot(level.ratio, data)

    def noise(self, level: Level) -> float:
        """What the scheduler calls the level's σ."""
        if self.flow:
            return 1 - level.sigma if self.inverted else level.sigma
        return level.ratio

    def start(self, level: Level) -> float:
        """What unit noise is multiplied by to be the pipeline's first state (`init_noise_sigma`)."""
        if self.state not in ("ve", "edm"):
            return 1.0
        at_sigma = self.state == "ve" and self.config.get("timestep_spacing") in ("linspace", "trailing")
        return level.ratio if at_sigma else math.hypot(level.ratio, 1)

    def limit(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the configuration asks to be done to every predicted x0: dynamic thresholding, or clipping."""
        if self.kind.thresholds and self.config.get("thresholding"):
            share, most = self.config["dynamic_thresholding_ratio"], self.config["sample_max_value"]
            return lambda x0: _thresholded(x0, share, most)
        if self.kind.clips and self.config.get("clip_sample"):
            size = self.config.get("clip_sample_range", 1.0)
            return lambda x0: x0.clamp(-size, size)
        return None


def _thresholded(x0: torch.Tensor, share: float, most: float) -> torch.Tensor:
    """Imagen's dynamic thresholding (2205.11487): clip x0 to s, and divide by it.

    s is the percentile `share` of |x0|, one number per image, held between 1 and `most`.
    """
    size = x0.flatten(1).abs().quantile(share, dim=1).clamp(min=1, max=most)
    size = size.view(-1, *(1,) * (x0.ndim - 1))
    return x0.clamp(-size, size) / size


def _built(name: str, config: Mapping[str, Any]) -> Any:
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise ValueError(f"diffusers {diffusers.__version__} has no {name}")
    takes = set(inspect.signature(kind.__init__).parameters) - {"self"}
    settings = {key: value for key, value in config.items() if key in takes}
    if name == "FlowMatchHeunDiscreteScheduler":  # the same levels, from a class that takes sigmas= as well
        kind = diffusers.FlowMatchEulerDiscreteScheduler
    if name == "PNDMScheduler":
        settings["skip_prk_steps"] = True  # its Runge-Kutta start has timesteps between the levels
    return kind(**settings)


def _ratio(cumprod):
    with np.errstate(divide="ignore"):
        return np.sqrt((1 - np.asarray(cumprod)) / np.asarray(cumprod))


def _shortest(noise: np.ndarray) -> np.ndarray:
    """Falling noise whose last step is no shorter than can be planned."""
    if noise[-1] >= noise[-2] * (1 - SHORTEST):
        noise = np.append(noise[:-1], noise[-2] * (1 - SHORTEST))
    return noise


def _plain(values: Any) -> list[float] | None:
    if values is None:
        return None
    return values.tolist() if isinstance(values, (torch.Tensor, np.ndarray)) else list(values)


def _time(level: Level) -> float:
    return level.time


def _quarter_log(level: Level) -> float:
    return math.log(level.ratio) / 4
