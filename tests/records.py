"""Synthetic records that behave as real ones do, written through the store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from harness.store import layout
from harness.store.records import Store
from harness.store.tiles import save_grid
from samplers import registry, schedules
from samplers.core import plan_json
from samplers.core.levels import DiscreteVP

SCHEDULES = {"euler": "karras", "dpmpp": "karras", "unipc": "karras", "ddim": "leading", "plms": "leading"}
ORDERS = {"euler": 1, "dpmpp": 2, "unipc": 2, "ddim": 1, "plms": 3}
ERROR_AT_5 = {"euler": 0.28, "dpmpp": 0.24, "unipc": 0.24, "ddim": 0.28, "plms": 0.81}
PROMPTS = (
    "a large red circle at the top left on a white background",
    "a small $blue$ star left of a large $green$ ring, on a navy background",
    "a small purple cross above a large cyan triangle on pink",
    "a tiny_cat^2 & 100 % <b>bold</b> \\alpha",
    "a large yellow square in the center on grey",
    "a small orange ring at the bottom on black",
)


def cell_row(sampler: str = "dpmpp", steps: int = 20, cfg: float = 3.0, **values) -> dict:
    """One cell's row. What is not given follows from the axes, with noise that depends on them alone."""
    task, precision, strength = values.get("task", "txt2img"), values.get("precision", "fp32"), values.get("strength")
    asked = json.dumps([sampler, steps, cfg, {k: str(v) for k, v in sorted(values.items())}])
    cell_id = hashlib.sha256(asked.encode()).hexdigest()[:16]
    noise = np.random.default_rng(int(cell_id[:8], 16)).normal(size=8)
    error = ERROR_AT_5.get(sampler, 0.3) * (steps / 5) ** -(0.35 + 0.75 * ORDERS.get(sampler, 2))
    share = 1.0 if strength is None else strength
    fid = (3.0 + 40 * error * share + 0.35 * (cfg - 3.5) ** 2 / (1 + 0.1 * cfg)) * (1 + 0.02 * noise[0])
    clip = 31.5 - 8 * error * share - 5.5 * np.exp(-cfg / 1.6) + 0.05 * noise[1]
    step_s = 0.021 * {"fp32": 1.0, "bf16": 0.62, "fp16": 1.35}[precision] * (1 if cfg == 1 else 1.7)
    denoise = step_s * max(1, round(steps * share)) * (1 + 0.02 * noise[2])
    latency = denoise + 0.004 + 0.011 + 0.003
    row = {
        "cell_id": cell_id,
        "status": "ok",
        "task": task,
        "model": "embedded",
        "data": "shapes",
        "sampler": sampler,
        "sampler_knobs": {"order": ORDERS.get(sampler, 2)},
        "implementation": "native",
        "schedule": SCHEDULES.get(sampler, "karras"),
        "steps": steps,
        "steps_run": max(1, round(steps * share)),
        "cfg": cfg,
        "precision": precision,
        "height": 64,
        "width": 64,
        "seed": 0,
        "n_images": 256,
        "batch_size": 32,
        "reference_count": 2048,
        "fid": fid,
        "fid_low": fid * 0.93,
        "fid_high": fid * 1.08,
        "fid_n": 256,
        "fid_extractor": "embedded-v1-96d",
        "clip_score": clip,
        "clip_score_low": clip - 0.22,
        "clip_score_high": clip + 0.22,
        "clip_definition": "100·cos, open_clip embedded-v1",
        "discretisation_error": error * (1 + 0.03 * noise[3]),
        "discretisation_error_low": error * 0.93,
        "discretisation_error_high": error * 1.07,
        "timing_preset": "quick",
        "timing_batch": 1,
        "timing_runs": 5,
        "latency_s": latency,
        "latency_low": latency * 0.97,
        "latency_high": latency * 1.05,
        "text_s": 0.004,
        "denoise_s": denoise,
        "decode_s": 0.011,
        "other_s": 0.003,
        "peak_memory_mib": {"fp32": 612.0, "bf16": 540.0, "fp16": 545.0}[precision] + noise[4],
        "peak_memory_kind": "rss",
        "nfe": steps,
        "device": "cpu",
        "hardware": "a processor",
        "threads": 2,
        "git_commit": "0" * 40,
        "ended_at": 1_900_000_000_000,
    }
    if strength is not None:
        row |= {
            "feature_distance": 0.2 + share,
            "feature_distance_low": 0.18 + share,
            "feature_distance_high": 0.23 + share,
        }
        row |= {"psnr": 30 - 14 * share, "psnr_low": 29.5 - 14 * share, "psnr_high": 30.5 - 14 * share}
    if task == "inpaint":
        row |= {"psnr_outside": 33 - share, "psnr_outside_low": 32.6 - share, "psnr_outside_high": 33.4 - share}
    return row | values


def write(store: Store, row: dict, pictures: bool = True) -> str:
    """Record a cell with its images' rows and, where asked, its grid."""
    if pictures and row["status"] == "ok":
        row = {**row, "plan_id": _save_plan(store, row["sampler"], row["steps"])}
    store.write(row, image_rows(row), [{"run": 0, "kind": "timed", "total_s": row.get("latency_s"), "steps": [0.02]}])
    if pictures and row["status"] == "ok":
        save_grid(_pictures(row), store.place, row["cell_id"])
    return row["cell_id"]


def image_rows(row: dict, count: int = 48) -> list[dict]:
    """Rows of images whose means are the cell's values: what a prompt is worth is shared, noise is the cell's own."""
    shared, own = np.random.default_rng(0), np.random.default_rng(int(row["cell_id"][:8], 16))
    error = row.get("discretisation_error") or 0.0
    clip = shared.normal(0, 2, count) + error * own.normal(0, 1, count)
    influence = shared.normal(0, 4, count) + 4 * error * own.normal(0, 1, count)
    size = np.exp(0.4 * shared.normal(0, 1, count))
    rows = [
        {"image_index": k, "seed": 0, "prompt_id": k, "prompt": PROMPTS[k] if k < len(PROMPTS) else f"drawing {k}"}
        for k in range(count)
    ]
    columns = {"fid_influence": influence - influence.mean()} if row.get("fid") is not None else {}
    if row.get("clip_score") is not None:
        columns["clip_score"] = row["clip_score"] + clip - clip.mean()
    if error:
        columns["discretisation_error"] = error * size / np.sqrt((size**2).mean())
    for name, values in columns.items():
        for one, value in zip(rows, values, strict=True):
            one[name] = float(value)
    return rows


def full_sweep(results: Path) -> Store:
    """A grid of steps, of cfg, of precision, of strength for two tasks, and a failed cell."""
    store = Store(results)
    for sampler in SCHEDULES:
        for steps in (5, 10, 20, 50):
            write(store, cell_row(sampler, steps))
    for cfg in (1.0, 2.0, 5.0, 8.0, 12.0):
        for sampler in ("dpmpp", "euler"):
            write(store, cell_row(sampler, cfg=cfg))
    for precision in ("bf16", "fp16"):
        for sampler in ("dpmpp", "euler"):
            write(store, cell_row(sampler, precision=precision))
    for task in ("img2img", "inpaint"):
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            for sampler in ("dpmpp", "unipc"):
                write(store, cell_row(sampler, task=task, strength=strength))
    write(store, cell_row("plms", 100, status="failed", error="out of memory", fid=None, latency_s=None))
    return store


def _save_plan(store: Store, sampler: str, steps: int) -> str:
    levels = schedules.build(SCHEDULES[sampler], DiscreteVP.scaled_linear(), steps)
    text = plan_json.dumps(registry.build_plan(registry.load(sampler), levels), levels)
    plan_id = plan_json.identity(text)
    store.place.put(layout.plan(plan_id), text.encode())
    return plan_id


def diagnose(store: Store, row: dict, name: str, **more) -> dict:
    """A file as `python -m harness.diagnose` leaves it, of the plan of a cell that was written."""
    plan = plan_json.loads(store.place.read(layout.plan(row["plan_id"]))).plan
    steps = [
        {
            "calls": [k, k + 1], "from": 10.0 / (k + 1), "to": 10.0 / (k + 2), "h": 0.5, "misses": [0.0, 0.1],
            "amplifies": 1.0 + k, "local": 0.01 * (k + 1), "arrives": 0.02 * (k + 1), "share": 0.1 * k - 0.1,
            "euler": None,
        }
        for k in range(plan.nfe)
    ]  # fmt: skip
    told = {
        "version": 1, "cell_id": "0" * 16, "cell": "a cell", "model": row["model"], "cfg": row["cfg"], "images": 16,
        "plan_id": row["plan_id"], "error": 0.0625, "start": {"arrives": 0.001, "share": 0.002}, "steps": steps,
        "curvature": {"ratios": [10.0, 1.0, 0.1], "dD": [0.1, 0.5, 0.0], "d2D": [0.2, float("nan"), 0.1]},
        "coefficients": [{"call": 1, "back": 1, "weight": -0.5, "moves": 0.25, "log_error": -1.5}],
        "levels": [{"level": 1, "ratio": 5.0, "moves": 0.5, "log_error": 0.75}],
    }  # fmt: skip
    told |= more
    store.place.put(f"diagnoses/{name}.json", json.dumps(told).encode())
    return told


def _pictures(row: dict) -> np.ndarray:
    """Six blurred-looking discs, uint8 6×3×64×64, noisier where the discretisation error is larger."""
    y, x = np.mgrid[:64, :64]
    chance = np.random.default_rng(0)
    pictures = np.empty((6, 3, 64, 64))
    for k in range(6):
        disc = 1 / (1 + np.exp((np.hypot(y - 20 - 4 * k, x - 40 + 3 * k) - 14) / 1.5))
        colour, ground = chance.uniform(0, 255, (3, 1, 1)), chance.uniform(120, 255, (3, 1, 1))
        pictures[k] = ground + (colour - ground) * disc
    noise = 200 * (row["discretisation_error"] or 0) * chance.normal(size=pictures.shape)
    return (pictures + noise).clip(0, 255).astype(np.uint8)
