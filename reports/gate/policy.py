"""What counts as a regression: the values of conf/check/NAME.yaml, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness import paths
from harness.errors import InputError, nearest
from harness.statistics import CORRECTIONS
from harness.store.schema import TABLES

CONF = paths.CONF / "check"
WORSE = ("higher", "lower", "either")
ANSWERS = ("regression", "inconclusive", "pass")
DETERMINISTIC = ("flops_relative", "same_platform_db", "other_platform_db", "low_precision_db")
COVERAGE = ("vanished", "failed", "skipped")
NUMBERS = ("alpha", "min_images", "undecided")


@dataclass(frozen=True)
class Rule:
    """How large a change of one metric must be to matter, and to which side."""

    metric: str
    worse: str  # higher | lower | either
    margin: float = 0.0  # in the metric's unit
    relative: float = 0.0  # of the baseline's value


@dataclass(frozen=True)
class Policy:
    name: str
    alpha: float
    correction: str
    min_images: int
    undecided: float
    deterministic: dict[str, float]
    quality: tuple[Rule, ...]
    coverage: dict[str, str]


def load(name: str) -> Policy:
    """`name`: a file of conf/check without its ending, or a path to a YAML of one's own. InputError where wrong."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no policy {name!r}; {nearest(name, [p.stem for p in CONF.glob('*.yaml')])}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return _parse(path.name, values)


def _parse(name: str, values: Any) -> Policy:
    _keys(name, "", values, (*NUMBERS, "correction", "deterministic", "quality", "coverage"))
    _keys(name, "deterministic.", values["deterministic"], DETERMINISTIC)
    _keys(name, "coverage.", values["coverage"], COVERAGE)
    if values["correction"] not in CORRECTIONS:
        raise InputError(f"{name}: correction={values['correction']!r}; {nearest(values['correction'], CORRECTIONS)}")
    for key, answer in values["coverage"].items():
        if answer not in ANSWERS:
            raise InputError(f"{name}: coverage.{key}={answer!r}; {nearest(str(answer), ANSWERS)}")
    numbers = {key: _number(name, key, values[key]) for key in NUMBERS}
    numbers["min_images"] = int(numbers["min_images"])
    return Policy(
        name=name,
        correction=values["correction"],
        deterministic={key: _number(name, key, value) for key, value in values["deterministic"].items()},
        quality=tuple(_rule(name, metric, given) for metric, given in values["quality"].items()),
        coverage=dict(values["coverage"]),
        **numbers,
    )


def _rule(name: str, metric: str, given: Any) -> Rule:
    known = ["fid", *(column.name for column in TABLES["images"] if column.kind == "float")]
    if metric not in known:
        raise InputError(f"{name}: {metric!r} is not a value that images have; {nearest(str(metric), known)}")
    if not isinstance(given, dict) or set(given) - {"worse", "margin", "relative"} or given.get("worse") not in WORSE:
        raise InputError(f"{name}: quality.{metric} takes worse ({', '.join(WORSE)}), margin and relative")
    margins = {key: _number(name, f"{metric}.{key}", given[key]) for key in ("margin", "relative") if key in given}
    return Rule(metric, given["worse"], **margins)


def _keys(name: str, where: str, values: Any, valid: tuple[str, ...]) -> None:
    given = set(values) if isinstance(values, dict) else set()
    for key in sorted(given - set(valid), key=str):
        raise InputError(f"{name}: {where}{key} is not known; {nearest(str(key), valid)}")
    for key in valid:
        if key not in given:
            raise InputError(f"{name}: {where}{key} is missing")


def _number(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise InputError(f"{name}: {key}={value!r} is not valid: give a number of at least 0 (1.0e-6, not 1e-6)")
    return float(value)
