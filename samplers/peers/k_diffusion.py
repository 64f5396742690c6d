"""Our samplers stepped by the functions of k-diffusion (Crowson et al.), on our levels, with our denoiser and noise."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from samplers import registry
from samplers.core.levels import Level, NoiseLevels
from samplers.core.noise import NoiseStreams
from samplers.peers.counterparts import K_DIFFUSION, Function, NotThere, choose
from samplers.peers.draws import Draws
from samplers.peers.widened import Instead, patched

with warnings.catch_warnings():  # its dependencies' use of pkg_resources
    warnings.simplefilter("ignore")
    from k_diffusion import sampling

Denoiser = Callable[[Tensor, Level], Tensor]


@torch.no_grad()
def run(
    asked: registry.Asked,
    levels: NoiseLevels,
    denoise: Denoiser,
    x: Tensor,
    noise: NoiseStreams | None = None,
    after_stage: Callable[[Tensor, Level], Tensor] | None = None,
    on_call: Callable[[int], None] | None = None,
    row: Function | None = None,
) -> Tensor:
    """The state at the last level, from `x` at the first; the same contract as samplers.core.integrate.integrate.

    k-diffusion steps x/α with σ/α for its noise level. Its functions run to the end by themselves: `after_stage` is
    a ValueError. `row` runs that counterpart and no other.
    """
    if after_stage is not None:
        raise ValueError(
            "k_diffusion's functions leave no room for a blend after each step: use another implementation"
        )
    sampler = registry.sampler(asked)
    chosen = choose(K_DIFFUSION, "k_diffusion", sampler, levels) if row is None else row
    if sampler.adaptive and len(x) > 1:
        raise ValueError(f"{chosen.name} chooses its steps for a whole batch: give it one image at a time")
    function = getattr(sampling, chosen.name, None)
    if function is None:
        raise NotThere(f"this k_diffusion has no {chosen.name}")
    knobs = sampler.knobs
    sigmas = torch.tensor(levels.ratio, dtype=x.dtype, device=x.device)
    known = dict(zip(sigmas.tolist(), (levels[k] for k in range(len(levels))), strict=True))
    calls = 0

    def model(state: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        ratio = float(sigma[0])
        level = known.get(ratio) or levels.process.level(ratio)
        x0 = denoise(state if level.alpha == 1 else state * level.alpha, level)
        if on_call is not None:
            on_call(calls)
        calls += 1
        return x0

    draws = _draws(sampler, levels, noise, x)
    step = iter(range(levels.steps))
    given = {**chosen.fixed, **{name: knobs[name] for name in chosen.passes}}
    if "noise_sampler" in inspect.signature(function).parameters:
        given["noise_sampler"] = draws.between
    if chosen.ends_only:
        args = (sigmas[-1], sigmas[0], *((levels.steps,) if chosen.name == "sample_dpm_fast" else ()))
    else:
        args = (sigmas,)

    def randn_like(_: Tensor) -> Tensor:
        """k-diffusion's churn: drawn in every step, used in some."""
        k = next(step)
        churns = knobs["s_churn"] > 0 and knobs["s_tmin"] <= levels[k].ratio <= knobs["s_tmax"]
        return draws.churn() if churns else draws.idle()

    with patched(sampling, torch=Instead(torch, randn_like=randn_like)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch.tensor(σ), which is a tensor already
        end = function(model, x / levels[0].alpha, *args, disable=True, **given)
    return end * levels[levels.steps].alpha


def _draws(sampler: registry.Sampler, levels: NoiseLevels, noise: NoiseStreams | None, x: Tensor) -> Draws:
    if sampler.adaptive:
        on = sampler.declares(levels.steps).stochastic
        return Draws(noise, x, levels.ratio.tolist(), on)
    plan = sampler.plan(levels)
    ratios = [level.ratio for stage in plan.stages for level in (stage.level, stage.result)]
    return Draws(noise, x, ratios, on=plan.draws > 0)
