"""DPM-Solver-12 and -23 with adaptive steps: Lu et al. 2022 (2206.00927), appendix C, as k-diffusion has them.

Two solutions of neighbouring orders share their calls; a PID controller on their difference chooses the next step in
λ = log(α/σ). The steps depend on the state, so there is no plan: the solver has a loop of its own, for one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, first_order
from samplers.solvers.parts.coefficients import EPS, within
from samplers.solvers.parts.noise_split import split

if TYPE_CHECKING:  # planning a sweep must not load torch
    from torch import Tensor

    from samplers.core.noise import NoiseStreams

MAX_STEPS = 10_000
_CLOSE = 1e-5  # in λ: k-diffusion's tolerance for having arrived


@dataclass(frozen=True)
class DPMAdaptive(Solver):
    """A step's error is the RMS over the image of |low − high| / max(atol, rtol·max(|low|, |state before|)), in x/α.

    Only the two ends of the levels are used. λ must be finite: a run that ends at σ = 0 is integrated to the lowest
    level of the process and takes x0 there, and one that begins at pure noise takes a first-order step to the noisiest
    level of the process. `order` is 2 or 3; `pcoeff`, `icoeff` and `dcoeff` are the controller's, as in k-diffusion.
    """

    adaptive: ClassVar[bool] = True

    order: int = 3
    rtol: float = 0.05
    atol: float = 0.0078
    h_init: float = 0.05
    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    accept_safety: float = 0.81
    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        self._one_of("order", (2, 3))
        if min(self.rtol, self.atol) < 0 or not max(self.rtol, self.atol) > 0:
            raise ValueError(
                f"rtol={self.rtol} and atol={self.atol} of dpm_adaptive must not be negative, and one must be above 0"
            )
        if not self.h_init > 0:
            raise ValueError(f"h_init={self.h_init} of dpm_adaptive must be above 0: it is the first step in log SNR")
        self._not_negative("eta", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        return Capabilities(order=self.order, nfe=None, stochastic=self.eta > 0 and self.s_noise > 0)

    def solve(
        self,
        ends: NoiseLevels,
        denoise: Callable[[Tensor, Level], Tensor],
        x: Tensor,
        noise: NoiseStreams | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        if self.eta and noise is None:
            raise ValueError("dpm_adaptive with eta draws noise: give solve() the noise streams of the image")
        process, start, stop = ends.process, ends[0], ends[-1]
        model = _Model(denoise, on_call)
        if start.alpha == 0:
            top = process.level(process.ratio_max)
            x, start = model.euler(x, start, top if top.ratio > stop.ratio else stop)
        if start.ratio <= stop.ratio:
            return x
        to_zero = stop.sigma == 0
        if to_zero:
            stop = process.level(process.ratio_min)
        y = x / start.alpha
        if start.ratio > stop.ratio:
            y, start = self._advance(y, start, stop, process, model, noise)
        return model.euler(y * start.alpha, start, ends[-1])[0] if to_zero else y * stop.alpha

    def _advance(
        self, y: Tensor, now: Level, stop: Level, process: Process, model: _Model, noise: NoiseStreams | None
    ) -> tuple[Tensor, Level]:
        """The loop: y is x/α, so that the steps do not depend on how the state is scaled."""
        terms = (self.pcoeff, self.icoeff, self.dcoeff)
        pid = _Controller(self.h_init, terms, 1.5 if self.eta else self.order, self.accept_safety)
        before, eps, lam = y, None, now.lam
        for _ in range(MAX_STEPS):
            if not lam < stop.lam - _CLOSE:
                return y, stop
            next_lam = goal = min(stop.lam, lam + pid.h)
            then = stop if next_lam == stop.lam else process.level(math.exp(-next_lam))
            if self.eta:
                goal = min(stop.lam, split(now, then, self.eta)[0].lam)
            if eps is None:
                eps = model.eps(y, now)
            low, high = _pair(y, eps, lam, goal, process, model, self.order)
            scale = (self.rtol * low.abs().maximum(before.abs())).clamp_min(self.atol)
            if not pid.accepts(float(((low - high) / scale).norm()) / y.numel() ** 0.5):
                continue
            before, y, eps = low, high, None
            up = math.sqrt(max(then.ratio**2 - math.exp(-2 * goal), 0.0)) * self.s_noise
            if noise is not None and self.eta and up:
                y = y + up * noise.draw(now.ratio, then.ratio).to(y.dtype)
            now, lam = then, next_lam
        raise ValueError(
            f"dpm_adaptive has not arrived after {MAX_STEPS} steps (sigma/alpha {now.ratio:.4g}): raise rtol or atol"
        )


def _pair(
    y: Tensor, eps: Tensor, lam: float, goal: float, process: Process, model: _Model, order: int
) -> tuple[Tensor, Tensor]:
    """The solutions of the lower and the higher order at λ = `goal`, sharing their calls. In x/α a step of first order
    adds −(σ'/α')·(e^h − 1)·ε: written with h, because the control of steps feels the rounding of differences of σ/α."""
    h = goal - lam
    inner = [process.level(math.exp(-(lam + h * i / order))) for i in range(1, order)]
    line = y - math.exp(-goal) * math.expm1(h) * eps
    one = model.eps(y - inner[0].ratio * math.expm1(h / order) * eps, inner[0]) - eps
    if order == 2:
        return line, line - math.exp(-goal) * within([0.5], h, EPS, "midpoint")[0] * one
    low = line - math.exp(-goal) * within([1 / 3], h, EPS, "midpoint")[0] * one
    at, step = inner[1], h * 2 / 3
    middle = y - at.ratio * math.expm1(step) * eps - at.ratio * within([0.5], step, EPS, "heun")[0] * one
    two = model.eps(middle, at) - eps
    return low, line - math.exp(-goal) * within([2 / 3, 1 / 3], h, EPS, "midpoint")[0] * two


class _Model:
    """The denoiser seen as ε of x/α, with its calls counted."""

    def __init__(self, denoise: Callable[[Tensor, Level], Tensor], on_call: Callable[[int], None] | None) -> None:
        self.denoise, self.on_call, self.calls = denoise, on_call, 0

    def x0(self, x: Tensor, level: Level) -> Tensor:
        x0 = self.denoise(x, level)
        if self.on_call is not None:
            self.on_call(self.calls)
        self.calls += 1
        return x0

    def eps(self, y: Tensor, level: Level) -> Tensor:
        return (y - self.x0(y * level.alpha, level)) / level.ratio

    def euler(self, x: Tensor, now: Level, then: Level) -> tuple[Tensor, Level]:
        a, b = first_order(now, then)
        return a * x + b * self.x0(x, now), then


class _Controller:
    """k-diffusion's PID step-size controller: h grows by a limited power of the inverse errors."""

    def __init__(self, h: float, coefficients: tuple[float, float, float], order: float, accept_safety: float) -> None:
        p, i, d = coefficients
        self.h, self.accept_safety = h, accept_safety
        self.powers = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self.inverse: list[float] = []  # 1/error of this step and of the last two accepted ones

    def accepts(self, error: float) -> bool:
        if not math.isfinite(error):
            raise ValueError("dpm_adaptive: the state or the denoiser's answer is not finite")
        inverse = 1 / (error + 1e-8)
        self.inverse = [inverse, *self.inverse[1:]] if self.inverse else [inverse] * 3
        factor = math.prod(value**power for value, power in zip(self.inverse, self.powers, strict=True))
        factor = 1 + math.atan(factor - 1)
        accept = factor >= self.accept_safety
        if accept:
            self.inverse = [inverse, inverse, self.inverse[1]]
        self.h *= factor
        return accept


SOLVER = DPMAdaptive
