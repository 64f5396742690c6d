"""SA-Solver: Xue et al. 2023 (2309.05019), stochastic Adams predictor and corrector on x0.

In λ = log(α/σ) the SDE of strength τ has e^{−τ²h}·(σ'/σ)·x + α'·∫(1+τ²)e^{−(1+τ²)(λ'−λ)}·x0 dλ + noise as its solution
(eq. 14); x0 is the polynomial through the last calls. The corrector takes the same step again with the call at its end,
from the same state and with the same noise, so it changes the state by denoiser outputs alone: a corrected step is one
stage, as in UniPC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels
from samplers.core.plan import Plan
from samplers.core.solver import Solver
from samplers.core.stage import Capabilities, Stage, is_lowered
from samplers.solvers.parts.coefficients import X0, exponential
from samplers.solvers.parts.noise_split import sde_step

MODES = ("pec", "pece")
MAX_ORDER = 4


@dataclass(frozen=True)
class SASolver(Solver):
    """`predictor_order` 1 to 4 is the number of past x0, `corrector_order` 0 (off) to 4 that number with the new one.

    `mode`: predict, evaluate, correct ("pec", one call a step), or evaluate the corrected state again ("pece", two).
    τ is `tau` in steps that start at a σ/α in [s_tmin, s_tmax] and 0 elsewhere. `simple_order_2`: second-order steps
    with the paper's simpler coefficients (appendix D) instead of the exact integral. A step to σ = 0 is first order.
    """

    predictor_order: int = 2
    corrector_order: int = 2
    mode: str = "pec"
    tau: float = 1.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    simple_order_2: bool = True
    lower_order_final: bool | int | str = True

    def __post_init__(self) -> None:
        self._one_of("predictor_order", range(1, MAX_ORDER + 1))
        self._one_of("corrector_order", range(MAX_ORDER + 1))
        self._one_of("mode", MODES)
        self._not_negative("tau", "s_noise")

    def declares(self, steps: int) -> Capabilities:
        """A corrector of order q lifts a predictor of order p to min(p + 1, q) at τ = 0. In law, 2 is the most seen."""
        order = max(self.predictor_order, min(self.predictor_order + 1, self.corrector_order))
        nfe = 2 * steps - 1 if self.mode == "pece" and self.corrector_order > 0 else steps
        noisy = self.tau > 0 and self.s_noise > 0
        return Capabilities(order=min(order, 2) if self.tau > 0 else order, nfe=nfe, stochastic=noisy)

    def plan(self, levels: NoiseLevels) -> Plan:
        lowers = is_lowered(self.lower_order_final, levels)
        table = _Table()
        for k in range(levels.steps):
            now, then = levels[k], levels[k + 1]
            left = levels.steps - k if lowers else MAX_ORDER
            table.evaluate(now, again=self.mode == "pece")
            strength = self.tau if self.s_tmin <= now.ratio <= self.s_tmax else 0.0
            p = 1 if then.sigma == 0 else min(self.predictor_order, left)
            predictor = table.weights(now, then, table.nodes(p), strength, self.simple_order_2)
            a, noise = sde_step(now, then, strength**2)
            table.move(now, then, a, predictor, noise * self.s_noise)
            q = 0 if k + 1 == levels.steps or now.alpha == 0 else min(self.corrector_order, left + 1)
            if q:  # known already but for the value that the next call will bring
                nodes = [(table.calls, then), *table.nodes(q - 1)]
                corrector = table.weights(now, then, nodes, strength, self.simple_order_2)
                table.correction = {c: corrector.get(c, 0) - predictor.get(c, 0) for c in {*corrector, *predictor}}
        return Plan(levels[0], tuple(table.stages), self.declares(levels.steps))


class _Table:
    """Writes stages: calls have numbers, weights are given by call."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.calls = 0
        self.history: list[tuple[int, Level]] = []  # (call, level), newest first: the nodes of the polynomials
        self.correction: dict[int, float] = {}  # what the next call's state still lacks

    def evaluate(self, level: Level, again: bool) -> None:
        """The call at a predicted state; with `again` the corrected state is made and evaluated too."""
        self.calls += 1
        self.history.insert(0, (self.calls - 1, level))
        if again and self.correction:
            self.stages.append(Stage(level, level, (1.0,), self._by_age(self.correction)))
            self.correction = {}
            self.calls += 1
            self.history[0] = (self.calls - 1, level)

    def nodes(self, count: int) -> list[tuple[int, Level]]:
        """The last calls, at most so many; a level of pure noise lies at λ = −∞ and bends no polynomial."""
        return [node for j, node in enumerate(self.history[:count]) if j == 0 or node[1].alpha > 0]

    def weights(
        self, now: Level, then: Level, nodes: list[tuple[int, Level]], tau: float, simple: bool
    ) -> dict[int, float]:
        """Weights of the nodes' x0 in α'·∫(1+τ²)e^{−(1+τ²)(λ'−λ)}·(polynomial through them) dλ, by call."""
        a, _ = sde_step(now, then, tau**2)
        whole = then.alpha - now.alpha * a
        if len(nodes) == 1:
            return {nodes[0][0]: whole}
        h = then.lam - now.lam
        base = next(call for call, level in nodes if level == now)
        others = [(call, (level.lam - now.lam) / h) for call, level in nodes if call != base]
        grown = (1 + tau**2) * h
        if simple and len(others) == 1:  # the slope of x0 weighs (1+τ²)h²/2, not its integral
            slopes = [grown / 2 / others[0][1]]
        else:
            slopes = exponential([r for _, r in others], grown, X0)
        weights = {call: then.alpha * slope for (call, _), slope in zip(others, slopes, strict=True)}
        return {**weights, base: whole - sum(weights.values())}

    def move(self, now: Level, then: Level, a: float, weights: dict[int, float], noise: float) -> None:
        x0 = dict(weights)
        for call, weight in self.correction.items():
            x0[call] = x0.get(call, 0.0) + a * weight
        self.stages.append(Stage(now, then, (a,), self._by_age(x0), noise))
        self.correction = {}

    def _by_age(self, weights: dict[int, float]) -> tuple[float, ...]:
        oldest = min(weights)
        return tuple(weights.get(call, 0.0) for call in range(self.calls - 1, oldest - 1, -1))


SOLVER = SASolver
