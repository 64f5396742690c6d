"""What is measured of a cell, which way is better, and what must agree before two cells' values may be compared.

One table for every report: the end of a sweep, `reports/plot.py`, `compare.py`, `pick.py`, `check.py` and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from harness import axes
from harness.errors import InputError, nearest
from harness.store.schema import ATTRIBUTES, CELLS, SIMILARITIES

MEAN, INFLUENCE, ROOT = "mean", "influence", "root"

# Cells of one group share prompts and noise and differ in what a reader wants to compare: sampler, schedule, steps, ...
GROUP = tuple(column for column in axes.columns(lambda axis: axis.apart) if column not in axes.KNOBS.values())
FEATURES = ("fid_extractor", "fid_resizer", "reference_count")


@dataclass(frozen=True)
class Measure:
    """A column of the cells table that a reader compares.

    `images`: the column of the images table behind it, None where there is none; `kind`: how the one follows from the
    other (see harness/verdict/paired.py). `defined_by`: further columns that must agree.
    """

    column: str
    heading: str
    higher_is_better: bool
    form: str = "{:.3f}"
    images: str | None = None
    kind: str = MEAN
    defined_by: tuple[str, ...] = ()
    scale: float = 1.0  # what is shown is the value times this
    detail: bool = False  # shown in a narrow column, whose difference the sentences tell


def _similarity(name: str, region: str) -> Measure:
    heading = {"lpips": "LPIPS", "ssim": "SSIM", "psnr": "PSNR", "feature_distance": "feat. dist."}[name]
    heading += {"": "", "_inside": " inside", "_outside": " outside"}[region]
    defined_by = {"lpips": ("lpips_definition",), "feature_distance": ("fid_extractor",)}.get(name, ())
    form = "{:.2f}" if name == "psnr" else "{:.3f}"
    return Measure(
        f"{name}{region}",
        heading,
        name in ("ssim", "psnr"),
        form,
        f"{name}{region}",
        MEAN,
        defined_by,
        detail=region == "_inside",
    )


def _attribute(name: str) -> Measure:
    heading, column = "all right %" if name == "all" else f"{name} %", f"attributes_{name}"
    return Measure(column, heading, True, "{:.1f}", column, MEAN, (), 100.0, detail=name != "all")


QUALITY = (
    Measure("fid", "FID", False, "{:.2f}", "fid_influence", INFLUENCE, (*FEATURES, "fid_n")),
    Measure("clip_score", "CLIP", True, "{:.2f}", "clip_score", MEAN, ("clip_definition",)),
    *(
        Measure(name, heading, higher, form, f"{name}_influence", INFLUENCE, (f"{name}_definition",))
        for name, heading, higher, form in (
            ("cmmd", "CMMD", False, "{:.3f}"), ("fd_dinov2", "FD-DINOv2", False, "{:.1f}"),
            ("inception_score", "IS", True, "{:.2f}"),
        )
    ),
    *(
        Measure(name, heading, True, "{:.3f}", name, MEAN, (f"{name}_definition",))
        for name, heading in (
            ("pick_score", "PickScore"), ("hps_v2", "HPSv2"), ("image_reward", "ImageReward"),
            ("aesthetic", "aesthetic"), ("vqa_score", "VQAScore"),
        )
    ),
    # Guidance makes another equation of it, with another solution.
    Measure(
        "discretisation_error", "disc. error", False, "{:.4g}", "discretisation_error", ROOT,
        ("discretisation_reference", "cfg", "guidance_rescale", "guidance_knobs"),
    ),
    Measure(
        "error_to_exact", "err. to exact", False, "{:.3g}", "exact_distance", ROOT,
        ("cfg", "guidance_rescale", "guidance_knobs"),
    ),
    Measure("kid", "KID ×1000", False, "{:.2f}", "kid_influence", INFLUENCE, FEATURES, 1000.0, detail=True),
    *(_attribute(name) for name in ("all", *(name for name in ATTRIBUTES if name != "all"))),
    Measure("pr_precision", "precision", True, "{:.3f}", "pr_precision", MEAN, FEATURES, detail=True),
    Measure("pr_recall", "recall", True, "{:.3f}", "pr_recall", MEAN, FEATURES, detail=True),
    Measure("density", "density", True, "{:.3f}", "density", MEAN, FEATURES, detail=True),
    Measure("coverage", "coverage", True, "{:.3f}", "coverage", MEAN, FEATURES, detail=True),
    Measure("fid_infinity", "FID N→∞", False, "{:.2f}", None, INFLUENCE, FEATURES, detail=True),
    *(_similarity(name, region) for name in SIMILARITIES for region in ("", "_inside", "_outside")),
    Measure("roundtrip_error", "round trip", False, "{:.3g}", "roundtrip_error"),
    Measure("roundtrip_psnr", "round trip dB", True, "{:.2f}", "roundtrip_psnr"),
    Measure("roundtrip_lpips", "r. t. LPIPS", False, "{:.3f}", "roundtrip_lpips", defined_by=("lpips_definition",)),
    Measure("law_mean_error", "law mean", False, "{:.3g}", "law_mean_influence", INFLUENCE),
    Measure("law_covariance_error", "law covar.", False, "{:.3g}", "law_covariance_influence", INFLUENCE),
    Measure("sliced_wasserstein", "sliced W2", False, "{:.3g}", "sliced_wasserstein_influence", INFLUENCE),
)  # fmt: skip
COST = (
    Measure("latency_s", "latency s", False, "{:.3g}"),
    Measure("images_per_s", "images/s", True, "{:.1f}"),
    Measure("peak_memory_mib", "mem. MiB", False, "{:.0f}"),
    Measure("nfe", "NFE", False, "{:.0f}"),
    Measure("energy_j_per_image", "J/image", False, "{:.3g}"),
    Measure("cost_per_1000", "cost/1000", False, "{:.3g}"),
)
# In no table, as of one model the calls say it; but a front is found for it.
FLOPS = Measure("flops", "GFLOP", False, "{:.4g}", scale=1e-9)
BY_NAME = {measure.column: measure for measure in (*QUALITY, *COST, FLOPS)}
SHORT = {"clip": "clip_score", "latency": "latency_s", "memory": "peak_memory_mib", "attributes": "attributes_all"}
SHORT |= {"error": "discretisation_error", "exact": "error_to_exact", "precision_recall": "pr_precision"}
SHORT |= {"energy": "energy_j_per_image", "cost": "cost_per_1000"}
SHORT |= {"precision": "pr_precision", "recall": "pr_recall", "law": "sliced_wasserstein"}


def measure(name: str) -> Measure:
    """The measure of a column or of a short name (`clip`, `latency`); InputError with the nearest name."""
    found = BY_NAME.get(SHORT.get(name, name))
    if found is None:
        offered = [one.column for one in QUALITY if not one.detail]
        close = [one for one in BY_NAME if one not in offered and get_close_matches(name, [one], cutoff=0.8)]
        raise InputError(f"unknown metric {name[:40]!r}; {nearest(name, [*offered, *close])}")
    return found


def same(measure: Measure) -> list[str]:
    """The columns in which cells must agree before their values of `measure` are compared."""
    known = {column.name for column in CELLS}
    return [column for column in dict.fromkeys((*GROUP, *measure.defined_by)) if column in known]


def bounds(column: str) -> tuple[str, str]:
    """The columns of the value's own interval."""
    stem = "latency" if column == "latency_s" else column
    return f"{stem}_low", f"{stem}_high"
