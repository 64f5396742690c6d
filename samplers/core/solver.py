"""What is asked of a solver: a frozen dataclass of its knobs that turns noise levels into a plan. Knows no tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities

if TYPE_CHECKING:  # planning a sweep must not load torch
    from torch import Tensor

    from samplers.core.noise import NoiseStreams


@dataclass(frozen=True)
class Solver:
    """The base of every solver: a frozen dataclass whose fields are the knobs, each with its default.

    A module of samplers/solvers holds one solver and names it at its end, `SOLVER = DPMpp`; conf/sampler/NAME.yaml
    explains its knobs. `__post_init__` checks what can be checked without a file or levels: a ValueError of one line
    says what was given and what is valid. Every solver writes `declares`, and most write `plan` and nothing else.
    """

    adaptive: ClassVar[bool] = False  # it chooses its steps while it runs: it writes `solve` and no `plan`
    own_levels: ClassVar[bool] = False  # it brings the levels it runs on and plans for no others: it writes `schedule`

    def declares(self, steps: int) -> Capabilities:
        """Order, denoiser calls and whether noise is drawn, for so many steps. ValueError where its file is no good."""
        raise NotImplementedError(f"{type(self).__name__} declares nothing")

    def plan(self, levels: NoiseLevels) -> Plan:
        """The coefficients of a run over these levels. ValueError where the method has none for them."""
        raise NotImplementedError(f"{type(self).__name__} has no plan")

    def solve(
        self,
        ends: NoiseLevels,
        denoise: Callable[[Tensor, Level], Tensor],
        x: Tensor,
        noise: NoiseStreams | None = None,
        on_call: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The state at the last of `ends`, from the state x (1, …) of one image at the first; for an adaptive solver.

        `on_call(i)` follows every denoiser call. ValueError where the run does not arrive.
        """
        raise NotImplementedError(f"{type(self).__name__} has a plan: give it to samplers.core.integrate")

    def schedule(self, process: Process) -> NoiseLevels:
        """The levels that the solver brings, on the model's process; for a solver with `own_levels`."""
        raise NotImplementedError(f"{type(self).__name__} runs on the levels that it is given")

    def settle(self) -> Mapping[str, Any]:
        """The knobs that name a file, with its digest, so that a record says what ran even if the file changes.

        Empty for a solver that reads no file. ValueError for a file that is not there or is not the one asked for.
        """
        return {}

    def elsewhere(self, model: str, fingerprint: str, cfg: float) -> str | None:
        """What a reader must know where the method was made for another model or guidance scale than these.

        None where it is at home, and for every method that was made for none.
        """
        return None

    def _one_of(self, knob: str, valid: Iterable[Any]) -> None:
        """ValueError unless the knob has one of these values, which are words or whole numbers."""
        given, choices = getattr(self, knob), list(valid)
        if isinstance(given, bool | float) or given not in choices:
            named = f"{valid[0]} to {valid[-1]}" if isinstance(valid, range) else ", ".join(map(str, choices))
            raise ValueError(f"{knob}={given!r} is not a choice of {self.called()}; valid: {named}")

    def _not_negative(self, *knobs: str) -> None:
        """ValueError where one of these knobs is below 0."""
        for knob in knobs:
            if getattr(self, knob) < 0:
                raise ValueError(f"{knob}={getattr(self, knob)} of {self.called()} must not be negative")

    @classmethod
    def called(cls) -> str:
        """What a sampler's YAML calls the solver: the name of its module."""
        return cls.__module__.rpartition(".")[2]
