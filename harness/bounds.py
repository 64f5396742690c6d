"""What a value on a command line may be: a number is finite and has two ends. Imports nothing heavy.

The ends are where a value stops to be a question of sampling: beyond them lie a slip of the hand, an array that no
machine holds, or arithmetic that overflows. What is possible between them is the business of whoever reads the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import InputError, nearest

MOST_STEPS = 5_000  # the most steps of a schedule, run or not: five times what models are trained at
MOST_SEED = 2**63 - 1  # the largest whole number that a column of records holds
LARGEST = 1e9  # the largest value of a knob that is not named below
COORDINATES = 10_000_000  # modes times dimension of a drawn mixture: 80 MB a table

CFG = (0, 1_000)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`; both are valid. `hint` ends the message.

    >>> Whole(1, 100)("steps", 20.0)
    20
    >>> Whole(1, 100)("steps", 0)
    Traceback (most recent call last):
    harness.errors.InputError: steps=0 is not valid: give a whole number from 1 to 100
    """

    low: int
    high: int
    hint: str = ""

    def __call__(self, name: str, given: Any) -> int:
        """`given` as an integer, or an InputError that says what was given and what is valid."""
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool) and self.low <= given <= self.high
        if not is_number or given != int(given):
            valid = said(self.low, self.high, "whole number")
            raise InputError(f"{name}={shown(given)} is not valid: {valid}{self.hint}")
        return int(given)


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; both are valid."""

    low: float
    high: float

    def __call__(self, name: str, given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not self.low <= given <= self.high:
            raise InputError(f"{name}={shown(given)} is not valid: {said(self.low, self.high)}")
        return float(given)


@dataclass(frozen=True)
class YesOrNo:
    """True or false: a text such as "no" is neither."""

    def __call__(self, name: str, given: Any) -> bool:
        if not isinstance(given, bool):
            raise InputError(f"{name}={given!r} is not valid: give true or false")
        return given


@dataclass(frozen=True)
class OneOf:
    """One of a few words. `also`: other words for some of them."""

    valid: tuple[str, ...]
    also: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, name: str, given: Any) -> str:
        given = self.also.get(given, given) if isinstance(given, str) else given
        if given not in self.valid:
            raise InputError(f"{name}={given!r} is not valid; {nearest(given, self.valid)}")
        return given


@dataclass(frozen=True)
class Text:
    """Any text: of what nobody gives, as it is found out."""

    def __call__(self, name: str, given: Any) -> str:
        return str(given)


@dataclass(frozen=True)
class Interval:
    """Two finite numbers in rising order, both from `low` to `high`; an empty list is no interval."""

    low: float
    high: float

    def __call__(self, name: str, given: Any) -> tuple[float, ...]:
        if isinstance(given, (list, tuple)) and not given:
            return ()
        if not isinstance(given, (list, tuple)) or len(given) != 2:
            raise InputError(f"{name}={shown(given)} is not valid: give two numbers, {name}=[0.2,3]")
        first, last = (Number(self.low, self.high)(name, one) for one in given)
        if first >= last:
            raise InputError(f"{name}={shown(given)} is not valid: give the smaller number first")
        return first, last


# Of an adapter, beside its kind and the path of its weights; those that are numbers, with their ends.
_SHOWN = ("scale", "hint", "images", "annotator")
ADAPTERS: dict[str, tuple[str, ...]] = {
    "lora": ("scale",),
    "textual_inversion": ("token",),
    "controlnet": (*_SHOWN, "start", "end"),
    "t2i_adapter": _SHOWN,
    "ip_adapter": ("scale", "image", "encoder"),
}
ADAPTER_NUMBERS = {"scale": (-10, 10), "start": (0, 1), "end": (0, 1)}


def _named(name: str, one: Any) -> Any:
    """One of a mapping: where it says no kind and its name is one, it is of that."""
    return {"kind": name, **one} if isinstance(one, Mapping) and name in ADAPTERS else one


@dataclass(frozen=True)
class Adapters:
    """A list of adapters, or a mapping of them by names of their user's: adapters.NAME.scale=0,0.5,1 then sweeps.

    A name that is a kind needs no `kind`: adapters.lora.path=FILE.
    """

    def __call__(self, name: str, given: Any) -> tuple[Mapping[str, Any], ...]:
        usage = f"give a list as {name}=[{{kind: lora, path: FILE, scale: 0.8}}]"
        each = [_named(*one) for one in given.items()] if isinstance(given, Mapping) else given
        if not isinstance(each, (list, tuple)) or not all(isinstance(one, Mapping) for one in each):
            raise InputError(f"{name}={shown(given)} is not valid: {usage}")
        return tuple(self._one(name, dict(one), usage) for one in each)

    def _one(self, name: str, one: Mapping[str, Any], usage: str) -> Mapping[str, Any]:
        kind = one.get("kind")
        if kind not in ADAPTERS:
            raise InputError(f"{name}: kind={kind!r} is not valid; {nearest(str(kind), ADAPTERS)}")
        if not isinstance(one.get("path"), str):
            raise InputError(f"{name}: path={shown(one.get('path'))} is not valid; {usage}")
        valid = ("kind", "path", "sha256", *ADAPTERS[kind])
        for knob, value in one.items():
            if knob not in valid:
                raise InputError(f"{name}: a {kind} has no {knob!r}; {nearest(str(knob), valid)}")
            if knob in ADAPTER_NUMBERS:
                Number(*ADAPTER_NUMBERS[knob])(f"{name}.{knob}", value)
        return one


# Numbers that say how a sweep runs; those of a cell stand in harness/axes.py.
SETTINGS = {
    "workers": Whole(1, 1_024),
    "retries": Whole(0, 1_000),
    "cell_timeout": Number(1e-3, 10_000_000),
    "shard_images": Whole(1, 1_000_000_000),
    "price_per_hour": Number(0, 1_000_000),
}
_ORDER, _SHIFT, _LENGTH, _RHO, _SCALE = (0, 20), (-10, 10), (1, 10_000_000), (0, 100), (0, 1_000_000)
KNOBS: dict[str, dict[str, tuple[float, float]]] = {
    "task": {"null_text": (0, 1_000), "null_text_rate": (1e-6, 10)},
    "guidance": {"rescale": (0, 1), "percentile": (0, 1)},
    "model": {
        "height": (1, 8_192),
        "width": (1, 8_192),
        "max_sequence_length": (1, 4_096),
        "num_frames": (1, 10_000),
        "default_cfg": CFG,
        "seed": (0, MOST_SEED),
        "dimension": (1, 10_000),
        "modes": (1, 10_000),
        "classes": (1, 10_000),
        "spread": (1e-6, 1e6),
        "mean": (-1e6, 1e6),
        "std_first": (1e-6, 1e6),
        "std_last": (1e-6, 1e6),
        "beta_start": (0, 1),
        "beta_end": (0, 1),
    },
    "sampler": {
        **dict.fromkeys(("order", "max_order", "predictor_order", "corrector_order"), _ORDER),
        **dict.fromkeys(("eta", "tau", "rtol", "atol", "accept_safety"), (0, 10)),
        **dict.fromkeys(("h_init", "r", "r_1", "r_2"), (1e-3, 10)),
        **dict.fromkeys(("pcoeff", "icoeff", "dcoeff"), (-10, 10)),
        **dict.fromkeys(("lower_order_final", "disable_corrector"), (0, MOST_STEPS)),
        "s_churn": (0, 10_000),
        "s_tmin": _SCALE,
        "s_tmax": (0, math.inf),  # inf: churn from the noisiest level on
        "s_noise": (0, 100),
        "points": (1, 10_000),
        "gamma": (0, 100),
        "sweeps": (0, 100),
        "sigma_data": (1e-3, 1_000),
        "timestep_scaling": _SCALE,
        "intervals": (0, 1_000),
        "rho": (0, 100),
    },
    "schedule": {
        **dict.fromkeys(("alpha", "beta"), (0.01, 100)),
        **dict.fromkeys(("mu", "base_shift", "max_shift"), _SHIFT),
        **dict.fromkeys(("image_seq_len", "base_image_seq_len", "max_image_seq_len"), _LENGTH),
        **dict.fromkeys(("threshold_noise", "shift_terminal", "t_max", "t_min"), (0, 1)),
        "eps_s": (1e-5, 0.99),  # below, the levels that span a model's range overflow
        "beta_d": (0, 500),
        "beta_min": (0, 100),
        "shift": (1e-3, 1_000),
        "coeff": (0.01, 100),
        "rho": (0.1, 100),
        "offset": (0, MOST_STEPS),
        "linear_steps": (0, MOST_STEPS),
    },
    "data": {"start": (0, 1_000_000_000), "two_objects": (0, 1), "order_seed": (0, MOST_SEED)},
}
# Whole numbers of the metrics: at least 1, at most …
METRICS = {"resamples": 100_000, "degree": 10, "splits": 1_000, "n": 1_000_000}
MOST_OF_A_METRIC = 10_000


def check_knobs(values: Mapping[str, Any]) -> None:
    """InputError for a number in one of the groups that is not finite or beyond its ends.

    `values` is a composed config. Only numbers are looked at, those in lists included: what is a text where a number
    belongs is said by whoever reads the knob.
    """
    for group, known in KNOBS.items():
        for knob, given in values[group].items():
            low, high = known.get(knob, (-LARGEST, LARGEST))
            for one in _numbers(given):
                if not low <= one <= high:
                    raise InputError(f"{group}.{knob}={shown(given)} is not valid: {said(low, high)}")
    model = values["model"]
    modes, dimension = model.get("modes"), model.get("dimension")
    drawn = model.get("seed") is not None and all(isinstance(n, int) for n in (modes, dimension))
    if drawn and modes * dimension > COORDINATES:
        raise InputError(
            f"model.modes={modes} with model.dimension={dimension} is not valid: give numbers whose product is at most "
            f"{COORDINATES:,}"
        )


def said(low: float, high: float, kind: str = "number") -> str:
    """What to do: "give a number from 0 to 1"."""
    if math.isinf(high):
        return f"give a {kind} of at least {_text(low)}"
    return f"give a {kind} from {_text(low)} to {_text(high)}"


def shown(given: Any) -> str:
    """What was given, in at most 80 characters."""
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _text(end: float) -> str:
    return f"{end:,}" if isinstance(end, int) else f"{end:g}"


def _numbers(given: Any) -> Iterator[float]:
    if isinstance(given, (list, tuple)):
        for one in given:
            yield from _numbers(one)
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        yield given
