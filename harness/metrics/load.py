"""Metrics by name: `conf/metric/NAME.yaml` holds every knob, `harness/metrics/NAME.py` the code. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import yaml

from harness import bounds, paths, specs
from harness.errors import InputError, nearest
from harness.specs import MetricSpec

if TYPE_CHECKING:
    from harness.metrics.base import Metric, Options
    from harness.metrics.context import Context

CONF = paths.CONF / "metric"
DEFAULT = ("fid", "kid", "precision_recall", "clip_score", "discretisation", "similarity", "attributes")
Asked = str | Mapping[str, Any]  # a name, or a mapping with `name` and some of the metric's knobs


def names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml"))


@cache
def _defaults(name: str) -> Options:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))


def metric_class(name: str) -> type[Metric]:
    """The class in `harness/metrics/NAME.py` that carries the name. Its module imports no torch."""
    module = import_module(f"harness.metrics.{name}")
    return next(v for v in vars(module).values() if isinstance(v, type) and getattr(v, "name", None) == name)


def options(asked: Asked) -> Options:
    """Every knob of one metric; InputError for an unknown name or knob."""
    given = {"name": asked} if isinstance(asked, str) else dict(asked)
    name = given.get("name")
    if name not in names():
        raise InputError(f"metric {name!r} is not known; {nearest(str(name), names())}")
    defaults = _defaults(name)
    for knob in given:
        if knob not in defaults:
            raise InputError(f"{knob!r} is not an option of metric {name}; {nearest(knob, defaults)}")
    full = {**defaults, **given}
    for knob, default in defaults.items():
        most = bounds.METRICS.get(knob, bounds.MOST_OF_A_METRIC)
        if type(default) is int and (type(full[knob]) is not int or not 1 <= full[knob] <= most):
            said = bounds.said(1, most, "whole number")
            raise InputError(f"{knob}={bounds.shown(full[knob])} of metric {name} is not valid: {said}")
    return full


def settled(given: Any) -> tuple[str | MetricSpec, ...]:
    """The metrics of a cell, checked: a set, so in one order whatever was written; a name alone is a set of one."""
    asked = [given] if isinstance(given, (str, Mapping)) else given
    if not isinstance(asked, list):
        raise InputError(f"metrics={given!r} is not valid: give names, as in metrics=[fid,clip_score], or [] for none")
    check(asked)
    known = {name: place for place, name in enumerate(DEFAULT)}  # then exact and law

    def place(metric: str | MetricSpec) -> tuple[int, str]:
        name = metric if isinstance(metric, str) else metric.name
        return known.get(name, len(known)), name

    return tuple(sorted(specs.metrics(asked), key=place))


def check(asked: Sequence[Asked]) -> None:
    """InputError for an unknown name, a knob that is not valid, or a network that is asked for and not there."""
    seen: set[str] = set()
    for one in asked:
        full = options(one)
        if full["name"] in seen:
            raise InputError(f"metric {full['name']!r} is named twice: name it once")
        seen.add(full["name"])
        metric_class(full["name"]).check(full)


def build(asked: Sequence[Asked], context: Context) -> list[Metric]:
    """The metrics among `asked` that have a meaning for this cell (similarity needs a source, ...)."""
    check(asked)
    built = []
    for one in asked:
        full = options(one)
        kind = metric_class(full["name"])
        if (context.makes_images or not kind.needs_images) and kind.applies(context):
            built.append(kind(context, full))
    return built
