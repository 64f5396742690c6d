"""Reference statistics that others have computed: mean and covariance of features, in the files that people share.

`.npz` with `mu` and `sigma`: pytorch-fid, clean-fid, EDM (fid-refs), ADM (VIRTUAL_….npz, which has `mu_s` and `sigma_s`
of sFID as well). `.npz` with `feats`: clean-fid's for KID, one row an image. `.pt`: torch-fidelity's cache, a pickle.
No number of images stands in them, nor which network made the features: a record names the file and its hash.
Imports no torch at its top.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models import pickles

SUFFIXES = (".npz", ".pt")
LAYOUTS = "mu and sigma (pytorch-fid, clean-fid, EDM, ADM), or feats (clean-fid)"


@dataclass(frozen=True)
class Statistics:
    """A file of them."""

    path: Path

    @property
    def stamp(self) -> tuple[int, int]:
        facts = self.path.stat()
        return facts.st_size, facts.st_mtime_ns

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Mean (d,) and covariance (d, d), float64, and the features (n, d) where the file has them."""
        found = _torch(self.path) if self.path.suffix == ".pt" else _npz(self.path)
        if "feats" in found:
            features = np.asarray(found["feats"], np.float64)
            return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)), features
        mean, covariance = np.asarray(found["mu"], np.float64), np.asarray(found["sigma"], np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise InputError(
                f"{str(self.path)!r} has mu {mean.shape} and sigma {covariance.shape}: not (d,) and (d, d)"
            )
        return mean, covariance, None


def given(knobs: Mapping[str, Any]) -> Statistics | None:
    """The file that `data.statistics` names."""
    return None if knobs.get("statistics") is None else Statistics(expanded(knobs["statistics"]))


def check(knobs: Mapping[str, Any]) -> None:
    """InputError for a file that is not there or not of a known layout. A pickle's content is looked at later."""
    asked = given(knobs)
    if asked is None:
        return
    if asked.path.suffix not in SUFFIXES or not asked.path.is_file():
        raise InputError(
            f"data.statistics={str(asked.path)!r} is not a file of statistics: give a .npz with {LAYOUTS}, or "
            "torch-fidelity's .pt"
        )
    if asked.path.suffix == ".npz":
        _npz(asked.path)
    elif not knobs["allow_pickle"]:
        raise InputError(
            f"data.statistics={str(asked.path)!r} is a pickle: say data.allow_pickle=true if you trust its author"
        )


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = ("mu", "sigma") if {"mu", "sigma"} <= set(file.files) else ("feats",)
            if not set(wanted) <= set(file.files):
                raise InputError(f"{str(path)!r} has {', '.join(file.files[:6])}, not {LAYOUTS}")
            return {name: file[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"data.statistics={str(path)!r} cannot be read as .npz: {str(error)[:150]}") from None


def _torch(path: Path) -> dict[str, Any]:
    """Arrays alone are read: the names that numpy's own pickles need, and nothing else."""
    import torch

    array = np.zeros(1)
    rebuild = array.__reduce__()[0]
    allowed = [rebuild, np.ndarray, np.dtype, type(array.dtype), type(np.zeros(1, np.float32).dtype)]
    try:
        with pickles.weights_only(), torch.serialization.safe_globals(allowed):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"data.statistics={str(path)!r} cannot be read: {str(error).splitlines()[0][:150]}") from None
    if not isinstance(found, dict) or not {"mu", "sigma"} <= set(found):
        raise InputError(f"{str(path)!r} has no mu and sigma: give torch-fidelity's …-stat-fid-2048.pt")
    return found
