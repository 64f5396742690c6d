"""Which code of a peer does the same as which of our solvers, and with which knobs. One row a counterpart; no torch.

A solver may have several counterparts; the first that has the knobs is the one a sweep runs. A row says what it cannot
do; whoever asks for that gets the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from samplers import registry
from samplers.core.levels import NoiseLevels
from samplers.core.stage import is_lowered


class NotThere(ValueError):
    """The installed version of the peer has no such function or class."""


Knobs = Mapping[str, Any]
Arguments = Mapping[str, Any]  # of a constructor or a call of the peer
Settings = Callable[[Knobs, NoiseLevels], Arguments]


@dataclass(frozen=True)
class Difference:
    """A known fault of a peer: what it is, with which knobs and from how many steps on it shows, how large it is."""

    why: str
    where: Knobs
    low: float  # relative to the result
    high: float
    from_steps: int = 10


@dataclass(frozen=True)
class Counterpart:
    """`name` is a function of k_diffusion.sampling or a class of diffusers.schedulers."""

    name: str
    only: dict[str, tuple] = field(default_factory=dict)  # the values of a knob that the peer has; others are not there
    but: Callable[[Knobs, NoiseLevels], str | None] = lambda knobs, levels: None  # why it cannot walk these levels
    differs: Difference | None = None  # it runs, and is known to be another method
    coarse: tuple[dict[str, float], str] | None = None  # it agrees to no more than this in a precision, and why
    ends_at_zero: bool | None = None  # None: the last level may be either

    @property
    def starts_from_pure_noise(self) -> bool:
        return False

    def refusal(self, knobs: Knobs, levels: NoiseLevels | None = None) -> str | None:
        """Why this counterpart cannot run the solver with these knobs (over these levels), or None."""
        for knob, valid in self.only.items():
            if knobs[knob] not in valid:
                have = " or ".join(map(str, valid))
                return f"{self.name} has no {knob}={knobs[knob]} (only {have})"
        if levels is None:
            return None
        at_zero = levels.sigma[-1] == 0
        if self.ends_at_zero is not None and at_zero != self.ends_at_zero:
            where, end = ("at", "zero") if self.ends_at_zero else ("above", "sigma_min")
            return f"{self.name} can only end {where} sigma 0: set schedule.end={end}"
        if levels.alpha[0] == 0 and not self.starts_from_pure_noise:
            return f"{self.name} cannot start from pure noise (alpha = 0): its sigma would be infinite"
        reason = self.but(knobs, levels)
        return None if reason is None else f"{self.name} {reason}"


@dataclass(frozen=True)
class Function(Counterpart):
    """A function of k_diffusion.sampling: `passes` are the knobs it has under the same name."""

    passes: tuple[str, ...] = ()
    fixed: Arguments = field(default_factory=dict)
    ends_only: bool = False  # takes the two ends and chooses its own steps between them


@dataclass(frozen=True)
class Scheduler(Counterpart):
    """A class of diffusers.schedulers.

    `settings` are the constructor's, `step` the arguments of every step. `layout` says how our levels are put in, see
    samplers.peers.diffusers; `state` in which scaling it keeps the state and `prediction` what it takes for an output.
    """

    layout: str = "spaced"
    state: str = "vp"
    prediction: str = "epsilon"
    settings: Settings = lambda knobs, levels: {}
    step: Callable[[Knobs], Arguments] = lambda knobs: {}

    @property
    def starts_from_pure_noise(self) -> bool:
        return self.state == "flow"


Row = TypeVar("Row", bound=Counterpart)


def find(table: Mapping[str, tuple[Row, ...]], peer: str, asked: registry.Asked) -> list[Row]:
    """The counterparts that have the sampler's knobs; a ValueError says why where there is none."""
    sampler = registry.sampler(asked)
    rows = table.get(sampler.solver.called(), ())
    if not rows:
        raise ValueError(f"{peer} has no counterpart of {sampler.name}")
    reasons = [row.refusal(sampler.knobs) for row in rows]
    fitting = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    if not fitting:
        raise ValueError(f"{peer} has no counterpart of this {sampler.name}: {'; '.join(filter(None, reasons))}")
    return fitting


def choose(table: Mapping[str, tuple[Row, ...]], peer: str, asked: registry.Asked, levels: NoiseLevels) -> Row:
    """The first counterpart that can walk these levels."""
    sampler = registry.sampler(asked)
    rows = find(table, peer, sampler)
    reasons = [row.refusal(sampler.knobs, levels) for row in rows]
    for row, reason in zip(rows, reasons, strict=True):
        if reason is None:
            return row
    raise ValueError(f"{peer} cannot run {sampler.name} over these levels: {'; '.join(filter(None, reasons))}")


# ------------------------------------------------------------------------------------------------------- k-diffusion


def _lowered(knobs: Knobs, levels: NoiseLevels) -> bool:
    return is_lowered(knobs["lower_order_final"], levels)


def _lowers_more(knobs: Knobs, levels: NoiseLevels) -> bool:
    """Whether it lowers more than the one step to σ = 0, which is first order everywhere."""
    enough = knobs["order"] == 1 or levels.steps == 1 or (knobs["order"] == 2 and levels.sigma[-1] == 0)
    return _lowered(knobs, levels) and not enough


def _never_lowers(knobs: Knobs, levels: NoiseLevels) -> str | None:
    return "does not lower the order at the end" if _lowers_more(knobs, levels) else None


def _two_steps(knobs: Knobs, levels: NoiseLevels) -> str | None:
    if levels.steps == 1 and levels.sigma[-1] == 0:
        return "crashes when its only step goes to sigma 0"
    return _never_lowers(knobs, levels)


CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ETA = ("eta", "s_noise")
ADAPTIVE = (*ETA, "order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety")
THIRD = {"order": (3,), "exact": (False,), "solver_type": ("heun",)}  # its second step is of second order, heun's
K_DIFFUSION: dict[str, tuple[Function, ...]] = {
    "euler": (Function("sample_euler", passes=CHURN),),
    "ancestral": (
        Function("sample_euler_ancestral", only={"method": ("euler",), "clock": ("sigma",)}, passes=ETA),
        Function("sample_dpm_2_ancestral", only={"method": ("dpm2",), "clock": ("sigma",)}, passes=ETA),
        Function("sample_dpmpp_2s_ancestral", only={"method": ("dpmpp_2s",)}, passes=ETA),
    ),
    "dpmpp": (Function("sample_dpmpp_2m", only={"order": (2,), "solver_type": ("midpoint",)}, but=_never_lowers),),
    "dpmpp_sde": (Function("sample_dpmpp_sde", passes=(*ETA, "r")),),
    "dpmpp_m_sde": (
        Function("sample_dpmpp_2m_sde", only={"order": (2,)}, but=_two_steps, passes=(*ETA, "solver_type")),
        Function("sample_dpmpp_3m_sde", only=THIRD, but=_two_steps, passes=ETA),
    ),
    "heun": (Function("sample_heun", only={"clock": ("sigma",)}, passes=CHURN),),
    "dpm2": (Function("sample_dpm_2", only={"r": (0.5,)}, passes=CHURN),),
    "lms": (Function("sample_lms", passes=("order",)),),
    "dpm_fast": (Function("sample_dpm_fast", ends_at_zero=False, ends_only=True, passes=ETA),),
    "dpm_adaptive": (Function("sample_dpm_adaptive", ends_at_zero=False, ends_only=True, passes=ADAPTIVE),),
    "dpmpp_single": (
        Function(
            "sample_dpmpp_2s_ancestral",
            only={"order": (2,), "solver_type": ("midpoint",), "nodes": ("inside",)},
            fixed={"eta": 0.0},
        ),
    ),
}

# --------------------------------------------------------------------------------------------------------- diffusers

NO_CHURN = {"s_churn": (0.0,)}  # EulerDiscreteScheduler.step adds its churn after the model was called
SIGMA = {**NO_CHURN, "clock": ("sigma",)}
SUMS = ({"stock": 2e-4}, "its float32 coefficients are small differences of large sums in lambda")
NUDGED = ({"float64": 1e-8}, "it adds 1e-12 to alpha in a denominator")
SIGN = Difference(
    "the third-order term of diffusers' sde-dpmsolver++ has the wrong sign: it ends in -0.5 where +0.5 belongs",
    {"order": 3},
    0.1,
    0.6,
)
FULL = {"eta": (1.0,), "s_noise": (1.0,)}
LOWERS_BELOW = 15  # steps: the rule of diffusers' DPM family


def _dpm(algorithm: str) -> Settings:
    def settings(knobs: Knobs, levels: NoiseLevels) -> Arguments:
        return {
            "solver_order": knobs["order"],
            "solver_type": knobs["solver_type"],
            "lower_order_final": _lowered(knobs, levels),
            "algorithm_type": algorithm,
        }

    return settings


def _cosine(knobs: Knobs, levels: NoiseLevels) -> Arguments:
    """The same steps under the defaults of an audio model: its preconditioning is set to that of the EDM schedulers."""
    settings = {**_dpm("sde-dpmsolver++")(knobs, levels), "sigma_data": 0.5, "prediction_type": "epsilon"}
    return {name: value for name, value in settings.items() if name != "algorithm_type"}


def _lowers_when_short(knobs: Knobs, levels: NoiseLevels) -> str | None:
    too_many = levels.steps >= LOWERS_BELOW and _lowers_more(knobs, levels)
    return f"lowers the order at the end of runs below {LOWERS_BELOW} steps alone" if too_many else None


def _unipc(knobs: Knobs, levels: NoiseLevels) -> Arguments:
    steps = range(levels.steps)
    return {
        "solver_order": knobs["order"],
        "solver_type": knobs["variant"],
        "disable_corrector": list(steps[: knobs["disable_corrector"]] if knobs["corrector"] else steps),
        "lower_order_final": _lowered(knobs, levels),
    }


def _bh1_at_zero(knobs: Knobs, levels: NoiseLevels) -> str | None:
    return "multiplies 0 by infinity" if knobs["variant"] == "bh1" and levels.sigma[-1] == 0 else None


def _prk(knobs: Knobs, levels: NoiseLevels) -> str | None:
    short = knobs["warmup"] == "prk" and levels.steps < 4
    return "has no Runge-Kutta start in fewer than 4 steps" if short else None


def _order(knobs: Knobs, levels: NoiseLevels) -> Arguments:
    return {"solver_order": knobs["order"], "lower_order_final": _lowered(knobs, levels)}


def _single(knobs: Knobs, levels: NoiseLevels) -> Arguments:
    """It lowers the order as well where steps are left over or the end is σ = 0; unasked, with a warning."""
    left_over = levels.steps % knobs["order"] != 0 or bool(levels.sigma[-1] == 0)
    return {
        "solver_order": knobs["order"],
        "solver_type": knobs["solver_type"],
        "lower_order_final": _lowered(knobs, levels) or left_over,
    }


def _tau(knobs: Knobs, levels: NoiseLevels) -> Arguments:
    """Their τ is a function of the timestep; timestep N − k of the layout `spaced` is our level k."""

    def tau(timestep) -> float:
        ratio = levels[levels.steps - int(timestep)].ratio
        return knobs["tau"] if knobs["s_tmin"] <= ratio <= knobs["s_tmax"] else 0.0

    return {
        "predictor_order": knobs["predictor_order"],
        "corrector_order": knobs["corrector_order"],
        "tau_func": tau,
        "lower_order_final": _lowered(knobs, levels),
    }


def _at_timestep_0(knobs: Knobs, levels: NoiseLevels) -> str | None:
    return None if levels.time[-1] == 0 else "always ends at timestep 0"


VE: Arguments = {"layout": "shown", "state": "ve"}
FLOW: Arguments = {"layout": "given", "state": "flow", "prediction": "flow"}
EDM: Arguments = {"layout": "given", "state": "ve", "prediction": "edm"}
DIFFUSERS: dict[str, tuple[Scheduler, ...]] = {
    "euler": (
        Scheduler("EulerDiscreteScheduler", only=NO_CHURN, **VE),
        Scheduler("EDMEulerScheduler", only=NO_CHURN, **EDM),
        Scheduler("FlowMatchEulerDiscreteScheduler", only=NO_CHURN, **FLOW),
    ),
    "heun": (
        Scheduler("HeunDiscreteScheduler", only=SIGMA, **VE),
        Scheduler("FlowMatchHeunDiscreteScheduler", only={**NO_CHURN, "clock": ("flow",)}, **FLOW),
    ),
    "dpm2": (Scheduler("KDPM2DiscreteScheduler", only={**NO_CHURN, "r": (0.5,)}, **VE),),
    "lms": (Scheduler("LMSDiscreteScheduler", step=lambda knobs: {"order": knobs["order"]}, **VE),),
    "ipndm": (
        Scheduler(
            "IPNDMScheduler", only={"max_order": (4,)}, ends_at_zero=False, layout="given", prediction="v_prediction"
        ),
    ),
    "dpm_multistep": (
        Scheduler(
            "DPMSolverMultistepScheduler",
            only={"exact": (False,)},
            ends_at_zero=False,
            but=_lowers_when_short,
            settings=_dpm("dpmsolver"),
        ),
    ),
    "dpmpp_single": (Scheduler("DPMSolverSinglestepScheduler", only={"nodes": ("levels",)}, settings=_single),),
    "deis": (
        Scheduler(
            "DEISMultistepScheduler",
            only={"order": (1, 2, 3), "deis_mode": ("logrho",)},
            ends_at_zero=False,
            but=_lowers_when_short,
            settings=_order,
        ),
    ),
    "sa_solver": (
        Scheduler(
            "SASolverScheduler",
            only={"corrector_order": (1, 2, 3, 4), "mode": ("pec",), "s_noise": (1.0,), "simple_order_2": (True,)},
            ends_at_zero=False,
            coarse=SUMS,
            settings=_tau,
        ),
    ),
    "lcm": (
        Scheduler(
            "LCMScheduler",
            only={"sigma_data": (0.5,)},
            ends_at_zero=True,
            layout="timesteps",
            settings=lambda knobs, levels: {"clip_sample": False, "timestep_scaling": knobs["timestep_scaling"]},
        ),
        Scheduler("FlowMatchLCMScheduler", only={"sigma_data": (0.0,)}, **FLOW),
    ),
    "tcd": (
        Scheduler(
            "TCDScheduler",
            only={"rounding": ("diffusers",)},
            but=_at_timestep_0,
            ends_at_zero=False,
            layout="timesteps",
            settings=lambda knobs, levels: {"clip_sample": False},
            step=lambda knobs: {"eta": knobs["eta"]},
        ),
    ),
    "dpmpp": (
        Scheduler(
            "DPMSolverMultistepScheduler",
            only={"exact": (False,)},
            but=_lowers_when_short,
            settings=_dpm("dpmsolver++"),
        ),
        Scheduler(
            "EDMDPMSolverMultistepScheduler",
            only={"exact": (False,)},
            but=_lowers_when_short,
            settings=_dpm("dpmsolver++"),
            **EDM,
        ),
    ),
    "dpmpp_sde": (
        Scheduler(
            "DPMSolverSDEScheduler",
            only={"eta": (1.0,), "r": (0.5,)},
            step=lambda knobs: {"s_noise": knobs["s_noise"]},
            **VE,
        ),
    ),
    "dpmpp_m_sde": (
        Scheduler(
            "DPMSolverMultistepScheduler",
            only={**FULL, "exact": (False,)},
            differs=SIGN,
            but=_lowers_when_short,
            settings=_dpm("sde-dpmsolver++"),
        ),
        Scheduler(
            "EDMDPMSolverMultistepScheduler",
            only={**FULL, "exact": (False,), "order": (1, 2)},
            but=_lowers_when_short,
            settings=_dpm("sde-dpmsolver++"),
            **EDM,
        ),
        Scheduler(
            "CosineDPMSolverMultistepScheduler",
            only={**FULL, "exact": (False,), "order": (1, 2)},
            but=_lowers_when_short,
            settings=_cosine,
            **EDM,
        ),
    ),
    "ancestral": (
        Scheduler("EulerAncestralDiscreteScheduler", only={**FULL, "method": ("euler",), "clock": ("sigma",)}, **VE),
        Scheduler("KDPM2AncestralDiscreteScheduler", only={**FULL, "method": ("dpm2",), "clock": ("sigma",)}, **VE),
        Scheduler(
            "LTXEulerAncestralRFScheduler",
            only={"method": ("euler",), "clock": ("flow",)},
            coarse=NUDGED,
            settings=lambda knobs, levels: {"eta": knobs["eta"], "s_noise": knobs["s_noise"]},
            **FLOW,
        ),
    ),
    "ddpm": tuple(
        Scheduler(
            name,
            layout="shown",
            settings=lambda knobs, levels: {"clip_sample": False, "variance_type": knobs["variance"]},
        )
        for name in ("DDPMScheduler", "DDPMParallelScheduler")
    ),
    "unipc": (
        Scheduler("UniPCMultistepScheduler", only={"variant": ("bh1", "bh2")}, but=_bh1_at_zero, settings=_unipc),
    ),
    "ddim": tuple(
        Scheduler(
            name,
            layout="trained",
            settings=lambda knobs, levels: {"clip_sample": False},
            step=lambda knobs: {"eta": knobs["eta"]},
        )
        for name in ("DDIMScheduler", "DDIMParallelScheduler")
    ),
    "plms": (
        Scheduler(
            "PNDMScheduler",
            layout="trained",
            but=_prk,
            settings=lambda knobs, levels: {"skip_prk_steps": knobs["warmup"] == "repeat"},
        ),
    ),
}

TABLES: Mapping[str, Mapping[str, tuple[Counterpart, ...]]] = {"diffusers": DIFFUSERS, "k_diffusion": K_DIFFUSION}
