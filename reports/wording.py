"""What stands at the axes of figures: name, definition and unit of what is measured."""

from __future__ import annotations

import textwrap

import pandas as pd

from reports.records import plain

LETTERS = 46  # of a line; what its axis has no room for is wrapped again when the figure is laid out


def one(rows: pd.DataFrame, column: str) -> str:
    """The single value of a column, or all of them."""
    return " | ".join(plain(value) for value in rows[column].dropna().unique()) or "unnamed"


def _clip_model(rows: pd.DataFrame) -> str:
    """The model of "100*cos, unclamped, MODEL, RESIZER"; the record has the whole definition."""
    found = rows["clip_definition"].dropna().unique()
    parts = [str(text).split(", ") for text in found]
    return " | ".join(plain(part[2] if len(part) == 4 else ", ".join(part)) for part in parts) or "unnamed"


def axis_label(rows: pd.DataFrame, column: str) -> str:
    """Name, definition and unit of a measured column."""
    count = one(rows, "n_images")
    names = {
        "fid": f"FID ({one(rows, 'fid_extractor')}, N={count})",
        "clip_score": f"CLIP score ({_clip_model(rows)})",
        "latency_s": f"latency (s, median for {one(rows, 'timing_batch')} image)",
        "peak_memory_mib": f"peak memory (MiB, {one(rows, 'peak_memory_kind')})",
        "energy_j_per_image": f"energy (J an image; {one(rows, 'energy_definition')})",
        "cost_per_1000": f"cost of 1,000 images (at {one(rows, 'price_per_hour')} an hour)",
        "discretisation_error": "discretisation error (relative)",
        "attributes_all": f"share of images that fit the prompt (N={count})",
        "error_to_exact": f"relative RMS error to the exact solution (N={one(rows, 'error_to_exact_n')})",
        "sliced_wasserstein": f"sliced Wasserstein distance to the true law (N={count})",
        "feature_distance": "distance to source (features)",
        "lpips": f"LPIPS to source ({one(rows, 'lpips_definition')})",
        "psnr": "PSNR to source (dB)",
        "psnr_outside": "PSNR outside mask (dB)",
        "ssim": "SSIM to source",
    }
    label = names[column]
    if column == "latency_s" and one(rows, "timing_batch") != "1":
        label = label.replace("image)", "images)")
    return "\n".join(textwrap.wrap(label, LETTERS))


def asked_steps(rows: pd.DataFrame) -> str:
    """Name of the axis of steps: everywhere in the reports, those that were asked for; beside them those that ran.

    They are fewer at a strength below 1, and some schedules have a step more than was asked.
    """
    known = rows[rows["steps_run"].notna()]
    if known.empty or (known["steps_run"] == known["steps"]).all():
        return "steps"
    low, high = known["steps_run"].min(), known["steps_run"].max()
    return f"steps asked for ({f'{low:g}' if low == high else f'{low:g} to {high:g}'} ran)"
