"""Latent diffusion models in the layout of Stable Diffusion 1.x and 2.x, before one is loaded. No torch at its top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.axes import PRECISIONS
from harness.errors import InputError, nearest
from harness.models import locate, training_noise
from harness.models.base import Kind, Model, Spec, dtype_of
from harness.models.files import read_json
from harness.models.locate import Facts
from harness.paths import CLASSIFIER, EMBEDDED
from samplers.core.levels import Process

KEYS = (
    "name",
    "kind",
    "path",
    "unet",
    "vae",
    "config",
    "variant",
    "revision",
    "height",
    "width",
    "time",
    "prediction_type",
    "vae_precision",
    "allow_pickle",
    "default_data",
    "default_cfg",
    "pixel_range",
)
TIMES = ("continuous", "rounded")


class Latent(Kind):
    def check(self, spec: Spec, task: str | None = None) -> Facts:
        """What the files of a model say of it."""
        for key in spec:
            if key not in KEYS:
                raise InputError(f"model.{key} is unknown; {nearest(key, KEYS)}")
        _one_of(spec, "time", TIMES, "continuous")
        _one_of(spec, "vae_precision", ("same", *PRECISIONS), "same")
        known = locate.facts(spec)
        training_noise.check(spec, _noise(spec))
        extra = known.in_channels - known.latent_channels
        if extra not in (0, 1 + known.latent_channels):
            raise InputError(
                f"model {spec.get('name')}: its UNet has {known.in_channels} input channels; known are "
                f"{known.latent_channels} (text to image) and {2 * known.latent_channels + 1} (inpainting)"
            )
        if task == "edit":
            raise InputError(
                f"model {spec.get('name')} is shown no source: use it with another task, or with model=pipeline and "
                "adapters that are (controlnet, ip_adapter)"
            )
        if task is not None and extra and task != "inpaint":
            raise InputError(
                f"model {spec.get('name')} is an inpainting model ({known.in_channels} input channels): use it with "
                f"task=inpaint, or take a model with {known.latent_channels} input channels for task={task}"
            )
        return known

    def check_use(self, spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str) -> None:
        if data["name"] == "classes":
            raise InputError(f"data=classes has no captions and no images: it is for model=gmm, not {spec.get('name')}")

    def fingerprint(self, spec: Spec) -> str:
        return locate.fingerprint(spec)

    def classifier(self, spec: Spec) -> str | None:
        """The embedded model's, which was trained on its latents."""
        own = locate.place(spec, weights=False).folder == EMBEDDED and not spec.get("vae") and CLASSIFIER.is_file()
        return locate.content(CLASSIFIER) if own else None

    def process(self, spec: Spec) -> Process:
        return training_noise.process(_noise(spec))

    def check_fitted(
        self, spec: Spec, fitted: Mapping[str, Any], precision: str, device: str, task: str
    ) -> Mapping[str, Any]:
        """An interval of guidance can be here; all else is put into pipelines."""
        super().check_fitted(spec, {k: v for k, v in fitted.items() if k != "cfg_interval"}, precision, device, task)
        return fitted

    def load(self, spec: Spec, precision: str, device: str) -> Model:
        """Text encoder, UNet and VAE in `precision` (the VAE in `model.vae_precision`)."""
        known = self.check(spec)
        from harness.models.latent import LatentModel
        from harness.models.networks import load_parts

        found, noise = locate.place(spec, weights=True), _noise(spec)
        dtype = dtype_of(precision)
        same = spec.get("vae_precision") in (None, "same")
        classifier = None
        if self.classifier(spec) is not None:
            from harness.models.classifier import load

            classifier = load(CLASSIFIER, device)
        return LatentModel(
            name=str(spec.get("name")),
            parts=load_parts(spec, found, dtype, dtype if same else dtype_of(spec["vae_precision"]), device),
            process=training_noise.process(noise),
            prediction_type=training_noise.predicts(spec, noise),
            size=known.size,
            rounded_time=spec.get("time") == "rounded",
            classifier=classifier,
        )


KIND = Latent()


def _noise(spec: Spec) -> Mapping[str, Any]:
    """The configuration of the noise that the model was trained with."""
    return read_json(locate.place(spec, weights=False).folder / "scheduler" / "scheduler_config.json")


def _one_of(spec: Spec, key: str, valid: tuple[str, ...], default: str) -> None:
    given = spec.get(key, default)
    if given not in valid:
        raise InputError(f"model.{key}={given!r} is not valid; {nearest(str(given), valid)}")
