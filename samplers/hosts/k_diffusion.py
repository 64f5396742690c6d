"""Any of our samplers under the signature of k-diffusion's functions: for user interfaces and scripts that call those.

    sample(model, x, sigmas, sampler="unipc")

`model(x, sigma, **extra_args)` answers with x0, x is x0 + σ·ε, as in Karras et al. (2206.00364). With `flow=True` σ is
the t of a rectified flow and x is (1 − σ)·x0 + σ·ε.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers import registry
from samplers.core.levels import DiscreteVP, Level, NoiseLevels, RectifiedFlow
from samplers.core.walk import Walk
from samplers.hosts.calls import first_calls, planned

Model = Callable[..., Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def sample(
    model: Model,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], object] | None = None,
    disable: bool | None = None,
    *,
    sampler: str | Mapping[str, Any] = "unipc",
    noise_sampler: NoiseSampler | None = None,
    flow: bool = False,
    **knobs: Any,
) -> Tensor:
    """The state at sigmas[-1], from `x` at sigmas[0], by the plan of `sampler` (a name or a mapping, and `knobs`).

    `callback` is called once a step with x, i, sigma, sigma_hat and denoised of its first call. `noise_sampler(σ, σ')`
    gives unit noise that is added on the way from σ to σ'; without it noise is drawn anew, from `extra_args["seed"]`
    where that is given. `disable` hides the progress bar. Low-precision states are walked in float32.

    >>> model = lambda x, sigma: torch.full_like(x, 0.5)  # whatever it is shown, it sees a grey image
    >>> sample(model, torch.randn(1, 3), [14.6, 3.0, 0.5, 0.0], sampler="dpmpp", disable=True)
    tensor([[0.5000, 0.5000, 0.5000]])
    """
    if len(sigmas) < 2:
        return x
    spec = {"name": sampler} if isinstance(sampler, str) else dict(sampler)
    levels = _levels(sigmas, flow)
    plan = registry.build_plan(planned({**spec, **knobs}, "this function"), levels)
    extra = dict(extra_args or {})
    walk = Walk(plan, _own(x, levels[0], flow))
    noise = _Noise(walk.state, noise_sampler, extra.get("seed"), flow)
    starts = {call: step for step, call in enumerate(first_calls(plan, levels))}
    ones = x.new_ones(len(x))
    with tqdm(total=len(starts), disable=disable) as bar:
        while not walk.over:
            level, step = walk.level, starts.get(walk.index)
            seen = _theirs(walk.churn(noise), level, flow).to(x.dtype)
            hat = _sigma(level, flow)
            denoised = model(seen, hat * ones, **extra)
            if step is not None:
                if callback is not None:
                    now = _sigma(levels[step], flow) if len(starts) == levels.steps else hat
                    callback(_report(x, seen, step, now, hat, denoised))
                bar.update()
            walk.advance(denoised, noise)
    return _theirs(walk.state, levels[levels.steps], flow).to(x.dtype)


def function(sampler: str | Mapping[str, Any], flow: bool = False) -> Callable[..., Tensor]:
    """A function of one sampler that shows its knobs as arguments: user interfaces look at the signature."""
    spec = {"name": sampler} if isinstance(sampler, str) else dict(sampler)
    full = planned(spec, "this function")

    def sampled(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, **knobs):
        options = {"sampler": spec, "noise_sampler": noise_sampler, "flow": flow}
        return sample(model, x, sigmas, extra_args, callback, disable, **options, **knobs)

    seen = [p for p in inspect.signature(sampled).parameters.values() if p.kind is not p.VAR_KEYWORD]
    of_sampler = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in registry.knobs(full).items()
    ]
    sampled.__signature__ = inspect.Signature([*seen, *of_sampler])
    sampled.__name__ = sampled.__qualname__ = f"sample_{spec['name']}"
    sampled.__doc__ = f"{spec['name']}, executed by samplers.core.walk; see samplers.hosts.k_diffusion.sample."
    return sampled


def _levels(sigmas: Tensor | Sequence[float], flow: bool) -> NoiseLevels:
    given = np.asarray(sigmas.tolist() if isinstance(sigmas, Tensor) else sigmas, np.float64)
    if flow:
        process = RectifiedFlow()
        if given.min() < 0 or given.max() > 1:
            raise ValueError(f"sigmas of a flow are its t, 0 to 1, not {given.min():g} to {given.max():g}")
        return NoiseLevels(1 - given, given, process.train_steps * given, process)
    low, high = (given[given > 0].min(), given.max()) if (given > 0).any() else (0.0, 0.0)
    if not high > 0:
        raise ValueError("sigmas must fall from above 0")
    # Levels between the given ones are asked of the process, by σ alone.
    return NoiseLevels.from_ratios(DiscreteVP(np.geomspace(min(low, high / 2), high, 64)), given)


def _own(x: Tensor, level: Level, flow: bool) -> Tensor:
    """Their state as the walk holds it: variance preserving, which rounds least, or the flow's."""
    state = x if x.dtype == torch.float64 else x.float()
    return state if flow else state * level.alpha


def _theirs(state: Tensor, level: Level, flow: bool) -> Tensor:
    return state.clone() if flow else state / level.alpha


def _sigma(level: Level, flow: bool) -> float:
    return level.sigma if flow else level.ratio


def _of_ratio(ratio: float, flow: bool) -> float:
    return 1 - 1 / (1 + ratio) if flow else ratio


def _report(x: Tensor, seen: Tensor, step: int, now: float, hat: float, denoised: Tensor) -> dict[str, Any]:
    sigma, sigma_hat = (torch.full((), value, dtype=torch.float32, device=x.device) for value in (now, hat))
    return {"x": seen, "i": step, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised}


class _Noise:
    """Unit noise like the walk's state."""

    def __init__(self, like: Tensor, sampler: NoiseSampler | None, seed: int | None, flow: bool) -> None:
        self._like, self._sampler, self._flow = like, sampler, flow
        self._generator = None if seed is None else torch.Generator().manual_seed(int(seed) % 2**64)

    def draw(self, above: float | None = None, below: float | None = None) -> Tensor:
        like = self._like
        if self._sampler is not None and above is not None and below is not None:
            ends = (_of_ratio(ratio, self._flow) for ratio in (above, below))
            return self._sampler(*(torch.full((), end, dtype=torch.float32, device=like.device) for end in ends))
        if self._generator is None:
            return torch.randn_like(like)
        # On the CPU, so that a seed means the same on every device.
        return torch.randn(like.shape, generator=self._generator, dtype=torch.float32).to(like.device)
