"""`PlanScheduler`: a scheduler of diffusers that executes our plans, so that any pipeline runs any of our samplers.

    pipe.scheduler = PlanScheduler.replacing(pipe.scheduler, sampler="unipc", schedule="karras")

The pipeline keeps the scaling of the state that it had; behind its back the state stays float32 in the walk, whatever
the model's type is. Nothing in `step` waits for the device: levels are looked up by index.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import diffusers
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerOutput
from torch import Tensor

from samplers import registry
from samplers.core.levels import Level
from samplers.core.noise import NoiseStreams
from samplers.core.plan import Plan
from samplers.core.walk import Walk
from samplers.hosts.asked import Spec, as_many, is_even, named, plain, spaced
from samplers.hosts.calls import by_euler, calls_a_step, first_calls, near, planned
from samplers.hosts.draws import Drawn, by_start
from samplers.hosts.replaced import KINDS, Laid, Replaced

STOCK = "stock"  # the levels that the replaced scheduler itself would have walked
OWN = ("replaced", "sampler", "schedule")  # what the configuration holds beside that of the replaced scheduler


class Call(NamedTuple):
    """One denoiser call as the pipeline sees it, in plain numbers."""

    of_state: float  # x0 = of_state·x + of_output·output, x the walk's state
    of_output: float
    seen: float  # the pipeline's state times this is what the model sees
    shown: float  # the walk's state times this is the pipeline's


@dataclass
class Output(SchedulerOutput):
    """The next state, and the x0 that it was made from."""

    pred_original_sample: Tensor | None = None


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """Executes the plan of `sampler` over the levels of `schedule`, for the model of the scheduler it replaces.

    `sampler` and `schedule` are names of conf/sampler and conf/schedule, or `{"name": …, **knobs}`; `schedule="stock"`
    is what the replaced scheduler would have walked. All other settings are the replaced scheduler's and show in
    `config` as they did there. Set `noise` to NoiseStreams or BrownianStreams for noise that does not depend on the
    batch; else it is drawn from the pipeline's `generator` (a list of them has one an image). Where a pipeline passes
    none to `step`, as those of flow models do, every image's noise follows from its own first state.

    Every ValueError is one line: an unknown scheduler, sampler, schedule or knob; a sampler that chooses its steps
    while it runs; levels that cannot be walked; a start from which a sampler makes other calls.

    >>> scheduler = PlanScheduler.replacing(diffusers.EulerDiscreteScheduler(), sampler="heun", schedule="karras")
    >>> scheduler.set_timesteps(4)
    >>> len(scheduler.timesteps), scheduler.config.replaced  # two calls a step, one in the last
    (7, 'EulerDiscreteScheduler')
    """

    config_name = "scheduler_config.json"
    _compatibles = [each.name for each in KarrasDiffusionSchedulers]  # noqa: RUF012 - as diffusers has it
    order = 1

    def __init__(
        self, replaced: str = "EulerDiscreteScheduler", sampler: Spec = "unipc", schedule: Spec = STOCK, **config: Any
    ) -> None:
        self._adopt(Replaced(replaced, config), sampler, schedule, config)

    @classmethod
    def replacing(cls, scheduler: Any, sampler: Spec = "unipc", schedule: Spec = STOCK) -> Self:
        """A PlanScheduler in the place of this scheduler, with its configuration and what was set on it since."""
        if isinstance(scheduler, cls):
            return cls.replacing(scheduler._model().scheduler, sampler, schedule)
        name = type(scheduler).__name__
        if name in KINDS and not type(scheduler).__module__.startswith("diffusers."):
            name = f"{type(scheduler).__module__}.{name}"
        made = cls.__new__(cls)
        own = None if name in ("PNDMScheduler", "FlowMatchHeunDiscreteScheduler") else copy.deepcopy(scheduler)
        made._adopt(Replaced(name, scheduler.config, own), sampler, schedule, scheduler.config)
        return made

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **changes: Any) -> Any:
        """Make one from the configuration of a PlanScheduler, or of a scheduler that it can replace.

        `changes` are `sampler`, `schedule` and settings of the replaced scheduler.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"from_config needs a configuration, not {type(config).__name__}: from_pretrained loads")
        # A scheduler of another class that was made from our configuration still carries ours: its class counts.
        own = config.get("_class_name")
        name = config.get("replaced", own) if own in (None, cls.__name__) else own
        if name is None or name == cls.__name__:
            raise ValueError(
                "this configuration does not say which scheduler it is of: use PlanScheduler.replacing(pipe.scheduler)"
            )
        # A setting that stood at its default there was not decided: it takes the default of the present class.
        defaults = config.get("_use_default_values", ())
        decided = {key: value for key, value in config.items() if key not in defaults and not key.startswith("_")}
        valid = {*config, *OWN, *inspect.signature(getattr(diffusers, name, cls).__init__).parameters}
        unused = {key: changes.pop(key) for key in [*changes] if key not in valid}
        if unused and not return_unused_kwargs:
            raise ValueError(f"{name} has no setting {next(iter(unused))!r}; it has: {', '.join(sorted(valid))}"[:500])
        made = cls(**{**decided, **changes, "replaced": name})
        return (made, unused) if return_unused_kwargs else made

    def _adopt(self, model: Replaced, sampler: Spec, schedule: Spec, config: Mapping[str, Any]) -> None:
        self._sampler, self._schedule = planned(named(sampler, "sampler"), "a pipeline"), named(schedule, "schedule")
        if self._schedule["name"] != STOCK:
            spaced(self._schedule, model, 2)  # raises now where a name or a knob is wrong
        own = {"replaced": model.name, "sampler": plain("sampler", sampler), "schedule": plain("schedule", schedule)}
        known = {key: value for key, value in config.items() if key not in ("_class_name", "_diffusers_version", *OWN)}
        self.register_to_config(**{**model.config, **known, **own})
        self._replaced, self._seen_config = model, self._internal_dict
        self.noise: NoiseStreams | None = None
        self.num_inference_steps: int | None = None
        self.plan: Plan | None = None
        self._laid: Laid | None = None
        self._calls: list[Call] = []
        self._forget()
        # Before set_timesteps a scheduler shows its trained levels, as those of diffusers do.
        self.timesteps, self.sigmas = model.scheduler.timesteps, getattr(model.scheduler, "sigmas", None)

    def _model(self) -> Replaced:
        """What is replaced; read again where a pipeline has written another configuration into us."""
        if self._internal_dict is not self._seen_config:
            self._replaced = Replaced(self.config["replaced"], self.config)
            self._seen_config = self._internal_dict
        return self._replaced

    # -------------------------------------------------------------------------------------------------- timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay out levels and plan. `timesteps` then has an entry a denoiser call, `order` the calls of a step.

        Levels that are given (`timesteps=`, `sigmas=`, as the replaced scheduler takes them) are walked with
        `schedule="stock"`. With another schedule an even ramp of `sigmas`, the flow pipelines' own, says the number of
        steps, and anything else is a ValueError.
        """
        model = self._model()
        self._laid = self._levels(model, num_inference_steps, timesteps, sigmas, mu)
        self._lay_out(model, registry.build_plan(self._sampler, self._laid.levels), self._laid.told, device)
        assert self.plan is not None
        self.num_inference_steps = self._laid.levels.steps
        self._first_calls = first_calls(self.plan, self._laid.levels)
        calls = len(self.plan.stages)
        self.order = 1 if self._laid.given else calls_a_step(self._first_calls, calls, self.num_inference_steps)
        self._start_scale = model.start(self._reached[0])

    def _lay_out(self, model: Replaced, plan: Plan, told: Callable[[Level], float], device: Any) -> None:
        """Make ready for the calls of `plan`, each told what `told` says of its level."""
        self.plan = plan
        self._draws = plan.draws > 0
        stages = plan.stages
        self._reached = [*(stage.level for stage in stages), stages[-1].result]
        self._calls = [
            Call(*model.x0(level), *self._scales(model, level)) for level in (stage.level for stage in stages)
        ]
        self._last_shown, self._limit = self._scales(model, self._reached[-1])[1], model.limit()
        times = torch.tensor([told(level) for level in self._reached[:-1]], dtype=torch.float64)
        whole = not torch.is_floating_point(model.scheduler.timesteps) and bool((times == times.round()).all())
        self._told = times.to(torch.int64 if whole else torch.float32)
        self.timesteps = self._told.to(device, copy=True)
        self.sigmas = torch.tensor([model.noise(level) for level in self._reached], dtype=torch.float32)
        self._forget()

    def _scales(self, model: Replaced, level: Level) -> tuple[float, float]:
        """(seen, shown) at a level; what is seen there is not asked for at the last."""
        return model.seen(level), model.shown(level)

    def _levels(self, model: Replaced, steps: int | None, timesteps: Any, sigmas: Any, mu: float | None) -> Laid:
        if self._schedule["name"] == STOCK:
            return model.lay(steps, timesteps, sigmas, mu)
        if timesteps is None and sigmas is None:
            return Laid(as_many(spaced(self._schedule, model, steps), steps, self._schedule), model.told)
        if not (model.flow and sigmas is not None and is_even(sigmas)):
            raise ValueError(
                f"levels are given twice, by {'timesteps=' if sigmas is None else 'sigmas='} and by schedule="
                f"{self._schedule['name']}: set schedule='stock' to walk those that are given"
            )
        told = model.lay(None, timesteps, sigmas, mu).told
        steps = len(sigmas)
        return Laid(as_many(spaced(self._schedule, model, steps), steps, self._schedule), told, True)

    @property
    def init_noise_sigma(self) -> float:
        """What a pipeline multiplies unit noise by to have a state of the first level."""
        if self.plan is not None:
            return self._start_scale
        model = self._model()
        return model.start(model.process.level(model.process.ratio_max))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The call to start at, where img2img enters: what is walked is planned for the levels from there on."""
        self._forget()
        self._begin_index = int(begin_index)

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """The call that is next; None before the first."""
        return None if self._index is None else self._index + (0 if self._walk is None else self._walk.index)

    # ---------------------------------------------------------------------------------------------------- a run

    @property
    def _began(self) -> int:
        """The call that the run began with."""
        assert self._index is not None
        return self._index

    def _forget(self) -> None:
        self._begin_index: int | None = None
        self._index: int | None = None  # the call that the run began with
        self._walk: Walk | None = None
        self._own_noise: NoiseStreams | None = None
        self._given: Tensor | None = None  # what step returned last: where it comes back, the walk goes on from its own
        self._version = 0

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The pipeline's state as the model wants to see it at the next call."""
        if self._index is None:
            self._index = self._enter(timestep)
        call = self._calls[min(self.step_index or 0, len(self._calls) - 1)]
        return sample if call.seen == 1 else sample * call.seen

    @torch.no_grad()
    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Output | tuple[Tensor, Tensor]:
        """The state that the next call evaluates, in `sample`'s type.

        The scheduler counts the calls; it looks at `timestep` before the first one alone.
        """
        walk = self._walk or self._begin(timestep, sample)
        if walk.over:
            raise ValueError(f"the {len(self._calls)} calls of this run are made: call set_timesteps for another")
        call = self._calls[self._began + walk.index]
        state = self._take(walk, sample, call)
        x0 = self._x0(call, state, model_output)
        noise = self._noise(state, generator) if self._draws else None
        walk.advance(x0, noise)
        self._advanced(walk)
        if not walk.over:
            walk.churn(noise)
        k = self._began + walk.index
        shown = self._calls[k].shown if k < len(self._calls) else self._last_shown
        prev = (walk.state.clone() if shown == 1 else walk.state * shown).to(sample.dtype)
        self._give(walk, prev)
        x0 = x0.to(sample.dtype)
        return Output(prev_sample=prev, pred_original_sample=x0) if return_dict else (prev, x0)

    def _advanced(self, walk: Walk) -> None:
        """A new state has been reached; a subclass may write another into it."""

    def _noise(self, state: Tensor, generator: Any) -> Any:
        if self.noise is not None or generator is not None:
            return self.noise or Drawn(state, generator)
        if self._own_noise is None:
            self._own_noise = by_start(state)
        return self._own_noise

    def _take(self, walk: Walk, sample: Tensor, call: Call) -> Tensor:
        """The walk's state; taken from `sample` where somebody has changed it since `step` returned it."""
        if sample is self._given and sample.is_inference():
            # A change in place leaves no trace here: the walk goes on from the sample and from what its type cut off.
            if sample.dtype != walk.state.dtype:
                walk.state.copy_(sample.to(walk.state.dtype).div_(call.shown).add_(self._cut_off))
            else:
                walk.state.copy_(sample if call.shown == 1 else sample / call.shown)
        elif sample is not self._given or sample._version != self._version:
            if sample.shape != walk.state.shape:
                raise ValueError(f"the state was {tuple(walk.state.shape)} and is {tuple(sample.shape)} in one run")
            walk.state.copy_(sample if call.shown == 1 else sample.to(walk.state.dtype) / call.shown)
        return walk.state

    def _give(self, walk: Walk, prev: Tensor) -> None:
        self._given = None if walk.over else prev
        if not prev.is_inference():
            self._version = prev._version
        elif prev.dtype != walk.state.dtype and not walk.over:
            shown = self._calls[self._began + walk.index].shown
            self._cut_off = walk.state - prev.to(walk.state.dtype).div_(shown)

    def _x0(self, call: Call, state: Tensor, output: Tensor) -> Tensor:
        if output.shape != state.shape:
            if output.ndim != state.ndim or output.shape[1] != 2 * state.shape[1]:
                raise ValueError(f"the model answered {tuple(output.shape)} to a state of {tuple(state.shape)}")
            output = output[:, : state.shape[1]]  # a learned variance comes behind
        if call.of_state == 0:
            x0 = output.to(state.dtype) if call.of_output == 1 else output.to(state.dtype) * call.of_output
        else:
            x0 = torch.add(state if call.of_state == 1 else state * call.of_state, output, alpha=call.of_output)
        return x0 if self._limit is None else self._limit(x0)

    def _begin(self, timestep: float | Tensor, sample: Tensor) -> Walk:
        if self.plan is None:
            raise ValueError("call set_timesteps before the first step")
        if self._index is None:
            self._index = self._enter(timestep)
        plan = self.plan if self._index == 0 else self._tail(self.plan, self._index)
        # A churn of the first call is never drawn: the model has seen the start already, and `add_noise` and
        # `init_noise_sigma` have put it at the raised level, which is the same law.
        dtype = torch.float64 if sample.dtype == torch.float64 else torch.float32
        self._walk = Walk(plan, sample.to(dtype))
        return self._walk

    def _enter(self, timestep: float | Tensor | None) -> int:
        """The index of the first call: as it was set, else by the timestep that the pipeline holds."""
        if self.plan is None:
            raise ValueError("call set_timesteps before the first step")
        if self._begin_index is not None:
            return self._begin_index
        return 0 if timestep is None else self._index_of(timestep)

    def _index_of(self, timestep: float | Tensor) -> int:
        # An element of our own tensor is known by its address: looking at its value would wait for the device.
        if isinstance(timestep, Tensor) and _shares(timestep, self.timesteps):
            return int(timestep.storage_offset() - self.timesteps.storage_offset())
        value = float(timestep)
        near = ((self._told.double() - value).abs() <= 1e-4 * max(1.0, abs(value))).nonzero().flatten().tolist()
        if not near:
            raise ValueError(f"timestep {value:g} is not one of this run's: {self._told.tolist()}"[:500])
        return next((k for k in near if k in self._first_calls), near[0])

    def _tail(self, plan: Plan, index: int) -> Plan:
        """A plan that makes the calls from `index` on, which the pipeline has seen already, and remembers none before.

        It is the sampler's own over the levels that are left; up to there, from inside a step of several calls, it goes
        from call to call by Euler's steps.
        """
        assert self._laid is not None
        levels, stages = self._laid.levels, plan.stages
        ahead = [(step, first) for step, first in enumerate(self._first_calls) if first >= index]
        for step, first in ahead[:2]:
            sampler = dict(self._sampler)
            churn = registry.knobs(sampler).get("s_churn")
            if churn:  # s_churn is shared out over all steps: fewer steps get less of it
                sampler["s_churn"] = churn * (levels.steps - step) / levels.steps
            rest = registry.build_plan(sampler, levels.from_(step))
            before = by_euler([*(stage.level for stage in stages[index:first]), levels[step]])
            same = [near(stage.level) for stage in rest.stages] == [near(stage.level) for stage in stages[first:]]
            if same and before is not None:
                return Plan(stages[index].level, (*before, *rest.stages), rest.capabilities)
        raise ValueError(
            f"the run is to begin at call {index} of {len(stages)}, but {self._sampler.get('name')} cannot go on from "
            "there by the same calls: take another strength, number of steps or sampler (one of one call a step can)"
        )

    # ------------------------------------------------------------------------------------------------------- noise

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: float | Tensor) -> Tensor:
        """Clean samples noised as the state is: at the next call while a run goes on, at its first call before.

        Without a run it is at `timesteps`, one for all or one each.
        """
        model, next_call = self._model(), self._next_call(timesteps)
        if next_call is not None:
            levels = [self._reached[next_call]]
        else:
            levels = [self._level_at(model, time) for time in torch.as_tensor(timesteps).flatten().unbind()]
        scales = [model.shown(level) for level in levels]
        parts = [
            _column(
                [getattr(level, part) * scale for level, scale in zip(levels, scales, strict=True)], original_samples
            )
            for part in ("alpha", "sigma")
        ]
        return original_samples * parts[0] + noise * parts[1]

    def scale_noise(self, sample: Tensor, timestep: float | Tensor, noise: Tensor | None = None) -> Tensor:
        """`add_noise` under the name that flow pipelines call it by, where `noise` may not be left out."""
        if noise is None:
            raise ValueError("scale_noise needs the noise: give noise=")
        return self.add_noise(sample, noise, timestep)

    def _next_call(self, timesteps: float | Tensor) -> int | None:
        """The call that noise is wanted for, if a run goes on or is about to begin, and no other time was named.

        Times on a GPU are not looked at: that would wait for it.
        """
        over = self._walk is not None and self._walk.over
        call = self._begin_index if self._walk is None else self.step_index
        if call is None or over or self.plan is None or call >= len(self._calls):
            return None
        there = isinstance(timesteps, Tensor) and timesteps.device.type != "cpu"
        if there or bool((torch.as_tensor(timesteps) - self._told[call]).abs().max() <= 1e-3):
            return call
        return None

    def _level_at(self, model: Replaced, time: Tensor) -> Level:
        if self.plan is not None:
            try:
                return self._reached[self._index_of(time)]
            except ValueError:
                pass  # the time is not one of this run's: it is a trained level's
        return model.level_at(float(time))

    # ------------------------------------------------------------------- what pipelines read of the replaced scheduler

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._model().scheduler.alphas_cumprod

    @property
    def betas(self) -> Tensor:
        return self._model().scheduler.betas

    @property
    def alphas(self) -> Tensor:
        return self._model().scheduler.alphas

    @property
    def final_alpha_cumprod(self) -> Tensor:
        return self._model().scheduler.final_alpha_cumprod

    @property
    def shift(self) -> float:
        return self._model().scheduler.shift

    def set_shift(self, shift: float) -> None:
        self._model().scheduler.set_shift(shift)

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]


def _shares(element: Tensor, whole: Tensor) -> bool:
    """Whether a tensor of one number is an element of the other's memory."""
    if element.numel() != 1 or element.dtype != whole.dtype or element.device != whole.device:
        return False
    return element.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def _column(values: list[float], like: Tensor) -> Tensor | float:
    """One number for all, or one an image that broadcasts over the rest."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *(1,) * (like.ndim - 1))
