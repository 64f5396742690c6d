"""`AnalyticModel`: a model without a network. Its data are a Gaussian mixture, so its denoiser is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.integrate import DOP853
from torch import Tensor

from harness.errors import InputError
from harness.models.base import Conditioning, Denoise, Model
from harness.models.guidance import Guidance, combine
from harness.models.mixture import ANY, Mixture
from samplers.core.levels import Level, Process

TOLERANCE = 1e-11  # the exact solution is done when halving its steps moves it by less, relative to the point
STEPS_A_UNIT = 8  # steps per unit of log σ to begin with
MOST_STEPS = 1 << 13  # what is smooth settles in some hundreds
# Above this σ/α the flow turns the noise direction by less than one part in 10¹⁶ (it turns by Cov/(2σ²)).
PURE_NOISE = 1e8
# Below this share of the narrowest mode, what is left of the flow is half of a denoising step, to one part in 10¹⁶.
NEARLY_CLEAN = 1e-4


class AnalyticModel(Model):
    """Points (N, d) in place of images, whose true law is known, and so the exact solution: it is its own `Truth`.

    A prompt is the name of a class, "" the whole mixture; guidance combines the denoiser of the class with that of the
    negative prompt, on x0. Everything is computed in float64; the state has the precision that was asked for.
    """

    def __init__(
        self, name: str, mixture: Mixture, process: Process, state_dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.name, self.mixture, self.process = name, mixture, process
        self.state_dtype, self.device = state_dtype, torch.device(device)
        self.latent_shape = (mixture.dimension,)
        self.means, self.variances, weights = (
            torch.tensor(array, dtype=torch.float64, device=self.device)
            for array in (mixture.means, mixture.variances, mixture.class_weights())
        )
        self.log_weights = weights.log()  # (classes + 1, K), −inf where a mode is of another class

    @property
    def truth(self) -> AnalyticModel:
        return self

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """`class`, (N, 1) int64: the class that each prompt names, −1 for the whole mixture."""
        return Conditioning({"class": torch.from_numpy(self.mixture.class_ids(prompts))[:, None]}).to(self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Images without pixels, uint8 (N, 3, 0, 0): one for each point."""
        return torch.empty((len(latents), 3, 0, 0), dtype=torch.uint8)

    def denoiser(self, cond: Conditioning, uncond: Conditioning | None, guidance: Guidance) -> Denoise:
        """`denoise(x, level) -> x0` for a batch of these classes; a call counts as one, with or without guidance."""
        guidance.check(self.pixel_range)
        x0 = self._guided(*self._classes(cond, uncond), guidance)

        def denoise(x: Tensor, level: Level) -> Tensor:
            self.calls += 1
            return x0(x.double(), level.alpha, level.sigma).to(x.dtype)

        return denoise

    def _classes(self, cond: Conditioning, uncond: Conditioning | None) -> tuple[Tensor, Tensor | None]:
        """(N, 1) each, the second of one row or of N."""
        return cond.to(self.device).parts["class"], None if uncond is None else uncond.to(self.device).parts["class"]

    def _guided(
        self, context: Tensor, uncond: Tensor | None, guidance: Guidance
    ) -> Callable[[Tensor, float, float], Tensor]:
        if guidance.classifier:
            plain = self._guided(context, uncond, replace(guidance, classifier=0.0))
            return lambda x, alpha, sigma: (
                plain(x, alpha, sigma) + guidance.classifier * self.pull(x, alpha, sigma, context)
            )
        if not guidance.on:
            return lambda x, alpha, sigma: self.posterior_mean(x, alpha, sigma, context)
        if uncond is None:
            raise InputError(f"cfg={guidance.scale:g} needs the class of the negative prompt")
        negative = uncond.expand_as(context)

        def x0(x: Tensor, alpha: float, sigma: float) -> Tensor:
            cond = self.posterior_mean(x, alpha, sigma, context)
            return combine(self.posterior_mean(x, alpha, sigma, negative), cond, guidance)

        return x0

    def posterior_mean(self, x: Tensor, alpha: float, sigma: float, classes: Tensor) -> Tensor:
        """E[x0 | α·x0 + σ·ε = x, class], float64 (N, d); `classes` (N, 1). Any σ/α from 0 to inf.

        With C_k = α²·V_k + σ²: Σ_k softmax_k(log w_k + log N(x; α·m_k, C_k)) · (m_k + α·V_k/C_k · (x − α·m_k)).
        """
        size = math.hypot(alpha, sigma)  # on a variance-preserving state no square over- or underflows
        alpha, sigma, x = alpha / size, sigma / size, x / size
        spread = alpha**2 * self.variances + sigma**2  # (K, d)
        offset = x[:, None] - alpha * self.means  # (N, K, d)
        log_density = -0.5 * (offset.square() / spread + spread.log()).sum(-1)
        share = torch.softmax(self.log_weights[classes[:, 0]] + log_density, 1)
        return torch.einsum("nk,nkd->nd", share, offset.mul_(alpha * self.variances / spread).add_(self.means))

    def pull(self, x: Tensor, alpha: float, sigma: float, classes: Tensor) -> Tensor:
        """σ²/α·∇ log p(class | x), float64 (N, d): what a classifier that knows the truth adds to x0.

        By Tweedie's formula for both densities it is E[x0 | x, class] − E[x0 | x], which stays finite in pure noise
        and is 0 for "" (2105.05233, eq. 14; what classifier-free guidance estimates, 2207.12598, section 3).
        """
        whole = torch.full_like(classes, ANY)
        return self.posterior_mean(x, alpha, sigma, classes) - self.posterior_mean(x, alpha, sigma, whole)

    # ------------------------------------------------------------------------------------------- the exact solution

    @property
    def definition(self) -> str:
        """How `exact` solves, in words."""
        if len(self.mixture.weights) == 1:
            return "closed form"
        return f"Dormand-Prince 8 in log sigma, steps halved until points move by less than {TOLERANCE:g}, fp64"

    @torch.no_grad()
    def exact(
        self,
        start: Tensor,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance: Guidance,
        from_level: Level,
        to_level: Level,
    ) -> Tensor:
        """Where the probability-flow ODE of the guided denoiser takes the states `start` (N, d): float64 (N, d).

        From one noise level to another, either of which may be the limit: pure noise (α = 0) or clean (σ = 0). Every
        point is solved by itself, so it does not depend on the batch. One mode: in closed form, guidance has nothing
        to choose between. More: z = x/√(α² + σ²) runs along u = log(σ/α) as dz/du = c·(c·z − D) with c = 1/√(1 + e²ᵘ),
        by the formula of order 8 of Dormand and Prince with equal steps, halved until nothing moves.
        """
        start = start.double()
        if len(self.mixture.weights) == 1:
            return self._closed(start, from_level, to_level)
        context, negative = self._classes(cond, uncond)
        x0 = self._guided(context, negative, guidance)
        first, last = min(from_level.ratio, PURE_NOISE) if from_level.alpha else PURE_NOISE, to_level.ratio
        z = start / math.hypot(from_level.alpha, from_level.sigma)
        if first == PURE_NOISE:
            now = _unit(from_level.ratio if from_level.alpha else math.inf)
            z = _held(z, x0(z, *now), now, _unit(first))
        nearest_clean = NEARLY_CLEAN * float(self.variances.min().sqrt())
        end = max(last, nearest_clean)
        z = self._settled(z, context, negative, guidance, math.log(first), math.log(end))
        if end > last:  # y(0) = y − (y − D)/2 + O(σ⁴), as y − D = −σ²∇log p; in between, likewise
            alpha, sigma = _unit(end)
            y, denoised = z / alpha, x0(z, alpha, sigma)
            z = (y + (denoised - y) * (1 - (last / end) ** 2) / 2) * _unit(last)[0]
        return z * math.hypot(to_level.alpha, to_level.sigma)

    def law(self, level: Level) -> Mixture:
        """The law of the states at this level without guidance, by class."""
        return self.mixture.at(level)

    def _closed(self, start: Tensor, now: Level, then: Level) -> Tensor:
        """x' = α'·m + √((α'²V + σ'²)/(α²V + σ²))·(x − α·m): a Gaussian stays where it is in its own measure."""
        mean, variance = self.means[0], self.variances[0]
        before, after = (level.alpha**2 * variance + level.sigma**2 for level in (now, then))
        return then.alpha * mean + (after / before).sqrt() * (start - now.alpha * mean)

    def _settled(
        self, z: Tensor, context: Tensor, uncond: Tensor | None, guidance: Guidance, first: float, last: float
    ) -> Tensor:
        """The solution at u = last, each point with as few halvings as it needs."""
        steps = math.ceil(STEPS_A_UNIT * (first - last)) or 1
        out, open_ = torch.empty_like(z), torch.arange(len(z), device=z.device)
        coarse = _walk(self._guided(context, uncond, guidance), z, first, last, steps)
        while len(open_):
            steps *= 2
            if steps > MOST_STEPS:
                raise ArithmeticError(
                    f"the exact solution of {len(open_)} points did not settle in {MOST_STEPS} steps: this guidance "
                    f"(cfg={guidance.scale:g}, rescale={guidance.rescale:g}) makes an equation that is not smooth; "
                    "leave the metric exact out, or take less of it (rescale has no meaning in two or three dimensions)"
                )
            x0 = self._guided(context[open_], uncond if uncond is None or len(uncond) == 1 else uncond[open_], guidance)
            fine = _walk(x0, z[open_], first, last, steps)
            settled = (fine - coarse).norm(dim=1) <= TOLERANCE * fine.norm(dim=1)
            out[open_[settled]] = fine[settled]
            open_, coarse = open_[~settled], fine[~settled]
        return out


def _unit(ratio: float) -> tuple[float, float]:
    """(α, σ) with α² + σ² = 1 and σ/α = ratio, which may be inf."""
    return (0.0, 1.0) if math.isinf(ratio) else (1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def _held(z: Tensor, x0: Tensor, now: tuple[float, float], then: tuple[float, float]) -> Tensor:
    """From one level to another with the noise direction held."""
    return then[0] * x0 + then[1] * (z - now[0] * x0) / now[1]


def _walk(x0: Callable[[Tensor, float, float], Tensor], z: Tensor, first: float, last: float, steps: int) -> Tensor:
    """`steps` equal steps of dz/du = c·(c·z − D) from u = first to u = last, by scipy's coefficients of DOP853."""
    h = (last - first) / steps
    a = torch.from_numpy(np.ascontiguousarray(DOP853.A)).to(z.device)
    b = torch.from_numpy(np.ascontiguousarray(DOP853.B)).to(z.device)
    slopes = torch.empty((len(b), *z.shape), dtype=z.dtype, device=z.device)
    for step in range(steps):
        for i, share in enumerate(DOP853.C):
            here = z if i == 0 else z + h * torch.tensordot(a[i, :i], slopes[:i], 1)
            alpha, sigma = _unit(math.exp(first + (step + float(share)) * h))
            slopes[i] = alpha * (alpha * here - x0(here, alpha, sigma))
        z = z + h * torch.tensordot(b, slopes, 1)
    return z
