"""The known differences between the peers and us, or among themselves, each reproduced by a few lines.

A size outside what is expected means that a release changed something: too small, and the fault is gone (say so here
and in samplers/peers/counterparts.py); too large, and there is another one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.parity.side_by_side import CHURN, denoiser, eps, far, ours, start, theirs
from samplers import registry, schedules
from samplers.core.levels import DiscreteVP, NoiseLevels
from samplers.peers.counterparts import DIFFUSERS, Counterpart
from samplers.peers.widened import Instead, float64, patched

TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROCESS = DiscreteVP.scaled_linear()


@dataclass(frozen=True)
class Fault:
    number: str
    where: str
    what: str
    measure: Callable[[], float]
    low: float
    high: float


@dataclass(frozen=True)
class Found:
    number: str
    where: str
    what: str
    size: float
    low: float
    high: float
    verdict: str  # by design | fault gone | differs | not there

    def row(self) -> Mapping[str, Any]:
        """As a row of the comparisons' table."""
        given = asdict(self)
        return {
            "sampler": f"known difference {given['number']}",
            "counterpart": given["where"],
            "difference": given["size"],
            "expected_low": given["low"],
            "expected_high": given["high"],
            "verdict": given["verdict"],
            "reason": given["what"],
        }


def reproduce() -> list[Found]:
    return [_found(fault) for fault in FAULTS]


def _found(fault: Fault) -> Found:
    told = (fault.number, fault.where, fault.what)
    try:
        size = fault.measure()
    except (ImportError, AttributeError, ValueError) as error:
        why = f"{fault.what} ({type(error).__name__}: {error})"
        return Found(*told[:2], why, math.nan, fault.low, fault.high, "not there")
    verdict = "by design" if fault.low <= size <= fault.high else "fault gone" if size < fault.low else "differs"
    return Found(*told, size, fault.low, fault.high, verdict)


# ------------------------------------------------------------------------------------------------------------- tools


def levels(steps: int, schedule: str = "karras", **knobs: Any) -> NoiseLevels:
    return schedules.build(schedule, PROCESS, steps, **knobs)


def row(table: Mapping[str, tuple[Counterpart, ...]], solver: str, name: str) -> Counterpart:
    return next(each for each in table[solver] if each.name == name)


def apart(
    sampler: Mapping[str, Any], at: NoiseLevels, peer: str, counterpart: Counterpart, **their_knobs: Any
) -> float:
    """Ours from theirs in float64, by that counterpart whatever it says of itself; they may be given other knobs."""
    with float64():
        return far(
            ours(sampler, at, torch.float64), theirs(peer, counterpart, {**sampler, **their_knobs}, at, torch.float64)
        )


def scheduler(name: str, steps: int, **settings: Any) -> Any:
    """A stock scheduler of Stable Diffusion's training, ready to step."""
    from diffusers import schedulers

    made = getattr(schedulers, name)(**TRAINING, **settings)
    made.set_timesteps(steps)
    return made


def walked(made: Any, x: Tensor) -> Tensor:
    """The loop of diffusers' pipelines."""
    for t in made.timesteps:
        x = made.step(eps(made.scale_model_input(x, t), float(t)), t, x).prev_sample
    return x


def noise_like(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


def or_infinite(run: Callable[[], Tensor | float]) -> float:
    """Infinity where it crashes or a value is not finite, else 0."""
    try:
        return 0.0 if torch.as_tensor(run()).isfinite().all() else math.inf
    except (UnboundLocalError, RuntimeError, ZeroDivisionError):
        return math.inf


# --------------------------------------------------------------------------------------------------------- the faults


def wrong_sign() -> float:
    counterpart = row(DIFFUSERS, "dpmpp_m_sde", "DPMSolverMultistepScheduler")
    return apart(registry.load("dpmpp_3m_sde"), levels(20), "diffusers", counterpart)


def published_3m() -> float:
    counterpart = row(DIFFUSERS, "dpmpp", "DPMSolverMultistepScheduler")
    return apart(registry.load("dpmpp_3m") | {"exact": True}, levels(20), "diffusers", counterpart, exact=False)


def rounded_times(**grid: Any) -> float:
    """Largest relative distance of the σ that is stepped with from that of the timestep the model is told."""
    made = scheduler("DPMSolverMultistepScheduler", 20, **grid)
    told = PROCESS.ratio(made.timesteps.numpy())
    return float(np.abs(told / made.sigmas.numpy()[:-1] - 1).max())


def duplicates(name: str, **grid: Any) -> float:
    sigmas = scheduler(name, 20, **grid).sigmas
    return float((sigmas[1:] == sigmas[:-1]).sum())


def lowered_below_15() -> float:
    counterpart = row(DIFFUSERS, "dpmpp", "DPMSolverMultistepScheduler")
    authors = registry.load("dpmpp") | {"lower_order_final": 10}
    return apart(authors, levels(10, end="sigma_min"), "diffusers", counterpart, lower_order_final=15)


def unipc_into_zero(order: int) -> float:
    made = scheduler("UniPCMultistepScheduler", 10, solver_order=order, lower_order_final=False)
    return or_infinite(lambda: walked(made, noise_like()))


def ddim_linspace() -> float:
    made = scheduler("DDIMScheduler", 10, timestep_spacing="linspace", clip_sample=False)
    grid = NoiseLevels.from_ratios(PROCESS, [*PROCESS.ratio(made.timesteps.numpy()), 0.0])
    return far(ours(registry.load("ddim"), grid, torch.float32), walked(made, start(grid, torch.float32, 2)))


def one_point_more() -> float:
    euler, dpm = (scheduler(name, 20) for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"))
    return float(dpm.timesteps[-1] - euler.timesteps[-1])


def initial_scale() -> float:
    spacings = ("leading", "linspace")
    one, other = (scheduler("EulerDiscreteScheduler", 1000, timestep_spacing=s).init_noise_sigma for s in spacings)
    return float(one / other - 1)


def drawn_by_diffusers() -> float:
    """What Euler a draws beyond the noise that 20 steps to σ = 0 need."""
    made, drawn = scheduler("EulerAncestralDiscreteScheduler", 20), []
    module = sys.modules[type(made).__module__]

    def randn_tensor(shape, **_: Any) -> Tensor:
        drawn.append(shape)
        return torch.zeros(shape)

    with patched(module, randn_tensor=randn_tensor):
        walked(made, noise_like())
    return float(len(drawn) - registry.build_plan(registry.load("euler_a"), levels(20)).draws)


def drawn_by_k_diffusion() -> float:
    from k_diffusion import sampling

    drawn = []

    def randn_like(x: Tensor) -> Tensor:
        drawn.append(x)
        return x

    with patched(sampling, torch=Instead(torch, randn_like=randn_like)):
        _by_k_diffusion("sample_euler", torch.tensor(levels(20).ratio))
    return float(len(drawn) - registry.build_plan(registry.load("euler"), levels(20)).draws)


def _by_k_diffusion(function: str, sigmas: Tensor, **knobs: Any) -> Tensor:
    from k_diffusion import sampling

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, PROCESS.ve().level(float(sigma[0])))

    x = noise_like(torch.float64) * sigmas[0]
    if "noise_sampler" in getattr(sampling, function).__code__.co_varnames:
        knobs["noise_sampler"] = lambda above, below: torch.zeros_like(x)
    return getattr(sampling, function)(model, x, sigmas.double(), disable=True, **knobs)


def one_step_crashes() -> float:
    return or_infinite(lambda: _by_k_diffusion("sample_dpmpp_2m_sde", torch.tensor([10.0, 0.0])))


def duplicate_is_nan() -> float:
    return or_infinite(lambda: _by_k_diffusion("sample_dpmpp_2m", torch.tensor([10.0, 5.0, 5.0, 1.0, 0.0])))


def penultimate_dropped() -> float:
    sigmas = torch.tensor(levels(11).ratio)
    shorter = torch.cat([sigmas[:-2], sigmas[-1:]])
    return far(
        _by_k_diffusion("sample_dpm_2", shorter), _by_k_diffusion("sample_dpm_2", torch.tensor(levels(10).ratio))
    )


def strength_without_steps() -> float:
    """Steps that 10 steps at strength 0.05 make in our img2img and do not make in diffusers'."""
    from diffusers import StableDiffusionImg2ImgPipeline

    from harness.tasks.img2img import Img2Img

    made = scheduler("DDIMScheduler", 10)
    timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(SimpleNamespace(scheduler=made), 10, 0.05, "cpu")
    _, mine = Img2Img().levels(lambda n: levels(n, "leading"), 10, 0.05)
    return float(mine - len(timesteps))


def churn_after_the_call() -> float:
    return apart(
        registry.load("euler") | CHURN,
        levels(20),
        "diffusers",
        row(DIFFUSERS, "euler", "EulerDiscreteScheduler"),
    )


def edm_third_order() -> float:
    counterpart = row(DIFFUSERS, "dpmpp_m_sde", "EDMDPMSolverMultistepScheduler")
    sampler = registry.load("dpmpp_3m_sde")
    return or_infinite(lambda: theirs("diffusers", counterpart, sampler, levels(10), torch.float32))


def ipndm_into_zero() -> float:
    return apart(registry.load("ipndm"), levels(10), "diffusers", row(DIFFUSERS, "ipndm", "IPNDMScheduler"))


INFINITE = (math.inf, math.inf)
FAULTS = (
    Fault(
        "1",
        "diffusers sde-dpmsolver++ order 3",
        "the coefficient of its second difference ends in -0.5 and must end in +0.5 (20 Karras steps)",
        wrong_sign,
        0.1,
        0.5,
    ),
    Fault(
        "2",
        "DPM++ 3M in every library",
        "the published second difference lacks a factor 2, so it is of order 2; dpmpp has exact=true (20 Karras steps)",
        published_3m,
        5e-4,
        5e-3,
    ),
    Fault(
        "3",
        "diffusers DPM, UniPC, DEIS, SA, Karras",
        "timesteps are rounded: the sigma told to the model is not the one stepped with",
        lambda: rounded_times(use_karras_sigmas=True),
        0.04,
        0.05,
    ),
    Fault(
        "3",
        "diffusers DPM, UniPC, DEIS, SA, exponential",
        "timesteps are cut to integers: the same",
        lambda: rounded_times(use_exponential_sigmas=True),
        0.25,
        0.3,
    ),
    Fault(
        "4",
        "diffusers DEIS, Karras",
        "the last sigma stands twice, so the last call is wasted",
        lambda: duplicates("DEISMultistepScheduler", use_karras_sigmas=True),
        1,
        1,
    ),
    Fault(
        "4",
        "diffusers SA-Solver, Karras",
        "the same",
        lambda: duplicates("SASolverScheduler", use_karras_sigmas=True),
        1,
        1,
    ),
    Fault(
        "4",
        "diffusers UniPC, Karras, final sigma_min",
        "the same",
        lambda: duplicates("UniPCMultistepScheduler", use_karras_sigmas=True, final_sigmas_type="sigma_min"),
        1,
        1,
    ),
    Fault(
        "5",
        "diffusers DPM family",
        "lowers the order at the end below 15 steps, the authors below 10; here it is a number (10 steps)",
        lowered_below_15,
        1e-4,
        2e-3,
    ),
    Fault(
        "6",
        "diffusers UniPC-2, final zero",
        "without a lower final order not finite; refused here",
        lambda: unipc_into_zero(2),
        *INFINITE,
    ),
    Fault(
        "6",
        "diffusers UniPC-3, final zero",
        "without a lower final order a singular matrix; refused here",
        lambda: unipc_into_zero(3),
        *INFINITE,
    ),
    Fault(
        "7",
        "diffusers DDIM, linspace",
        "steps from t to t - 1000//N, which is not the next point of its grid (10 steps)",
        ddim_linspace,
        0.1,
        0.6,
    ),
    Fault(
        "8",
        "diffusers linspace",
        "Euler, DDIM, PNDM place N points, the DPM family N + 1: its last timestep is higher by (20 steps)",
        one_point_more,
        50,
        50,
    ),
    Fault(
        "9",
        "diffusers initial scale",
        "leading starts at sqrt(sigma^2 + 1), linspace and trailing at sigma; here start_scale names the choice",
        initial_scale,
        2e-3,
        3e-3,
    ),
    Fault("10", "diffusers Euler a", "draws of noise that no step needs (20 steps)", drawn_by_diffusers, 1, 1),
    Fault("10", "k-diffusion Euler without churn", "the same", drawn_by_k_diffusion, 20, 20),
    Fault("11", "k-diffusion 2M SDE", "crashes when its only step goes to sigma 0", one_step_crashes, *INFINITE),
    Fault("11", "k-diffusion 2M", "NaN where a sigma stands twice; refused here", duplicate_is_nan, *INFINITE),
    Fault(
        "12",
        "stable-diffusion-webui DPM2, DPM2 a, 3M SDE",
        "drops the sigma before the last: by k-diffusion's DPM2, 11 levels without it against 10 levels",
        penultimate_dropped,
        5e-3,
        0.06,
    ),
    Fault(
        "13",
        "diffusers img2img",
        "int(steps x strength) can be 0: steps made here and not there (10 steps, strength 0.05)",
        strength_without_steps,
        1,
        1,
    ),
    Fault(
        "14",
        "diffusers Euler with churn",
        "adds the noise after the model was called, k-diffusion and the paper before (20 Karras steps)",
        churn_after_the_call,
        0.3,
        2.0,
    ),
    Fault(
        "15",
        "diffusers EDM sde-dpmsolver++ order 3",
        "has no third-order branch: UnboundLocalError",
        edm_third_order,
        *INFINITE,
    ),
    Fault(
        "16",
        "diffusers IPNDM, last step to sigma 0",
        "extrapolates there too, where every other solver takes x0 (10 Karras steps)",
        ipndm_into_zero,
        3e-4,
        3e-3,
    ),
)
