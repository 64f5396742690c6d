"""Models without a network, whose data are a Gaussian mixture, before one is loaded. No torch at its top."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.errors import InputError, nearest
from harness.models.base import Kind, Model, Spec, dtype_of
from harness.models.mixture import DRAWN_KEYS, mixture, positive
from samplers.core.levels import DiscreteVP, Process, RectifiedFlow

VERSION = 1  # the version of the default numbers: a changed default mixture must not meet old records

PROCESS_KEYS = ("process", "training_schedule", "beta_start", "beta_end", "zero_terminal_snr")
COMMON_KEYS = ("name", "kind", "density", *PROCESS_KEYS, "pixel_range", "auto_schedule")
DEFAULT_KEYS = ("default_data", "default_cfg", "default_precision")
KEYS = {
    "mixture": (*COMMON_KEYS, *DEFAULT_KEYS, "file", "seed", *DRAWN_KEYS),
    "gaussian": (*COMMON_KEYS, *DEFAULT_KEYS, "dimension", "mean", "std_first", "std_last"),
}
PROCESSES = ("vp", "ve", "flow")


class Analytic(Kind):
    def check(self, spec: Spec, task: str | None = None) -> None:
        density = spec.get("density")
        if density not in KEYS:
            raise InputError(f"model.density={density!r} is not valid; {nearest(str(density), KEYS)}")
        for key in spec:
            if key not in KEYS[density]:
                raise InputError(f"model.{key} is unknown for density={density}; {nearest(key, KEYS[density])}")
        if task not in (None, "txt2img"):
            raise InputError(f"model {spec.get('name')} makes points, not images: use it with task=txt2img, not {task}")
        self.process(spec)
        mixture(spec)

    def check_use(self, spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str) -> None:
        """InputError for data that are no class names, a name that the model does not know, or half precision."""
        _check_precision(spec, precision)
        if data["name"] != "classes":
            raise InputError(
                f"model {spec.get('name')} takes class names for prompts: use data=classes, not {data['name']}"
            )
        mixture(spec).class_ids([str(name) for name in (*data["classes"], negative_prompt)])

    def fingerprint(self, spec: Spec) -> str:
        """16 hexadecimal digits that change with any number of the model."""
        made = mixture(spec)
        digest = hashlib.sha256(json.dumps([VERSION, made.classes, *(spec.get(key) for key in PROCESS_KEYS)]).encode())
        for array in (made.means, made.variances, made.weights, made.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def classifier(self, spec: Spec) -> str | None:
        """The posterior of the mixture's own classes."""
        return "exact" if mixture(spec).classes else None

    def process(self, spec: Spec) -> Process:
        """How noise is added to the points. Their law, and so the exact solution, does not depend on it."""
        name = spec["process"]
        if name not in PROCESSES:
            raise InputError(f"model.process={name!r} is not valid; {nearest(str(name), PROCESSES)}")
        if name == "flow":
            if spec["zero_terminal_snr"]:
                raise InputError("model.zero_terminal_snr is of vp and ve: a flow's schedule holds pure noise as it is")
            return RectifiedFlow()
        ends = positive(spec, "beta_start"), positive(spec, "beta_end")
        try:
            vp = DiscreteVP.trained(spec["training_schedule"], *ends, zero_terminal_snr=bool(spec["zero_terminal_snr"]))
        except ValueError as error:
            raise InputError(f"model {spec.get('name')}: {error}") from error
        return vp if name == "vp" else vp.ve()

    def load(self, spec: Spec, precision: str, device: str) -> Model:
        """The denoiser always computes in float64; `precision` (fp64 or fp32) is the type of the state."""
        self.check(spec)
        _check_precision(spec, precision)
        from harness.models.analytic import AnalyticModel

        return AnalyticModel(str(spec.get("name")), mixture(spec), self.process(spec), dtype_of(precision), device)


KIND = Analytic()


def _check_precision(spec: Spec, precision: str) -> None:
    if precision not in ("fp64", "fp32"):
        raise InputError(f"model {spec.get('name')} has no network to run in {precision}: use precision=fp64 or fp32")
