"""`GivenPlan`: a scheduler that walks one plan which was made elsewhere, from a state that is given to it.

For a program that knows its levels, its start and its noise before it calls the pipeline: what the pipeline asks for
in `set_timesteps` is answered with the calls of the plan, whatever it was. The pipeline holds the walk's own state, VP
or a rectified flow's, so nothing is multiplied and divided on the way; but one that computes with its state is given
the state that its own scheduler would hold (`own_state`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from samplers.core.levels import Level
from samplers.core.noise import Noise
from samplers.core.plan import Plan
from samplers.core.walk import Walk
from samplers.hosts.diffusers import PlanScheduler
from samplers.hosts.replaced import Laid, Replaced

ONE = 1e-12  # a factor this near to 1 is 1


class Asked(Exception):
    """Ends a pipeline's call at its `set_timesteps`: `laid` is what its own scheduler would have walked."""

    def __init__(self, laid: Laid) -> None:
        super().__init__("the pipeline has asked for its levels")
        self.laid = laid


class GivenPlan(PlanScheduler):
    """`begin` a run, call the pipeline with the latents that it returns, and take the `state` afterwards.

    Without a run that was begun, the pipeline's call ends with `Asked` where it lays out its levels.
    """

    own_state: bool = False
    _plan: Plan | None = None
    _hook: Callable[[Tensor, Level], Tensor] | None = None
    _on_call: Callable[[int], None] | None = None

    def begin(
        self,
        plan: Plan,
        state: Tensor,
        noise: Noise | None = None,
        after_stage: Callable[[Tensor, Level], Tensor] | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The latents of the first call, float32 or float64 in the shape of `state`, which the pipeline must be given.

        Noise, `after_stage` and `on_call` are as for `samplers.core.integrate`.
        """
        if plan.draws and noise is None:
            raise ValueError("this plan draws noise: give begin() what it draws from")
        self._plan, self._hook, self._on_call, self.noise = plan, after_stage, on_call, noise  # type: ignore[assignment]
        self._given_walk = Walk(plan, state)
        first = self._given_walk.churn(noise)
        return first.clone() if not self.own_state else first * self._model().shown(self._given_walk.level)

    @property
    def level(self) -> Level:
        """Of the call that is next in the run that was begun."""
        return self._given_walk.level

    def end(self) -> Tensor:
        """The last state, float32 or float64; RuntimeError where the pipeline has not made every call."""
        walk = self._given_walk
        if not walk.over:
            raise RuntimeError(
                f"the pipeline made {walk.index} of the {len(walk.plan.stages)} calls of its plan: it skips some, or "
                "does not step by its scheduler"
            )
        return walk.state.clone()

    def forget_run(self) -> None:
        """No run is begun any more, whether it came to its end or not."""
        self._plan = None
        self._forget()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay out the calls of the plan that was begun, whatever is asked for; else raise `Asked`."""
        model = self._model()
        laid = model.lay(num_inference_steps, timesteps, sigmas, mu)
        if self._plan is None:
            raise Asked(laid)
        self._lay_out(model, self._plan, laid.told, device)
        self.num_inference_steps = len(self._plan.stages)
        self._first_calls = [0]
        self.order = 1

    def _scales(self, model: Replaced, level: Level) -> tuple[float, float]:
        if self.own_state:
            return super()._scales(model, level)
        seen, shown = super()._scales(model, level) if level.alpha else (1.0, 1.0)
        seen *= shown
        return (1.0 if abs(seen - 1) < ONE else seen), 1.0

    @property
    def init_noise_sigma(self) -> float:
        """1: the latents that `begin` gave are at the first level already."""
        return 1.0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Only the start can be begun at: the plan has no more than what is to be walked."""
        if begin_index:
            raise ValueError(f"a plan that is given is walked from its start, not from call {begin_index}")

    def _enter(self, timestep: float | Tensor | None) -> int:
        return 0

    def _begin(self, timestep: float | Tensor, sample: Tensor) -> Walk:
        self._index, self._walk = 0, self._given_walk
        return self._walk

    def _take(self, walk: Walk, sample: Tensor, call: Any) -> Tensor:
        # The first state is not taken back in a coarser type than it was given out in.
        if walk.index == 0 and sample.dtype != walk.state.dtype:
            return walk.state
        return super()._take(walk, sample, call)

    def step(self, *given: Any, **named: Any) -> Any:
        if self._on_call is not None:
            self._on_call(self._given_walk.index)
        return super().step(*given, **named)

    def _advanced(self, walk: Walk) -> None:
        if self._hook is not None:
            blended = self._hook(walk.state, walk.plan.stages[walk.index - 1].result)
            if blended is not walk.state:
                walk.state.copy_(blended)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: float | Tensor) -> Tensor:
        """Before the first call: the start that was given, in the place of a source that a pipeline noises itself."""
        if self._plan is not None and self._given_walk.index == 0:
            return self._given_walk.state.to(original_samples.dtype)
        return super().add_noise(original_samples, noise, timesteps)
