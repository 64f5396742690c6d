"""Noise levels: how much signal (α) and noise (σ) a state holds, and the model time that belongs to it.

A state is x = α·x0 + σ·ε. Everything a schedule or a solver needs to know about a model's forward process is in
`Process`; a schedule turns it into `NoiseLevels`, the N+1 levels that N steps walk through. float64 throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np


class Level(NamedTuple):
    """One noise level: the state is alpha·x0 + sigma·ε and the model is told `time` (a timestep, may be fractional).

    >>> Level(alpha=0.8, sigma=0.6, time=400).ratio
    0.7499999999999999
    """

    alpha: float
    sigma: float
    time: float

    @property
    def ratio(self) -> float:
        """σ/α, the σ of Karras et al. (2206.00364), the same for every scaling of the state; +inf for pure noise."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def lam(self) -> float:
        """λ = log(α/σ), half the log signal-to-noise ratio; +inf for a clean state, −inf for pure noise."""
        if self.alpha == 0 or self.sigma == 0:
            return math.inf if self.sigma == 0 else -math.inf
        return math.log(self.alpha / self.sigma)


@dataclass(frozen=True, eq=False)
class Process:
    """Forward process of a model trained at discrete timesteps: ratio σ/α by timestep, (T,), increasing.

    Between timesteps log(ratio) is linear in time, as k-diffusion has it. Subclasses say how the state is scaled.
    """

    table: np.ndarray
    _log_table: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = np.asarray(self.table, np.float64)
        if table.ndim != 1 or len(table) < 2 or not (np.diff(table) > 0).all() or not table[0] > 0:
            raise ValueError("a process needs noise-to-signal ratios above 0 that grow with the timestep")
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "_log_table", np.log(table))

    @property
    def train_steps(self) -> int:
        """T, the training timesteps: what the strides of the classical schedules divide."""
        return len(self.table)

    @property
    def time_min(self) -> float:
        """What the model is told at its lowest trained level."""
        return 0.0

    @property
    def time_max(self) -> float:
        """What the model is told at the noisiest trained level of the table."""
        return self.time_min + len(self.table) - 1

    @property
    def ratio_min(self) -> float:
        return float(self.table[0])

    @property
    def ratio_max(self) -> float:
        return float(self.table[-1])

    def ratio(self, time):
        """σ/α at a (fractional) timestep or an array of them; clipped to the trained range."""
        return np.exp(np.interp(time, np.arange(self.train_steps), self._log_table))

    def time(self, ratio):
        """The timestep at which the ratio is reached; clipped to the trained range, so 0 for a clean state."""
        return np.interp(np.log(np.maximum(ratio, 1e-300)), self._log_table, np.arange(self.train_steps))

    def noise(self, ratio):
        """The ratio as it is written for this kind of process: σ/α itself, or t of a rectified flow."""
        return ratio

    def ratio_of_noise(self, noise):
        return noise

    def scale(self, ratio) -> tuple[Any, Any]:
        """(α, σ) of a state whose noise-to-signal ratio is `ratio`."""
        raise TypeError(f"{type(self).__name__} does not say how its state is scaled: use DiscreteVP or DiscreteVE")

    def level(self, ratio: float) -> Level:
        alpha, sigma = self.scale(ratio)
        return Level(float(alpha), float(sigma), float(self.time(ratio)))


class DiscreteVP(Process):
    """Variance-preserving state, α² + σ² = 1: Stable Diffusion and its kin. The state is the model's input as it is."""

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod) -> DiscreteVP:
        """ᾱ (T,), falling, as training schedules give it.

        A terminal ᾱ of 0 (zero terminal SNR, 2305.08891) is held at 2⁻²⁴, as in diffusers, so that levels stay finite,
        and at a quarter of the ᾱ before where that is lower still, so that they grow.
        """
        cumprod = falling(np.array(alphas_cumprod, np.float64))
        if cumprod[-1] <= 0:
            cumprod[-1] = 2.0**-24 if cumprod[-2] > 2.0**-24 else cumprod[-2] / 4
        return cls(np.sqrt((1 - cumprod) / cumprod))

    @classmethod
    def trained(
        cls,
        training_schedule: str = "scaled_linear",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        train_steps: int = 1000,
        zero_terminal_snr: bool = False,
    ) -> DiscreteVP:
        """The process of a named training schedule (`alphas_cumprod`); the defaults are Stable Diffusion's."""
        return cls.from_alphas_cumprod(
            alphas_cumprod(training_schedule, beta_start, beta_end, train_steps, zero_terminal_snr)
        )

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, train_steps: int = 1000) -> DiscreteVP:
        """√β linear in time: the training schedule of Stable Diffusion."""
        return cls.trained("scaled_linear", start, end, train_steps)

    def scale(self, ratio):
        alpha = 1 / np.sqrt(1 + np.square(ratio))
        return alpha, ratio * alpha

    def ve(self) -> DiscreteVE:
        """The same process seen by a state of unscaled signal, as k-diffusion steps it."""
        return DiscreteVE(self.table)


class DiscreteVE(Process):
    """Variance-exploding state, α = 1: x = x0 + σ·ε (2206.00364)."""

    @classmethod
    def edm(cls, sigma_min: float = 0.002, sigma_max: float = 80.0, train_steps: int = 1000) -> DiscreteVE:
        """σ continuous between the ends that EDM trains and samples (2206.00364, table 1).

        Time runs evenly with log σ, so it is exact between table entries too; a network conditioned on ln(σ)/4
        takes that from the level's σ.
        """
        return cls(np.geomspace(sigma_min, sigma_max, train_steps))

    def scale(self, ratio):
        return np.ones_like(ratio), np.asarray(ratio, np.float64)


class RectifiedFlow(Process):
    """Rectified flow, x = (1 − t)·x0 + t·ε (2209.03003, 2403.03206): σ/α = t/(1 − t), and the model is told T·t.

    The table holds t = 1/T … (T−1)/T. Levels between and outside are exact; t = 1 is pure noise (ratio = inf), which
    is trained as well but may only stand first.
    """

    def __init__(self, train_steps: int = 1000) -> None:
        t = np.arange(1, train_steps) / train_steps
        super().__init__(t / (1 - t))

    @property
    def train_steps(self) -> int:
        return len(self.table) + 1

    @property
    def time_min(self) -> float:
        return 1.0

    def ratio(self, time):
        """σ/α at the time T·t, 0 to T; inf at T."""
        return self.ratio_of_noise(np.clip(np.asarray(time, np.float64) / self.train_steps, 0, 1))

    def time(self, ratio):
        """T·t at which the ratio is reached: 0 for a clean state, T for pure noise."""
        return self.train_steps * self.noise(ratio)

    def noise(self, ratio):
        return self.scale(ratio)[1]

    def ratio_of_noise(self, noise):
        with np.errstate(divide="ignore"):
            return noise / (1 - np.asarray(noise, np.float64))

    def scale(self, ratio):
        ratio = np.asarray(ratio, np.float64)
        alpha = 1 / (1 + ratio)
        # t = ratio/(1 + ratio) where that is well conditioned, 1 − α where the ratio is large or infinite.
        return alpha, np.where(ratio < 1, np.where(np.isinf(ratio), 0, ratio) * alpha, 1 - alpha)


TRAINING_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def alphas_cumprod(
    training_schedule: str, beta_start: float, beta_end: float, train_steps: int, zero_terminal_snr: bool = False
) -> np.ndarray:
    """ᾱ (T,) float64 of the training schedules that diffusers names; β is not used by `squaredcos_cap_v2`.

    ValueError for an unknown name, and unless 0 < beta_start ≤ beta_end ≤ 1.
    """
    if training_schedule in ("linear", "scaled_linear") and not 0 < beta_start <= beta_end <= 1:
        raise ValueError(
            f"beta_start={beta_start!r} and beta_end={beta_end!r} are not valid: β is the share of noise that a "
            "timestep adds, so give 0 < beta_start ≤ beta_end ≤ 1"
        )
    if training_schedule == "linear":  # 2006.11239
        betas = np.linspace(beta_start, beta_end, train_steps)
    elif training_schedule == "scaled_linear":  # 2112.10752
        betas = np.linspace(beta_start**0.5, beta_end**0.5, train_steps) ** 2
    elif training_schedule == "squaredcos_cap_v2":  # 2102.09672, eq. 17
        bar = np.cos((np.linspace(0, 1, train_steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    else:
        raise ValueError(f"training schedule {training_schedule!r} is unknown; valid: {', '.join(TRAINING_SCHEDULES)}")
    cumprod = np.cumprod(1 - betas)
    return rescaled_to_zero_snr(cumprod) if zero_terminal_snr else cumprod


def falling(cumprod: np.ndarray) -> np.ndarray:
    """ᾱ (T,) as it is; ValueError unless it falls from below 1 to 0 at least, as it does where every β is above 0."""
    fine = cumprod.ndim == 1 and len(cumprod) > 1 and 0 < cumprod[0] < 1
    if not fine or not (np.diff(cumprod) < 0).all() or not cumprod[-2] > 0 or not np.isfinite(cumprod[-1]):
        raise ValueError(
            "the signal that is left (alphas_cumprod) must fall at every timestep, from below 1 to 0 or above: every β "
            "of the training schedule must be above 0 and at most 1"
        )
    return cumprod


def rescaled_to_zero_snr(cumprod: np.ndarray) -> np.ndarray:
    """ᾱ (T,) with √ᾱ shifted to end in 0 and scaled to keep its first value (2305.08891, algorithm 1)."""
    root = np.sqrt(falling(cumprod))
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """The N+1 levels of N steps, noisiest first; float64 arrays (N+1,).

    σ/α falls strictly; it may end in 0 (clean) and begin at inf (pure noise, α = 0).
    """

    alpha: np.ndarray
    sigma: np.ndarray
    time: np.ndarray
    process: Process

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "time"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if not (self.alpha.shape == self.sigma.shape == self.time.shape == (len(self.alpha),)) or len(self.alpha) < 2:
            raise ValueError("noise levels are three arrays of one length, at least 2 (one step)")
        self._check_order()

    def _check_order(self) -> None:
        if not (np.isfinite(self.alpha).all() and np.isfinite(self.sigma).all() and (self.alpha[1:] > 0).all()):
            raise ValueError("noise levels must be finite and, after the first, hold some signal (alpha > 0)")
        if not (self.alpha[0] >= 0 and self.sigma[0] > 0):
            raise ValueError("the first noise level must hold noise (sigma > 0) and no negative signal")
        falls = self.ratio[1:] < self.ratio[:-1] * (1 - 1e-9)
        if not falls.all():
            k = int(np.argmin(falls))
            raise ValueError(
                f"noise levels must fall at every step, but level {k + 1} (σ/α={self.ratio[k + 1]:.6g}) does not lie "
                f"below level {k} ({self.ratio[k]:.6g}): take fewer steps, or another end or offset of the schedule"
            )

    @classmethod
    def from_ratios(cls, process: Process, ratios, times=None) -> NoiseLevels:
        """Levels at the given σ/α; `times` only where the model is to be told something else than they imply."""
        ratios = np.asarray(ratios, np.float64)
        alpha, sigma = process.scale(ratios)
        return cls(alpha, sigma, process.time(ratios) if times is None else times, process)

    @property
    def ratio(self) -> np.ndarray:
        """σ/α (N+1,); the first may be inf."""
        with np.errstate(divide="ignore"):
            return self.sigma / self.alpha

    @property
    def steps(self) -> int:
        return len(self.alpha) - 1

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, k: int) -> Level:
        return Level(float(self.alpha[k]), float(self.sigma[k]), float(self.time[k]))

    def from_(self, start: int) -> NoiseLevels:
        """The tail that begins at level `start`: where img2img enters. At least one step must be left."""
        if not 0 <= start < self.steps:
            raise ValueError(f"start level {start} leaves no step: choose 0 to {self.steps - 1}")
        return replace(self, alpha=self.alpha[start:], sigma=self.sigma[start:], time=self.time[start:])

    def noisy(self) -> NoiseLevels:
        """Without a last level that is clean: there is no way back from one, as x0 does not tell what noise it had."""
        if self.sigma[-1] > 0:
            return self
        if self.steps == 1:
            raise ValueError("a single step to a clean state has no way back: take more steps, or end at sigma_min")
        return replace(self, alpha=self.alpha[:-1], sigma=self.sigma[:-1], time=self.time[:-1])

    def rising(self) -> RisingLevels:
        """The same levels from the last to the first: the way of an inversion. ValueError where the last is clean."""
        return RisingLevels(self.alpha[::-1], self.sigma[::-1], self.time[::-1], self.process)


@dataclass(frozen=True, eq=False)
class RisingLevels(NoiseLevels):
    """Levels whose σ/α grows at every step, from one that holds noise: solvers plan on them as on any others."""

    def _check_order(self) -> None:
        if not (np.isfinite(self.alpha).all() and np.isfinite(self.sigma).all() and (self.alpha > 0).all()):
            raise ValueError("levels that rise must be finite and hold some signal (alpha > 0): start below pure noise")
        if not self.sigma[0] > 0:
            raise ValueError("levels that rise must begin with some noise (sigma > 0): end the schedule at sigma_min")
        if not (self.ratio[1:] > self.ratio[:-1]).all():
            raise ValueError("levels that rise must rise at every step")
