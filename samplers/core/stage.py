"""One turn of a solver (a denoiser call and the new state), and what a solver declares of itself. Knows no tensor."""

from __future__ import annotations

from dataclasses import dataclass

from samplers.core.levels import Level, NoiseLevels


@dataclass(frozen=True)
class Capabilities:
    """What a solver declares about itself for a number of steps; tests hold the loop and the plans to it."""

    order: int  # order of convergence of the deterministic method
    # Denoiser calls of the whole run, at most: a method of several calls a step may spend one on a step to σ = 0 or
    # from pure noise. None: decided while it runs (adaptive).
    nfe: int | None
    stochastic: bool = False  # may draw noise after the initial one


@dataclass(frozen=True)
class Stage:
    """One denoiser call and the new state.

        x ← churn[0]·x + churn[1]·noise        only where churn is not (1, 0)
        D = denoise(x, level)
        x ← Σ_j states[j]·X_j + Σ_j x0[j]·D_j + noise·(fresh noise)

    X_j and D_j are what the denoiser was given and what it answered j calls ago: X_0 = x, D_0 = D. Zeros at the end
    of `states` and `x0` are dropped. On a Brownian path the fresh noise is the path's increment from `since` to
    `result`, where None means `level`. A step of several calls that adds its noise at its end gives its own beginning.
    """

    level: Level
    result: Level  # level of the new state
    states: tuple[float, ...]
    x0: tuple[float, ...]
    noise: float = 0.0
    churn: tuple[float, float] = (1.0, 0.0)
    since: Level | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", _trimmed(self.states))
        object.__setattr__(self, "x0", _trimmed(self.x0))

    @property
    def noise_from(self) -> Level:
        """The level from which the fresh noise is an increment to `result`."""
        return self.level if self.since is None else self.since

    @property
    def draws(self) -> int:
        return (self.churn[1] != 0) + (self.noise != 0)


def first_order(now: Level, then: Level) -> tuple[float, float]:
    """(a, b) of x' = a·x + b·x0 with the noise direction ε = (x − α·x0)/σ held: Euler, DDIM and DPM-Solver-1 alike.

    >>> first_order(Level(1.0, 4.0, 999), Level(1.0, 1.0, 500))
    (0.25, 0.75)
    """
    return then.sigma / now.sigma, then.alpha - now.alpha * (then.sigma / now.sigma)


def is_lowered(lower_order_final: bool | int | str, levels: NoiseLevels) -> bool:
    """Whether a run over these levels ends in lower orders: always, never, below a number of steps, or (`zero`) where
    it ends at σ = 0."""
    if isinstance(lower_order_final, bool):
        return lower_order_final
    if lower_order_final == "zero":
        return bool(levels.sigma[-1] == 0)
    if not isinstance(lower_order_final, int) or lower_order_final < 0:
        raise ValueError(f"lower_order_final={lower_order_final!r} must be true, false, zero or a number of steps")
    return levels.steps < lower_order_final


def _trimmed(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    used = len(coefficients)
    while used and not coefficients[used - 1]:
        used -= 1
    return tuple(map(float, coefficients[:used]))
