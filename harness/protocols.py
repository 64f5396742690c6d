"""Protocols that published numbers were made by: what must hold before a number of ours may stand beside them.

`protocol=NAME` (the ready grids +experiment=NAME set it) changes nothing of what is generated or measured. It has each
record say whether its FID is comparable, what keeps it from being so, and, where the protocol has bounds, whether it is
within them. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TF1, PYTORCH = "bilinear-tf1 to 299x299", "bilinear-pytorch to 299x299"
INCEPTION = "inception-v3-compat-2048d"
MLPERF_CLIP = "100*cos, unclamped, ViT-B-32/openai"
MLPERF_NEGATIVE = "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"


@dataclass(frozen=True)
class Protocol:
    """`resizers`: of FID's images; `references`: names of files of statistics that it takes; `real`: or so many images.

    `asked`: columns of a record and their values; `clip`: how clip_definition begins; `bounds`: of columns, both ends
    within.
    """

    source: str
    images: int
    extractor: str = INCEPTION
    resizers: tuple[str, ...] = ()  # none: there is no FID
    references: tuple[str, ...] = ()
    real: int | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    clip: str = ""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)


PROTOCOLS: dict[str, Protocol] = {
    "coco_fid30k": Protocol(
        "zero-shot FID-30K (2102.12092, 2112.10741): 30,000 captions of COCO val2014, images at 256x256",
        images=30_000, extractor=f"{INCEPTION}-of-256px", real=30_000,
        resizers=(TF1, f"pil-bicubic-squash to 256x256, then {TF1}"),
    ),
    "coco2017_cfg": Protocol(
        "model cards of Stable Diffusion 1.x: 50 PLMS steps, 10,000 random captions of COCO val2017, 512x512",
        images=10_000, resizers=(TF1,), real=5_000,
        asked={"sampler": "plms", "steps": 50, "height": 512, "width": 512},
    ),
    "mlperf_sdxl": Protocol(
        "MLPerf Inference, stable-diffusion-xl: 5,000 captions of COCO val2014, one latent for all images",
        images=5_000, extractor=f"{INCEPTION}-pytorch", resizers=(PYTORCH,), references=("val2014.npz",),
        asked={
            "model": "sdxl", "sampler": "euler", "steps": 20, "cfg": 8.0, "height": 1024, "width": 1024,
            "negative_prompt": MLPERF_NEGATIVE,
        },
        clip=MLPERF_CLIP,
        bounds={"fid": (23.01085, 23.95007), "clip_score": (31.68631, 31.81331)},
    ),
    "imagenet_class": Protocol(
        "FID-50K of ImageNet's classes (2105.05233): 50,000 images against ADM's statistics",
        images=50_000, resizers=(TF1,),
        references=("VIRTUAL_imagenet256_labeled.npz", "VIRTUAL_imagenet512.npz", "VIRTUAL_imagenet128_labeled.npz"),
    ),
    "drawbench": Protocol("DrawBench (2205.11487): 200 prompts", images=200),
    "parti": Protocol("PartiPrompts (2206.10789): 1,632 prompts", images=1_632),
}  # fmt: skip
NAMES = ("none", *PROTOCOLS)


def judged(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `fid_comparable` and `protocol_verdict` of a record's row under the protocol of that name."""
    if name == "none":
        return {"fid_comparable": None if row.get("fid") is None else False, "protocol_verdict": None}
    protocol = PROTOCOLS[name]
    wrong = deviations(protocol, row)
    comparable = bool(protocol.resizers) and not wrong and row.get("fid") is not None
    said = f"not comparable with published numbers: {'; '.join(wrong)}" if wrong else _said(protocol, row)
    return {"fid_comparable": comparable if row.get("fid") is not None else None, "protocol_verdict": f"{name}: {said}"}


def deviations(protocol: Protocol, row: Mapping[str, Any]) -> list[str]:
    """What is not as the protocol has it, in words; empty where all is."""
    found = [] if row["n_images"] == protocol.images else [f"{row['n_images']:,} images, not {protocol.images:,}"]
    for column, value in protocol.asked.items():
        if row.get(column) != value:
            found.append(f"{column}={row.get(column)!r}, not {value!r}")
    if protocol.resizers:
        found += _of_fid(protocol, row)
    if protocol.clip and not str(row.get("clip_definition")).startswith(protocol.clip):
        found.append(f"CLIP score by {row.get('clip_definition')}, not by {protocol.clip}")
    return found


def _of_fid(protocol: Protocol, row: Mapping[str, Any]) -> list[str]:
    if row.get("fid") is None:
        return ["no FID"]
    found = []
    if row["fid_extractor"] != protocol.extractor:
        found.append(f"FID by {row['fid_extractor']}, not by {protocol.extractor}")
    if row["fid_resizer"] not in protocol.resizers:
        found.append(f"resizer {row['fid_resizer']}, not {' or '.join(protocol.resizers)}")
    reference = str(row["fid_reference"])
    count, _, rest = reference.partition(" ")
    if protocol.real is not None and rest == "images of the data":
        if int(count) < protocol.real:
            found.append(f"{int(count):,} reference images, not {protocol.real:,}")
    elif reference.rpartition(" ")[0] not in protocol.references:
        wanted = [f"{protocol.real:,} images"] if protocol.real else []
        found.append(f"reference {reference}, not {' or '.join([*wanted, *protocol.references])}")
    return found


def _said(protocol: Protocol, row: Mapping[str, Any]) -> str:
    """That it holds; with bounds, whether each value is within."""
    if not protocol.bounds:
        return f"holds ({protocol.source})"
    parts, passes = [], True
    for column, (low, high) in protocol.bounds.items():
        value = row.get(column)
        within = value is not None and low <= value <= high
        passes &= within
        shown = "not measured" if value is None else f"{value:.5f}"
        parts.append(f"{column} {shown} {'within' if within else 'outside'} {low:.5f} to {high:.5f}")
    return f"{'passes' if passes else 'fails'}: {', '.join(parts)}"
