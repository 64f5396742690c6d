"""What the page of a large sweep costs: `python -m harness.bench.page`.

Writes synthetic records (`--results DIR` keeps them), builds their page in a process of its own, whose time and peak
memory are shown, opens the file in a headless Chromium, and times filters in every view, layout included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.bench.store import CHILD
from harness.errors import InputError, interruptible, one_line
from harness.measure.cost import hardware
from harness.paths import CONF, ROOT
from harness.store import layout, parquet_files, places
from harness.store.records import GROUP_ROWS, Store
from harness.store.schema import arrow_schema, to_arrow
from harness.store.tiles import save_grid

SCHEDULES = ("karras", "exponential", "trailing", "leading")
STEPS = (4, 5, 6, 8, 10, 12, 15, 20, 30, 50)
CFGS = (1.0, 2.0, 3.0, 5.0, 8.0)
TILES = 8  # images of a cell's grid, 64×64 as the embedded model's
GRIDS = 50  # different pictures: encoding costs the same for equal ones
TIMED_RUNS = 5
RIGHT = ("shape", "colour", "size", "background", "all")  # of a prompt
PROMPT = "a small matte green star left of a large shiny blue ring on wood, lit from above, number {}"
# Milliseconds of a filter, from the click's own function to a laid out page; a frame is painted within the next 17.
FILTER_JS = """([view, filters, q]) => {
    Page.open(view);
    document.body.offsetHeight;
    const began = performance.now();
    Page.set({ filters, q });
    document.body.offsetHeight;
    return performance.now() - began;
}"""
FILTERS = (  # filters by axis, by a range, by words, and none again
    [{"steps": {"among": ["10", "20"]}}, ""], [{"fid": {"least": None, "most": 9}}, ""], [{}, "karras"], [{}, ""],
)  # fmt: skip
VIEWS = ("overview", "tradeoff", "table", "images", "compare", "curves", "plans", "timings", "provenance", "errors")


def asked(cells: int) -> Iterator[tuple[str, str, int, float, int]]:
    """(sampler, schedule, steps, cfg, seed) of each cell: one seed as far as the other axes reach."""
    samplers = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))[:25]
    grid = ((*one, seed) for seed in range(cells) for one in product(samplers, SCHEDULES, STEPS, CFGS))
    return islice(grid, cells)


def cell_row(sampler: str, schedule: str, steps: int, cfg: float, seed: int, images: int) -> dict[str, Any]:
    """A row as a sweep of the embedded model leaves it, with all that it measures."""
    cell_id = hashlib.sha256(repr((sampler, schedule, steps, cfg, seed)).encode()).hexdigest()[:16]
    chance = np.random.default_rng(int(cell_id, 16))
    order = 1 + int(hashlib.sha256(sampler.encode()).hexdigest(), 16) % 3
    error = 2.0 * steps ** -(0.5 + 0.4 * order) * (1 + 0.1 * chance.normal() ** 2)
    shares = {f"attributes_{name}": 1 / (1 + error) for name in RIGHT}
    fid, latency = 4 + 30 * error, 0.004 + 0.019 * steps * (1 if cfg == 1 else 1.7) * (1 + 0.03 * chance.normal())
    features = {"pr_precision": 1 / (1 + error), "pr_recall": 0.9, "density": 0.8, "coverage": 0.9}
    measured = {"fid": fid, "fid_infinity": 0.8 * fid, "kid": 1e-3 * fid, "clip_score": 30 - 5 * error}
    measured |= {"discretisation_error": error, **features, **shares}
    row = {name: value * (1 + 0.01 * chance.normal()) for name, value in measured.items()}
    row |= {f"{name}_low": 0.95 * row[name] for name in measured} | {
        f"{name}_high": 1.05 * row[name] for name in measured
    }
    row |= {f"{name}_n": images for name in measured}
    said = {"task": {"name": "txt2img"}, "model": {"name": "embedded"}, "sampler": {"name": sampler}, "steps": steps}
    said |= {"schedule": {"name": schedule}, "cfg": cfg, "seed": seed, "n_images": images}
    return row | {
        "cell_id": cell_id, "status": "ok", "cell": json.dumps(said), "task": "txt2img", "model": "embedded",
        "model_fingerprint": "0" * 16, "data": "embedded", "data_fingerprint": "0" * 16, "sampler": sampler,
        "sampler_knobs": {"order": order}, "schedule": schedule, "schedule_knobs": {"end": "zero"}, "order": order,
        "implementation": "native", "noise": "independent", "steps": steps, "steps_run": steps, "nfe": steps,
        "cfg": cfg, "seed": seed, "n_images": images, "batch_size": 32, "precision": "fp32", "height": 64, "width": 64,
        "fid_extractor": "embedded", "fid_resizer": "none", "reference_count": 2048, "clip_definition": "embedded",
        "discretisation_reference": "200 steps", "device": "cpu", "threads": 2, "timing_runs": TIMED_RUNS,
        "timing_preset": "quick", "latency_s": latency, "latency_low": 0.97 * latency, "latency_high": 1.05 * latency,
        "text_s": 0.001, "denoise_s": latency - 0.004, "decode_s": 0.003, "other_s": 0.0, "images_per_s": 20 / latency,
        "peak_memory_mib": 600 + 5 * chance.normal(), "peak_memory_kind": "rss", "hardware": "a processor",
        "hostname": "a machine", "git_commit": "0" * 40, "ended_at": 1_900_000_000_000 + seed,
    }  # fmt: skip


def image_columns(row: dict[str, Any], images: int) -> dict[str, np.ndarray]:
    """Values of images whose means are the cell's values: what an image's prompt is worth is shared by all cells."""
    own, shared = np.random.default_rng(int(row["cell_id"], 16)), np.random.default_rng(row["seed"])
    near = 0.8 * shared.normal(size=images) + 0.6 * own.normal(size=images)
    near -= near.mean()
    return {
        "image_index": np.arange(images), "prompt_id": np.arange(images), "seed": np.full(images, row["seed"]),
        "fid_influence": 5 * near, "kid_influence": 5e-3 * near, "clip_score": row["clip_score"] + near,
        "discretisation_error": row["discretisation_error"] * np.exp(0.4 * near),
        **{name: row[name] + 0.1 * near for name in ("pr_precision", "density")},
        **{f"attributes_{name}": (own.random(images) < row[f"attributes_{name}"]).astype(float) for name in RIGHT},
    }  # fmt: skip


def write(folder: Path, cells: int, images: int) -> None:
    """The records of a sweep that has ended: compacted, as those of a sweep of this size are."""
    store = Store(folder)
    store.check_writable()
    rows = sorted((cell_row(*values, images) for values in asked(cells)), key=lambda row: row["cell_id"])
    timings = [
        {"cell_id": row["cell_id"], "run": k, "kind": "timed", "round": k, "total_s": row["latency_s"]}
        for row in rows
        for k in range(TIMED_RUNS)
    ]
    tables = {
        "images": _images(rows, images),
        "timings": to_arrow("timings", timings),
        "cells": to_arrow("cells", rows),
    }
    for name, table in tables.items():
        with store.place.writing(layout.record(name, "compacted-000001")) as sink:
            parquet_files.write(table, sink, rows=GROUP_ROWS[name])
    grids = [_grid(k) for k in range(GRIDS)]
    for k, row in enumerate(rows):
        store.place.put(layout.grid(row["cell_id"]), grids[k % GRIDS])


def _images(rows: list[dict[str, Any]], images: int) -> pa.Table:
    """The table of images of all cells, column by column: as dicts a million rows would take minutes."""
    parts = [image_columns(row, images) for row in rows]
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["cell_id"] = np.repeat([row["cell_id"] for row in rows], images)
    columns["prompt"] = np.tile([PROMPT.format(k) for k in range(images)], len(rows))
    columns["image_sha256"] = np.tile([f"{k:016x}" for k in range(images)], len(rows))
    schema, count = arrow_schema("images"), images * len(rows)
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _grid(number: int) -> bytes:
    """A grid of smooth pictures, as save_grid writes it."""
    chance, ramp = np.random.default_rng(number), np.linspace(0, 4 * np.pi, 64)
    waves = np.sin(ramp[:, None] * chance.random((TILES, 3, 1, 1)) + ramp * chance.random((TILES, 3, 1, 1)))
    with tempfile.TemporaryDirectory() as folder:
        place = places.at(Path(folder))
        save_grid((127 + 120 * waves).astype(np.uint8), place, "0" * 16)
        return place.read(layout.grid("0" * 16))


def build(folder: Path) -> Path:
    """Build the page in a process of its own, and say what it cost."""
    began = time.perf_counter()
    words = [sys.executable, "-c", CHILD, "page", "--results", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or "seconds" not in done.stdout:
        raise InputError(f"the page was not built: {one_line(done.stderr)[-300:]}")
    peak = float(done.stdout.split()[-1])
    out = layout.page(folder)
    text = out.read_bytes()
    data = text.split(b'id="data">')[1].split(b"<")[0]
    pictures = sum(len(part.split(b"<")[0]) for part in text.split(b'id="picture-')[1:])
    beside = sum(path.stat().st_size for path in (folder / "page-images").glob("*"))
    cpu = used.ru_utime + used.ru_stime  # of all children: the build is the only one
    print(f"built in {took:.1f} s ({cpu:.1f} s of a processor), the start of Python included; peak {peak:.0f} MiB")
    print(
        f"the file without pictures: {(len(text) - pictures) / 2**20:.2f} MiB, data {len(data) / 2**20:.2f} MiB of it; "
        f"pictures in it {pictures / 2**20:.2f} MiB, beside it {beside / 2**20:.1f} MiB"
    )
    return out


def browse(out: Path, repeats: int) -> None:
    """Open the page and filter it, in the distribution's Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("no playwright here, so nothing is opened: uv sync --group browser, or --no-browser") from None
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise InputError("no Chromium here, so nothing is opened: apt-get install chromium, or --no-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        print(f"Chromium {browser.version}, headless, 1280×900")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        opened = []
        for _ in range(repeats):
            page.goto(out.resolve().as_uri())
            page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
            opened.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime"))
        print(f"opens in {_told(opened, 's', 1000)}")
        for view in VIEWS:
            times = [page.evaluate(FILTER_JS, [view, *chosen]) for _ in range(repeats) for chosen in FILTERS]
            print(f"filters in {view}: {_told(times, 'ms')}")
        browser.close()


def _told(values: list[float], unit: str, over: float = 1.0) -> str:
    return f"{statistics.median(values) / over:.3g} {unit} (median of {len(values)}; most {max(values) / over:.3g})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--images", type=int, default=200, help="images a cell (default: 200, 10⁶ with 5,000 cells)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, help="keep the records here; those that are there are taken")
    parser.add_argument("--no-browser", action="store_true", help="only build")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.results or Path(temporary)
        print(f"{given.cells} cells with {given.images} images each; {hardware('cpu')}")
        try:
            if not (folder / "cells").exists():
                began = time.perf_counter()
                write(folder, given.cells, given.images)
                print(f"records written in {time.perf_counter() - began:.0f} s")
            out = build(folder)
            if not given.no_browser:
                browse(out, given.repeats)
        except InputError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
