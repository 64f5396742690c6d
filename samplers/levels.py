"""Noise levels: how much signal (α) and noise (σ) a state holds, and the model time that belongs to it.

A state is x = α·x0 + σ·ε. Everything a schedule or a solver needs to know about a model's forward process is in
`Process`; a schedule turns it into `NoiseLevels`, the N+1 levels that N steps walk through. float64 throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


class Level(NamedTuple):
    """One noise level: the state is alpha·x0 + sigma·ε and the model is told `time` (a timestep, may be fractional)."""

    alpha: float
    sigma: float
    time: float

    @property
    def ratio(self) -> float:
        """σ/α, the σ of Karras et al. (2206.00364): the same number for every scaling of the state."""
        return self.sigma / self.alpha

    @property
    def lam(self) -> float:
        """λ = log(α/σ), half the log signal-to-noise ratio; +inf for a clean state."""
        return math.inf if self.sigma == 0 else math.log(self.alpha / self.sigma)


@dataclass(frozen=True, eq=False)
class Process:
    """Forward process of a model trained at discrete timesteps: ratio σ/α by timestep, (T,), increasing.

    Between timesteps log(ratio) is linear in time, as k-diffusion has it. Subclasses say how the state is scaled.
    """

    table: np.ndarray

    def __post_init__(self) -> None:
        table = np.asarray(self.table, np.float64)
        if table.ndim != 1 or len(table) < 2 or not (np.diff(table) > 0).all() or not table[0] > 0:
            raise ValueError("a process needs noise-to-signal ratios above 0 that grow with the timestep")
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "_log_table", np.log(table))

    @property
    def train_steps(self) -> int:
        return len(self.table)

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

    def scale(self, ratio):
        """(α, σ) of a state whose noise-to-signal ratio is `ratio`."""
        raise TypeError(f"{type(self).__name__} does not say how its state is scaled: use DiscreteVP or DiscreteVE")

    def level(self, ratio: float) -> Level:
        alpha, sigma = self.scale(ratio)
        return Level(float(alpha), float(sigma), float(self.time(ratio)))


class DiscreteVP(Process):
    """Variance-preserving state, α² + σ² = 1: Stable Diffusion and its kin. The state is the model's input as it is."""

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod) -> DiscreteVP:
        """ᾱ (T,) as training schedules give it. A zero terminal SNR (2305.08891) is held at ᾱ = 2⁻²⁴: finite levels."""
        cumprod = np.maximum(np.asarray(alphas_cumprod, np.float64), 2.0**-24)
        return cls(np.sqrt((1 - cumprod) / cumprod))

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, train_steps: int = 1000) -> DiscreteVP:
        """√β linear in time: the training schedule of Stable Diffusion."""
        betas = np.linspace(start**0.5, end**0.5, train_steps) ** 2
        return cls.from_alphas_cumprod(np.cumprod(1 - betas))

    def scale(self, ratio):
        alpha = 1 / np.sqrt(1 + np.square(ratio))
        return alpha, ratio * alpha

    def ve(self) -> DiscreteVE:
        """The same process seen by a state of unscaled signal, as k-diffusion steps it."""
        return DiscreteVE(self.table)


class DiscreteVE(Process):
    """Variance-exploding state, α = 1: x = x0 + σ·ε (2206.00364)."""

    def scale(self, ratio):
        return np.ones_like(ratio), np.asarray(ratio, np.float64)


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """The N+1 levels of N steps, noisiest first; float64 arrays (N+1,). σ/α falls strictly and may end in 0."""

    alpha: np.ndarray
    sigma: np.ndarray
    time: np.ndarray
    process: Process

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "time"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if not (self.alpha.shape == self.sigma.shape == self.time.shape == (len(self.alpha),)) or len(self.alpha) < 2:
            raise ValueError("noise levels are three arrays of one length, at least 2 (one step)")
        if not (np.isfinite(self.alpha).all() and np.isfinite(self.sigma).all() and (self.alpha > 0).all()):
            raise ValueError("noise levels must be finite and hold some signal (alpha > 0)")
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
