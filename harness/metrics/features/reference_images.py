"""Features of the reference images: computed once, kept on disk under a hash of their content."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.atomic import written_whole
from harness.errors import InputError
from harness.metrics.base import FeatureExtractor
from harness.metrics.context import Context
from harness.metrics.features.files import short_hash
from harness.metrics.features.moments import Gaussian, Moments

VERSION = 2  # the version of the cached file's format
KEPT = 30_000  # features kept for KID and precision/recall; the moments are of all reference images


@dataclass
class Reference:
    gaussian: Gaussian
    features: np.ndarray  # float32 (at most KEPT, dim)
    once: dict[Any, Any] = field(default_factory=dict, repr=False)  # what metrics compute of the reference alone


def get(context: Context, extractor: FeatureExtractor) -> Reference | None:
    """From memory, else from the cache, else computed. None where the data has no reference images."""
    if not context.data.reference_size:
        return None
    key = cache_key(context, extractor)
    return context.once(("reference", key), lambda: _load(context, extractor, key))


def of_statistics(context: Context, extractor: FeatureExtractor) -> tuple[Reference, str] | None:
    """The statistics that the data name (`data.statistics`) and what a record calls them; None where there are none.

    They are Inception's: an extractor of another kind has no use for them. InputError where their size says otherwise.
    """
    given = getattr(context.data, "statistics", None)
    if given is None or extractor.kind != "inception":
        return None
    return context.once(("statistics", str(given.path), given.stamp), lambda: _read(given, extractor))


def _read(given: Any, extractor: FeatureExtractor) -> tuple[Reference, str]:
    mean, covariance, features = given.read()
    if len(mean) != extractor.dim:
        raise InputError(
            f"{given.path} has statistics of {len(mean)} features, {extractor.id} has {extractor.dim}: they are of "
            "another network"
        )
    kept = np.empty((0, extractor.dim), np.float32) if features is None else features.astype(np.float32)
    return Reference(Gaussian(len(kept), mean, covariance), kept), f"{given.path.name} {short_hash(given.path)}"


def cache_key(context: Context, extractor: FeatureExtractor) -> str:
    data = context.data
    asked = [VERSION, data.fingerprint, data.size, data.resizer, extractor.id, context.reference_count]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]


def _load(context: Context, extractor: FeatureExtractor, key: str) -> Reference:
    path = Path(context.cache_dir) / f"reference-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            gaussian = Gaussian(int(kept["n"]), kept["mean"], kept["covariance"])
            return Reference(gaussian, kept["features"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # a damaged file is made again
    made = _compute(context, extractor)
    with written_whole(path) as file:
        g = made.gaussian
        np.savez(file, n=g.n, mean=g.mean, covariance=g.covariance, features=made.features)
    return made


def _compute(context: Context, extractor: FeatureExtractor) -> Reference:
    moments, kept, seen = Moments(extractor.dim), [], 0
    for images in context.data.reference(context.reference_count):
        features = extractor(images)
        if not np.isfinite(features).all():
            raise ValueError(f"the features of a reference image near number {seen} are not finite ({extractor.id})")
        moments.add(features)
        kept.append(features[: max(0, KEPT - seen)])
        seen += len(features)
    if seen < 2:
        raise InputError(f"{seen} reference images are too few for FID: it needs at least 2, better thousands")
    return Reference(moments.gaussian(), np.concatenate(kept))
