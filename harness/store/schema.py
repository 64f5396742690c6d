"""What is kept of a sweep: every column of the three tables, in one place. Imports no torch.

`cells` has a row a cell, `images` a row an image, `timings` a row a timed run. The columns that say what was asked come
from the table of axes (harness/axes.py). To add another column, add a line here and raise VERSION: records without it
are read as null, so a column is never renamed and never changes its type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harness.axes import AXES, PARTS, Column

if TYPE_CHECKING:
    import pandas as pd

VERSION = 5  # the version of these columns, which every file says
SCHEMA_VERSION = max(VERSION, *(axis.since for axis in AXES))
STATUSES = ("ok", "failed", "skipped")
ARROW_TYPES = {
    "text": pa.string(),
    "json": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
    "floats": pa.list_(pa.field("element", pa.float64())),  # the name parquet gives it
}


def _measured(name: str, unit: str, meaning: str) -> list[Column]:
    """A value with the bounds of its 95 % interval and the number of samples behind it."""
    return [
        Column(name, "float", unit, meaning),
        Column(f"{name}_low", "float", unit, f"lower bound of the 95 % interval of {name}"),
        Column(f"{name}_high", "float", unit, f"upper bound of the 95 % interval of {name}"),
        Column(f"{name}_n", "int", "", f"number of samples behind {name}"),
    ]


def _regions(name: str, unit: str, meaning: str) -> list[Column]:
    """A comparison with the source over the whole image and, for inpaint, inside and outside the mask."""
    return [
        *_measured(name, unit, f"{meaning}, whole image"),
        *_measured(f"{name}_inside", unit, f"{meaning}, repainted part only (inpaint)"),
        *_measured(f"{name}_outside", unit, f"{meaning}, kept part only (inpaint)"),
    ]


def _defined(name: str, meaning: str) -> list[Column]:
    said = f"by which formula and network {name} was measured, or why it was not"
    return [*_measured(name, "", meaning), Column(f"{name}_definition", "text", "", said)]


ATTRIBUTES = ("shape", "colour", "size", "background", "light", "position", "relation", "all")
SIMILARITIES = {
    "lpips": ("", "mean LPIPS distance to the source"),
    "feature_distance": ("", "mean distance to the source in the extractor's features"),
    "ssim": ("", "mean structural similarity to the source"),
    "psnr": ("dB", "mean peak signal-to-noise ratio against the source"),
}

# Scores that each image has by itself, by networks of their user's.
SCORES = {
    "pick_score": "PickScore (2305.01569): preference by a tuned CLIP model",
    "hps_v2": "human preference score v2 (2306.09341)",
    "image_reward": "ImageReward (2304.05977)",
    "aesthetic": "LAION's aesthetic score of the image alone, 1 to 10",
    "vqa_score": "VQAScore (2404.01291): probability that a model answers that the image shows the prompt",
}
ROUND_TRIP = {  # of task=invert
    "psnr": ("dB", "mean peak signal-to-noise ratio against what the decoder makes of the source's latents"),
    "lpips": ("", "mean LPIPS distance to what the decoder makes of the source's latents"),
    "error": ("relative", "mean distance of final latents to the source's latents over their norm"),
}

IDENTITY = [
    Column("schema_version", "int", "", "version of this table's schema that wrote the row"),
    Column("cell_id", "text", "", "16 hexadecimal digits: hash of everything that was asked"),
    Column("status", "text", "", "ok, failed (see error) or skipped (see error for the reason)"),
    Column("error", "text", "", "why the cell failed or was skipped"),
    Column("cell", "json", "", "canonical JSON of everything that was asked"),
]

# What was asked: the columns of every axis of a cell, and what followed before anything was measured.
ASKED = [
    *(part.column for part in PARTS.values()),
    Column("order", "int", "", "order of convergence that the sampler declares"),
    Column("stochastic", "bool", "", "whether the sampler adds noise on the way"),
    Column("steps_run", "int", "steps", "steps that really ran (fewer where strength < 1)"),
    Column("plan", "text", "", "the sampler's plan: its table of coefficients"),
    Column("plan_id", "text", "", "the plan's file in results/plans, exact and to be run again: the hash of its text"),
    Column("plan_elsewhere", "text", "", "what a learned plan was made for, where that is not this model and cfg"),
    Column("prompts_truncated", "int", "prompts", "prompts longer than the tokenizer's limit, cut; null: no tokenizer"),
    Column("mask_share", "float", "share", "mean share of pixels repainted (inpaint), 0..1; at the images' size"),
]

QUALITY = [
    *_measured("fid", "", "Fréchet distance of the features of generated and reference images"),
    Column("fid_extractor", "text", "", "which feature extractor measured fid, kid, precision, recall"),
    Column("fid_resizer", "text", "", "how images were resized for the extractor"),
    Column("fid_reference", "text", "", "what fid was measured against: images of the data, or a file and its hash"),
    Column(
        "fid_comparable", "bool", "", "whether fid may be compared with published numbers of the protocol asked for"
    ),
    Column(
        "protocol_verdict", "text", "", "whether the protocol asked for holds, and its bounds, or what is otherwise"
    ),
    *_measured("fid_infinity", "", "fid extrapolated to infinitely many images"),
    *_measured("kid", "", "kernel distance of the same features"),
    *_measured("pr_precision", "", "share of generated images that lie among the reference"),
    *_measured("pr_recall", "", "share of reference images that lie among the generated"),
    *_measured("density", "", "density of generated images among the reference"),
    *_measured("coverage", "", "share of reference images with a generated one near"),
    *_measured("clip_score", "", "agreement of image and prompt"),
    Column("clip_definition", "text", "", "which definition and model measured clip_score"),
    *_defined("cmmd", "1,000 times the squared maximum mean discrepancy of CLIP embeddings (2401.09603)"),
    *_defined("fd_dinov2", "Fréchet distance of DINOv2's features (2306.04675)"),
    *_defined("inception_score", "Inception score (1606.03498) of all images at once"),
    Column(
        "inception_score_splits", "float", "", "mean Inception score of the parts that inception_score_definition says"
    ),
    *[column for name, meaning in SCORES.items() for column in _defined(name, f"mean {meaning}")],
    *_measured("discretisation_error", "relative", "distance to the same noise run with many steps"),
    Column("discretisation_reference", "text", "", "the run of many steps that the error is measured against"),
    *_measured("error_to_exact", "relative", "RMS distance to the exact solution from the same start, over its RMS"),
    Column(
        "error_to_exact_floor",
        "float",
        "relative",
        "what the last step, to a clean state, is off by itself: error_to_exact of a run that is exact up to it",
    ),
    Column("exact_definition", "text", "", "how the exact solution was computed"),
    *_measured("law_mean_error", "relative", "|mean of points − true mean| over the root of the true total variance"),
    Column("law_mean_floor", "float", "relative", "law_mean_error of a perfect sample of that size, on average"),
    *_measured("law_covariance_error", "relative", "Frobenius distance of covariances over the true one's norm"),
    Column("law_covariance_floor", "float", "relative", "law_covariance_error of a perfect sample of that size"),
    *_measured("sliced_wasserstein", "", "sliced 2-Wasserstein distance of the points to the true law, in their unit"),
    Column("sliced_wasserstein_floor", "float", "", "sliced_wasserstein of a perfect sample of that size, on average"),
    *[column for name, (unit, meaning) in SIMILARITIES.items() for column in _regions(name, unit, meaning)],
    Column("lpips_definition", "text", "", "which network measured lpips and roundtrip_lpips"),
    *[column for name, told in ROUND_TRIP.items() for column in _measured(f"roundtrip_{name}", *told)],
    *[
        column
        for name in ATTRIBUTES
        for column in _measured(f"attributes_{name}", "share", f"share of images with the prompt's {name} right")
    ],
]

COST = [
    Column("timing_runs", "int", "runs", "timed runs, warm-up apart"),
    Column("timing_warmups", "int", "runs", "runs before the first timed one"),
    Column("timing_cells", "int", "cells", "cells that were timed in turn in one block, this one included"),
    Column("timing_drift", "bool", "", "whether the machine changed its pace while the block was timed"),
    Column("latency_s", "float", "s", "median end-to-end time of one run of timing_batch images"),
    Column("latency_low", "float", "s", "lower bound of the 95 % interval of latency_s"),
    Column("latency_high", "float", "s", "upper bound of the 95 % interval of latency_s"),
    Column("latency_p90_s", "float", "s", "90th percentile of the timed runs"),
    Column("latency_p95_s", "float", "s", "95th percentile of the timed runs"),
    Column("latency_p99_s", "float", "s", "99th percentile, from 100 timed runs on"),
    Column("load_s", "float", "s", "loading the model, once for all cells that share it"),
    Column("first_call_s", "float", "s", "the first run after loading"),
    Column("text_s", "float", "s", "text encoding, mean of the middle three fifths of the timed runs"),
    Column("denoise_s", "float", "s", "all denoiser steps together, mean of the same runs"),
    Column("step_s", "float", "s", "one step, median of all timed steps"),
    Column("decode_s", "float", "s", "decoding latents to images, mean of the same runs"),
    Column("other_s", "float", "s", "what the parts leave of the whole, mean of the same runs"),
    Column(
        "images_per_s",
        "float",
        "images/s",
        "n_images over the time that generating them took, in batches of batch_size",
    ),
    Column("nfe", "float", "calls", "denoiser calls an image, counted"),
    Column("flops", "float", "FLOP", "floating-point operations an image, counted"),
    Column("peak_memory_mib", "float", "MiB", "peak memory of the cell"),
    Column("peak_memory_kind", "text", "", "what peak_memory_mib is a peak of"),
    Column("process_peak_mib", "float", "MiB", "peak resident set of the worker process during the cell"),
    Column("cuda_allocated_mib", "float", "MiB", "peak of memory that tensors held on the GPU"),
    Column("cuda_reserved_mib", "float", "MiB", "peak of memory that the allocator held on the GPU"),
    Column(
        "energy_j_per_image",
        "float",
        "J/image",
        "energy of an image: gpu_ and cpu_j_per_image, as far as they are known; null without the device's own",
    ),
    Column("gpu_j_per_image", "float", "J/image", "of the GPU, while the images of images_per_s were generated"),
    Column("cpu_j_per_image", "float", "J/image", "of the processors and their memory, other programs included"),
    Column("energy_definition", "text", "", "which counters measured the energy, and why one did not"),
    Column(
        "price_per_hour", "float", "1/h", "price of an hour of the machine, in its own currency, where it was given"
    ),
    Column(
        "cost_per_1000",
        "float",
        "",
        "price of 1,000 images in that currency, from images_per_s and the workers that share the machine",
    ),
    Column("quality_s", "float", "s", "duration of the quality pass"),
    Column("cell_s", "float", "s", "duration of the whole cell"),
]

WHERE = [
    Column("hardware", "text", "", "name of the processor or GPU"),
    Column("load_average", "float", "processes", "load average (1 min) when the cell began"),
    Column("workers", "int", "processes", "worker processes that ran cells side by side; 1 = the machine to itself"),
    Column("attempts", "int", "", "how often the cell was started: 2 where its first worker was lost"),
    Column("hostname", "text", "", "machine"),
    Column("platform", "text", "", "operating system and architecture"),
    Column("python_version", "text", "", "version of Python"),
    Column("torch_version", "text", "", "version of torch"),
    Column("diffusers_version", "text", "", "version of diffusers"),
    Column("git_commit", "text", "", "commit of the harness"),
    Column("git_dirty", "bool", "", "whether the checkout had changes"),
    Column("started_at", "time", "UTC", "when the cell began"),
    Column("ended_at", "time", "UTC", "when the cell ended"),
]

CELLS = [*IDENTITY, *ASKED, *QUALITY, *COST, *WHERE]

IMAGES = [
    Column("schema_version", "int", "", "version of this table's schema that wrote the row"),
    Column("cell_id", "text", "", "the cell that made the image"),
    Column("image_index", "int", "", "number of the image in its cell, from 0"),
    Column("seed", "int", "", "seed of the noise streams; with image_index it names the noise"),
    Column("prompt_id", "int", "", "number of the prompt in the data"),
    Column("prompt", "text", "", "the prompt"),
    Column("image_sha256", "text", "", "16 digits of the SHA-256 of the image (of its latent, where there is none)"),
    Column("image_sketch", "floats", "levels", "8 fixed random projections: what two images differ by, without pixels"),
    Column("fid_influence", "float", "", "what the image adds to the cell's fid: fid moves with the mean of it"),
    Column("kid_influence", "float", "", "what the image adds to the cell's kid, as fid_influence to fid"),
    Column("pr_precision", "float", "share", "1 where the image lies among the reference, else 0"),
    Column("pr_recall", "float", "share", "1 where the reference image of this number lies among the generated"),
    Column("density", "float", "", "density of reference images round the image"),
    Column("coverage", "float", "share", "1 where the reference image of this number has a generated one near"),
    Column("law_mean_influence", "float", "", "what the point adds to the cell's law_mean_error"),
    Column("law_covariance_influence", "float", "", "what the point adds to the cell's law_covariance_error"),
    Column("sliced_wasserstein_influence", "float", "", "what the point adds to the cell's sliced_wasserstein"),
    Column("clip_score", "float", "", "agreement of image and prompt; definition in the cell's row"),
    *[
        Column(f"{name}_influence", "float", "", f"what the image adds to the cell's {name}, as fid_influence to fid")
        for name in ("cmmd", "fd_dinov2", "inception_score")
    ],
    *[Column(name, "float", "", f"{meaning}; definition in the cell's row") for name, meaning in SCORES.items()],
    Column("discretisation_error", "float", "relative", "distance to the same noise run with many steps"),
    Column("exact_distance", "float", "", "distance to the exact solution from the same start, in the points' unit"),
    *[
        Column(f"{name}{region}", "float", unit, meaning.replace("mean ", "", 1) + region.replace("_", ", "))
        for name, (unit, meaning) in SIMILARITIES.items()
        for region in ("", "_inside", "_outside")
    ],
    *[
        Column(f"roundtrip_{name}", "float", unit, meaning.replace("mean ", "", 1))
        for name, (unit, meaning) in ROUND_TRIP.items()
    ],
    *[
        Column(f"attributes_{name}", "float", "share", f"1 where the prompt's {name} is right, 0 where wrong")
        for name in ATTRIBUTES
    ],
]

TIMINGS = [
    Column("schema_version", "int", "", "version of this table's schema that wrote the row"),
    Column("cell_id", "text", "", "the cell that was timed"),
    Column("run", "int", "", "number of the run in its cell, from 0, warm-up included"),
    Column("kind", "text", "", "warmup or timed"),
    Column("block", "text", "", "the sitting: cells of one block were timed in turn, and their rounds are pairs"),
    Column("round", "int", "", "round of its block, from 0; each cell of the block runs once in it, in random order"),
    Column("position", "int", "", "place of the run in its round, from 0"),
    Column("batch", "int", "images", "images that the run made"),
    Column("total_s", "float", "s", "end to end"),
    Column("text_s", "float", "s", "text encoding"),
    Column("denoise_s", "float", "s", "all steps together"),
    Column("decode_s", "float", "s", "decoding latents to images"),
    Column("steps", "floats", "s", "each step"),
    Column("started_at", "time", "UTC", "when the run began"),
]

TABLES: dict[str, list[Column]] = {"cells": CELLS, "images": IMAGES, "timings": TIMINGS}


@cache
def arrow_schema(table: str) -> pa.Schema:
    """The explicit schema that every file of `table` has."""
    fields = [pa.field(column.name, ARROW_TYPES[column.kind]) for column in TABLES[table]]
    return pa.schema(fields, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


def to_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as an arrow table: what a row lacks is null, what the schema lacks is an error."""
    schema = arrow_schema(table)
    _check_names(table, rows)
    given = set().union(*rows)
    arrays = [
        _array(table, column, [row.get(column.name) for row in rows])
        if column.name in given
        else pa.nulls(len(rows), ARROW_TYPES[column.kind])
        for column in TABLES[table]
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(table: str, column: Column, values: list[Any]) -> pa.Array:
    """The values of one column; those that are plain already, as a worker sends them, are taken as they are."""
    exact = EXACT.get(column.kind)
    there = [value for value in values if value is not None]
    # Text beyond ASCII may hold what is no UTF-8.
    if set(map(type, there)) - {exact} or (exact is str and not all(map(str.isascii, there))):
        values = [_plain(table, column, value) for value in values]
    return pa.array(values, ARROW_TYPES[column.kind])


def plain(table: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with exact Python types of their columns' kinds: no library's own, which another process would import.

    ValueError where a row does not fit, as in `to_arrow`.
    """
    _check_names(table, rows)
    columns = {column.name: column for column in TABLES[table]}
    return [{name: _plain(table, columns[name], value) for name, value in row.items()} for row in rows]


def _check_names(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = arrow_schema(table).names
    known = set(names)
    for row in rows:
        if not known.issuperset(row):
            raise ValueError(_unknown_column(table, min(row.keys() - known), names))


def describe(table: str) -> str:
    """The columns of `table` as a Markdown table."""
    lines = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {unit} | {meaning} |" for name, kind, unit, meaning in TABLES[table]]
    return "\n".join(lines)


def _unknown_column(table: str, name: str, valid: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    guess = f", did you mean {close[0]!r}?" if close else "."
    return f"{name!r} is not a column of {table}{guess} The columns are listed in harness/store/schema.py"


def _plain(table: str, column: Column, value: Any) -> Any:
    """`value` as plain Python of the column's kind; numpy scalars and one-element tensors are welcome."""
    if value is None or (type(value) is EXACT.get(column.kind) and (type(value) is not str or value.isascii())):
        return value
    try:
        return PLAIN[column.kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{table} column {column.name!r} takes {column.kind}, given {value!r}") from error


def _integer(value: Any) -> int:
    whole = int(value)
    if isinstance(value, str) or whole != value:
        raise ValueError(value)
    return whole


def _float(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(value)
    return float(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, str) or value not in (0, 1):
        raise ValueError(value)
    return bool(value)


def _text(value: Any) -> str:
    text = str(value)
    # A lone surrogate (a file name or prompt in a strange encoding) is not UTF-8: keep it readable, do not fail.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: Any) -> str:
    return (
        _text(value) if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    )


def _time(value: Any) -> int:
    """Milliseconds since 1970 from a datetime with a zone, ISO text, a float (seconds) or an int (milliseconds)."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.timestamp()
    return round(1000 * value) if isinstance(value, float) else int(value)


PLAIN = {
    "text": _text,
    "json": _json,
    "int": _integer,
    "float": _float,
    "bool": _boolean,
    "time": _time,
    "floats": lambda values: [_float(value) for value in values],
}
EXACT: dict[str, type] = {"text": str, "json": str, "int": int, "float": float, "bool": bool, "time": int}
# Column → the value that a record without it stands for, where that is known.
BEFORE = {
    part.name: PLAIN[part.column.kind](part.value(axis.default))
    for axis in AXES
    if axis.default is not None
    for part in axis.parts
    if part.value is not None
}


def with_defaults(cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of the cells table to be compared: an axis that a record is too old to have is at its default."""
    filled: dict[str, Any] = {}
    for column, default in BEFORE.items():
        if column not in cells:
            filled[column] = default
            continue
        missing = cells[column].isna().to_numpy()
        if missing.any():
            filled[column] = [default if gap else value for value, gap in zip(cells[column], missing, strict=True)]
    return cells.assign(**filled)
