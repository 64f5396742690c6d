"""Gaussian mixtures as plain numbers: what an analytic model is made of, checked before it is loaded. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.errors import InputError, nearest
from samplers.core.levels import Level

ANY = -1  # the class of the whole mixture, prompt ""

DRAWN_KEYS = ("dimension", "modes", "classes", "spread")
MOST_NUMBERS = 1 << 24  # modes x coordinates
MOST_BYTES = 64 << 20  # the largest file of a mixture
DEEPEST = 8  # lists in lists of it: three are needed


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k weights[k] · N(means[k], diag(variances[k])), float64; mode k belongs to class labels[k]."""

    means: np.ndarray  # (K, d)
    variances: np.ndarray  # (K, d), above 0
    weights: np.ndarray  # (K,), sum 1
    labels: np.ndarray  # (K,) int64, positions in `classes`
    classes: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def class_ids(self, prompts: Sequence[str]) -> np.ndarray:
        """(N,) int64: the class that each prompt names, ANY for the empty one."""
        for prompt in prompts:
            if prompt and prompt not in self.classes:
                hint = nearest(prompt, self.classes) if self.classes else "this model has no classes"
                raise InputError(f'class {prompt!r} is unknown; {hint}, or "" for the whole mixture')
        return np.array([self.classes.index(prompt) if prompt else ANY for prompt in prompts], np.int64)

    def class_weights(self) -> np.ndarray:
        """(classes + 1, K): weights of the modes within each class, in the last row (index ANY) those of the whole."""
        rows = np.where(self.labels == np.arange(len(self.classes))[:, None], self.weights, 0.0)
        return np.concatenate([rows / rows.sum(1, keepdims=True), self.weights[None]])

    def at(self, level: Level) -> Mixture:
        """The law of a state α·x0 + σ·ε at this level."""
        variances = level.alpha**2 * self.variances + level.sigma**2
        return replace(self, means=level.alpha * self.means, variances=variances)

    def of_classes(self, ids: np.ndarray) -> Mixture:
        """The law of a point of one of these images (class ids, (N,)), each as likely as the others."""
        return replace(self, weights=self.class_weights()[ids].mean(0))

    def mean(self) -> np.ndarray:
        return self.weights @ self.means

    def covariance(self) -> np.ndarray:
        centred = self.means - self.mean()
        return np.diag(self.weights @ self.variances) + (centred.T * self.weights) @ centred

    def sample(self, rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
        """One true point for each class id, (N, d)."""
        chances = np.cumsum(self.class_weights()[ids], 1)
        mode = (rng.random((len(ids), 1)) * chances[:, -1:] > chances).sum(1)
        return self.means[mode] + np.sqrt(self.variances[mode]) * rng.standard_normal((len(ids), self.dimension))


def plane() -> Mixture:
    """Five modes in the plane: the problem that the order table of samplers is measured on.

    Classes are what lies to the right of the middle (modes 0 and 3), to the left of it (1 and 2), and in it (4).
    """
    return _mixture(
        means=[[1.2, 0.3], [-0.9, 1.0], [-0.4, -1.3], [0.8, -0.9], [0.0, 0.2]],
        stds=[0.35, 0.45, 0.30, 0.40, 0.50],
        weights=[0.25, 0.20, 0.20, 0.20, 0.15],
        classes=["right", "left", "left", "right", "centre"],
    )


# ------------------------------------------------------------------------------------------------- from conf/model


def mixture(spec: Mapping[str, Any]) -> Mixture:
    """The numbers of the model. Raises InputError."""
    if spec["density"] == "gaussian":
        return _gaussian(spec)
    if spec.get("file") is not None:
        return _from_file(Path(str(spec["file"])).expanduser())
    if spec.get("seed") is not None:
        return _drawn(spec)
    defaults = {"dimension": 2, "modes": 5, "classes": 3, "spread": 0.4}
    for key in DRAWN_KEYS:
        if spec.get(key, defaults[key]) != defaults[key]:
            raise InputError(f"model.{key}={spec[key]!r} is of a drawn mixture: give model.seed=0 (or any number) too")
    return plane()


def _gaussian(spec: Mapping[str, Any]) -> Mixture:
    dimension = _whole(spec, "dimension")
    mean = np.asarray(spec["mean"], np.float64) if _is_numbers(spec["mean"]) else np.array(np.nan)
    if mean.shape not in ((), (dimension,)) or not np.isfinite(mean).all():
        raise InputError(f"model.mean={spec['mean']!r} is not valid: give a number, or a list of {dimension}")
    stds = np.geomspace(positive(spec, "std_first"), positive(spec, "std_last"), dimension)
    return _mixture(np.broadcast_to(mean, (1, dimension)), stds[None], [1.0], None)


def _drawn(spec: Mapping[str, Any]) -> Mixture:
    seed, dimension, modes = _whole(spec, "seed", 0), _whole(spec, "dimension"), _whole(spec, "modes")
    classes, spread = _whole(spec, "classes"), positive(spec, "spread")
    if classes > modes:
        raise InputError(f"model.classes={classes} is more than model.modes={modes}: every class needs a mode")
    if modes * dimension > MOST_NUMBERS:
        raise InputError(f"a mixture of {modes} modes in {dimension} dimensions is too large (at most {MOST_NUMBERS})")
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((modes, dimension))
    stds, weights = spread * rng.uniform(0.75, 1.25, modes), rng.uniform(0.5, 1.5, modes)
    return _mixture(means, stds, weights / weights.sum(), [str(k % classes) for k in range(modes)])


def _from_file(path: Path) -> Mixture:
    try:
        given = _plain_yaml(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"model.file={path} cannot be read ({str(error).splitlines()[0]})") from error
    keys = ("means", "stds", "weights", "classes")
    if not isinstance(given, dict) or not {*keys[:3]} <= {*given} <= {*keys}:
        raise InputError(f"model.file={path} must hold means, stds, weights and, if there are any, classes")
    try:
        return _mixture(given["means"], given["stds"], given["weights"], given.get("classes"))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"model.file={path}: {error}") from error


def _plain_yaml(path: Path) -> Any:
    """The content of a YAML or JSON file: no objects of Python, and no references, by which a few lines become huge."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size >> 20} MiB")
    text = path.read_text(encoding="utf-8")
    if _depth(text) > DEEPEST:  # YAML's reader takes the square of it in time
        raise ValueError(f"its lists are nested deeper than {DEEPEST}")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("it has references (*name), which are not taken")
    return yaml.safe_load(text)  # JSON is YAML, too


def _depth(text: str) -> int:
    """How deep brackets are nested."""
    deepest = depth = 0
    for bracket in re.finditer(r"[\[{\]}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _mixture(means: Any, stds: Any, weights: Any, classes: Sequence[Any] | None) -> Mixture:
    """Arrays of the right shapes and values, or a ValueError. `stds` has a number a mode, or one a coordinate."""
    means, stds, weights = (np.asarray(values, np.float64) for values in (means, stds, weights))
    if means.ndim != 2 or not means.size or weights.shape != means.shape[:1]:
        raise ValueError("means must be a list of points of one dimension, with a weight for each")
    if stds.shape not in (means.shape[:1], means.shape):
        raise ValueError("stds must have one number a mode, or one a coordinate of each mode")
    if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
        raise ValueError("means must be finite and stds finite and above 0")
    if not ((weights > 0).all() and abs(weights.sum() - 1) < 1e-9):
        raise ValueError(f"weights must be above 0 and sum to 1, they sum to {weights.sum():.12g}")
    if classes is not None and (len(classes) != len(means) or not all(str(name) for name in classes)):
        raise ValueError("classes must name a class for each mode")
    labels = [str(name) for name in classes] if classes is not None else []
    names = tuple(dict.fromkeys(labels))
    return Mixture(
        means=means,
        variances=np.broadcast_to((stds if stds.ndim == 2 else stds[:, None]) ** 2, means.shape),
        weights=weights / weights.sum(),
        labels=np.array([names.index(name) for name in labels] or [ANY] * len(means), np.int64),
        classes=names,
    )


def _whole(spec: Mapping[str, Any], key: str, low: int = 1) -> int:
    given = spec[key]
    if isinstance(given, bool) or not isinstance(given, int) or given < low:
        raise InputError(f"model.{key}={given!r} is not valid: give a whole number of at least {low}")
    return given


def positive(spec: Mapping[str, Any], key: str) -> float:
    given = spec[key]
    if not _is_numbers(given) or isinstance(given, list) or not 0 < given < float("inf"):
        raise InputError(f"model.{key}={given!r} is not valid: give a number above 0")
    return float(given)


def _is_numbers(given: Any) -> bool:
    return all(
        isinstance(number, (int, float)) and not isinstance(number, bool)
        for number in (given if isinstance(given, list) else [given])
    )
