"""Known pipelines of diffusers, which run their own loop under our plans, before one is loaded. No torch at its top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.errors import InputError, nearest
from harness.knob_paths import expanded
from harness.models import adapters, families, locate, switches, training_noise
from harness.models.base import STOCK, Kind, Model, Spec, built, dtype_of
from harness.models.guidance import Guidance
from harness.models.pipeline_files import Facts, facts, fingerprint, place, prior_spec
from samplers.core.levels import NoiseLevels, Process, RectifiedFlow

KEYS = (
    "name", "kind", "path", "variant", "revision", "height", "width", "max_sequence_length", "guidance",
    "default_data", "default_cfg", "default_precision", "pixel_range", "auto_schedule", "prior", "num_frames", "frame",
    "gguf", "config",
)  # fmt: skip


class Pipeline(Kind):
    later = ("config",)

    def check(self, spec: Spec, task: str | None = None) -> Facts:
        for key in spec:
            if key not in KEYS:
                raise InputError(f"model.{key} is unknown for kind=pipeline; {nearest(key, KEYS)}")
        known = facts(spec)
        training_noise.check(spec, known.noise)
        edits = ("edit",) if known.index["_class_name"] in (*adapters.CONTROLLED, *adapters.PROMPTED) else ()
        if task not in (None, *known.family.tasks, *edits):  # what may be shown a source: check_fitted
            raise InputError(
                f"model {spec.get('name')} is a {known.index['_class_name']}: use it with "
                f"task={' or '.join(known.family.tasks)}, not {task}"
            )
        _way(spec, known)
        return known

    def check_use(self, spec: Spec, data: Mapping[str, Any], precision: str, negative_prompt: str) -> None:
        if data["name"] == "classes":
            raise InputError(f"data=classes has no captions and no images: it is for model=gmm, not {spec.get('name')}")
        known = facts(spec)
        way = _way(spec, known)
        if negative_prompt and not known.family.embeds:
            raise InputError(
                f"model {spec.get('name')} reads no text: it has no use for a negative_prompt; leave it empty"
            )
        if negative_prompt and known.prior is not None:
            raise InputError(
                f"model {spec.get('name')} is guided away from no image, whatever the text: it has no use for a "
                "negative_prompt; leave it empty"
            )
        if negative_prompt and way in (families.DISTILLED, families.NONE):
            raise InputError(
                f"model {spec.get('name')} is told its guidance and computes nothing unconditional: it has no use for "
                "a negative_prompt; leave it empty"
                + (", or set model.guidance=true_cfg" if families.TRUE in known.ways else "")
            )

    def check_run(self, spec: Spec, guidance: Guidance, adaptive: bool, implementation: str) -> None:
        super().check_run(spec, guidance, adaptive, implementation)
        name, known = spec.get("name"), facts(spec)
        if adaptive:
            raise InputError(f"model {name} wants to know its steps before it begins: no sampler that chooses them")
        if implementation != "native":
            raise InputError(f"model {name} is stepped by our plans alone: use implementation=native")
        if guidance.rescale and not known.family.rescales:
            raise InputError(f"a {known.index['_class_name']} has no guidance rescale: set guidance.rescale=0")
        check_scale(str(name), _way(spec, known), guidance, known.family.least)

    def check_fitted(
        self, spec: Spec, fitted: Mapping[str, Any], precision: str, device: str, task: str
    ) -> Mapping[str, Any]:
        known = facts(spec)
        pipeline, put_in = str(known.index["_class_name"]), fitted.get("adapters", ())
        if task == "edit" and "edit" not in known.family.tasks and not adapters.looks(put_in):
            raise InputError(
                f"model {spec.get('name')} is a {pipeline}, which is shown no source: use it with "
                f"task={' or '.join(known.family.tasks)}, not edit, or give it adapters that are (controlnet, "
                "ip_adapter)"
            )
        network, vae = (str(known.index[name][1]) for name in (known.family.network, known.family.vae))
        where = switches.Where(network, vae, device, precision, pipeline, task)
        switches.check(str(spec.get("name")), fitted, where)
        if put_in:
            return {**fitted, "adapters": adapters.with_digests(put_in)}
        return fitted

    def fingerprint(self, spec: Spec) -> str:
        own = fingerprint(spec)
        if spec.get("gguf"):
            own = f"{own}+{locate.content(expanded(spec['gguf']))}"
        return f"{own}+{locate.fingerprint(prior_spec(spec))}" if spec.get("prior") else own

    def process(self, spec: Spec) -> Process:
        return training_noise.process(facts(spec).noise)

    def levels(self, spec: Spec, schedule: Mapping[str, Any], steps: int) -> NoiseLevels:
        """For `stock` as many levels, by which a plan can be judged: its own are known by its pipeline alone."""
        process = self.process(spec)
        if schedule["name"] != STOCK:
            return built(schedule, process, steps)
        if isinstance(process, RectifiedFlow):
            t = np.linspace(1, 0, steps + 1)
            return NoiseLevels(1 - t, t, t * process.train_steps, process)
        return built({"name": "linspace"}, process, steps)

    def load(self, spec: Spec, precision: str, device: str) -> Model:
        known = self.check(spec)
        from harness.models.pipeline import PipelineModel
        from harness.models.pipeline_parts import load_pipeline

        folder = place(spec, weights=True)
        prior = None
        if known.prior is not None:
            told = prior_spec(spec)
            prior = load_pipeline(told, place(told, weights=True), known.prior, dtype_of(precision), device)
        return PipelineModel(
            name=str(spec.get("name")),
            pipe=load_pipeline(spec, folder, known, dtype_of(precision), device),
            family=known.family,
            process=training_noise.process(known.noise),
            dtype=dtype_of(precision),
            size=known.size,
            downscale=known.downscale,
            channels=known.channels,
            way=_way(spec, known),
            tokens=spec.get("max_sequence_length") or known.family.tokens,
            prior=prior,
            frames=known.frames,
        )


KIND = Pipeline()


def _way(spec: Spec, known: Facts) -> str:
    """How guidance is done: the customary way of the model, or another that it has."""
    given = spec.get("guidance") or known.ways[0]
    if given not in known.ways:
        raise InputError(f"model.guidance={given!r} is not valid for this model; valid: {', '.join(known.ways)}")
    return given


def check_scale(name: str, way: str, guidance: Guidance, least: float = 1.0) -> None:
    """InputError for a scale that a pipeline would not follow: of `least` and below, but 1, it makes 1."""
    scale = guidance.scale
    if 1 < scale <= least:
        raise InputError(
            f"cfg={scale:g}: the pipeline of model {name} leaves guidance out up to {least:g}; give 1 (off) or more "
            f"than {least:g}"
        )
    if way in (families.CFG, families.TRUE) and scale < 1:
        raise InputError(f"cfg={scale:g}: the pipeline of model {name} does no guidance below 1; give 1 (off) or more")
    if way == families.NONE and scale != 1:
        raise InputError(f"cfg={scale:g}: model {name} has no guidance; give cfg=1")
    if guidance.threshold != "none":
        raise InputError(f"guidance.threshold={guidance.threshold} is not for a pipeline: set it to none")
