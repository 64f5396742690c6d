"""Null-text inversion: Mokady et al. 2022 (2211.09794), algorithm 1, for any plan.

An inversion without guidance and a run with it do not meet. So what the run is guided away from, the embedding of the
empty prompt, is optimised call by call: the guided output shall be the one that leads to the state which the inversion
had there. With an edited prompt the same embeddings keep what the edit does not name.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from harness.models.base import Conditioning
from harness.tasks.base import Ready
from samplers.core.walk import Walk


def optimised(ready: Ready, pivot: list[Tensor], iterations: int, rate: float) -> list[Conditioning]:
    """What each call of the plan is guided away from, one row an image.

    `pivot` holds the states of the inversion, noisiest first: what each call was given, and the end. `iterations` of
    Adam a call begin where the call before ended, at `rate`, which falls by half towards the last (the paper's code).
    Each image keeps its best, so no call is left worse than it was found. Images do not depend on each other.
    """
    # Tensors that were made in inference mode cannot be differentiated by; copies made outside of it can.
    with torch.inference_mode(False):
        cond, uncond = _copied(ready.source_cond), _copied(ready.uncond)
        uncond = Conditioning({name: part.expand(len(cond), *part.shape[1:]) for name, part in uncond.parts.items()})
        walk, found = Walk(ready.plan, pivot[0].clone()), []
        for k, stage in enumerate(ready.plan.stages):
            state = walk.churn().clone()
            if stage.x0 and stage.x0[0]:
                wanted = _wanted(walk, pivot[k + 1].clone(), stage.x0[0])
                falls = 1 - 0.5 * k / ready.plan.nfe
                uncond = _best(ready, cond, uncond, state, wanted, k, iterations, rate * falls)
            found.append(uncond)
            with torch.no_grad():
                walk.advance(_denoised(ready, cond, uncond, state, k))
        return found


def _wanted(walk: Walk, state: Tensor, weight: float) -> Tensor:
    """The output with which the next state will be `state`."""
    without = copy.deepcopy(walk).advance(torch.zeros_like(state))
    return (state - without) / weight


def _best(
    ready: Ready,
    cond: Conditioning,
    uncond: Conditioning,
    state: Tensor,
    wanted: Tensor,
    call: int,
    iterations: int,
    rate: float,
) -> Conditioning:
    """Adam on every part that is no number of a class; of each image the embedding with the smallest error."""
    fixed = {name: part for name, part in uncond.parts.items() if not part.is_floating_point()}
    free = {
        name: part.detach().clone().float().requires_grad_() for name, part in uncond.parts.items() if name not in fixed
    }
    optimiser = torch.optim.Adam(free.values(), lr=rate)
    best, least = {name: part.detach().clone() for name, part in free.items()}, None
    for trial in range(iterations + 1):
        with torch.enable_grad():
            output = _denoised(ready, cond, Conditioning({**fixed, **free}), state, call)
            error = (output - wanted).square().flatten(1).mean(1)
        least = torch.full_like(error, torch.inf) if least is None else least
        better = error < least
        least = torch.where(better, error, least).detach()
        for name, part in free.items():
            rows = better.view(-1, *(1,) * (part.ndim - 1))
            best[name] = torch.where(rows, part.detach(), best[name])
        if trial < iterations:
            optimiser.zero_grad(set_to_none=True)
            error.sum().backward()
            optimiser.step()
    return Conditioning({**fixed, **best})


def _denoised(ready: Ready, cond: Conditioning, uncond: Conditioning, state: Tensor, call: int) -> Tensor:
    return ready.model.denoiser(cond, uncond, ready.guidance)(state, ready.plan.stages[call].level)


def _copied(conditioning: Conditioning | None) -> Conditioning:
    assert conditioning is not None, "guidance is on, so there is something to guide away from"
    return Conditioning({name: part.clone() for name, part in conditioning.parts.items()})
