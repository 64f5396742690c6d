"""What the switches of a pipeline cost and save here, each beside none: time, and how far the images move.

    python -m harness.bench.switches [--images 16] [--rounds 12] [--out docs/switches.md]

The embedded model as `model=pipeline`, UniPC on Karras levels. Runs of a switch and of the plain pipeline take turns,
so their ratio (median, with the order statistics that hold it to 95 %) is known better than either time; it is the
processor's time, to which other processes do not add. Switches that cannot be on this machine are named with their
reason.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cell import Cell
from harness.errors import InputError, interruptible

if TYPE_CHECKING:
    from torch import Tensor

WORDS = (
    "model=pipeline", "model.path=embedded", "data=embedded", "sampler=unipc", "schedule=karras", "steps=10", "cfg=2",
    "metrics=[]", "threads=1", "device=cpu", "precision=fp32",
)  # fmt: skip
SWITCHES = (
    "attention=sliced", "attention=math", "vae_slicing=true", "vae_tiling=true", "channels_last=true", "fuse_qkv=true",
    "offload=group", "quantization=int8", "quantization=nf4", "layerwise_casting=true", "freeu=true", "pag_scale=3",
    "cfg_interval=[0.3,5]", "compile=default", "step_cache=first_block", "step_cache=taylorseer", "attention=flash",
    "attention=xformers", "offload=model", "tf32=true", "quantization=fp8",
)  # fmt: skip
# What a switch needs to have something to do: several images in a batch, or images larger than a tile of the VAE.
ROOM = {"vae_slicing=true": ("timing_batch=4",), "vae_tiling=true": ("model.height=128", "model.width=128")}


def cell(images: int, *words: str) -> Cell:
    """The cell that the command line would make."""
    from harness.sweep.commandline import read
    from harness.sweep.settle import ask

    (values,) = read([*WORDS, f"n_images={images}", f"batch_size={images}", *words]).values
    return ask(values)


class Run(NamedTuple):
    """A pipeline that is loaded: what makes an image once more, and the images that it makes."""

    once: Callable[[], float]
    images: Tensor


@lru_cache(maxsize=1)
def loaded(images: int, *words: str) -> Run:
    """It, compiled and warm."""
    from harness.measure.session import Session

    one, session = cell(images, *words), Session(tempfile.gettempdir())  # which writes nothing here
    once = session.timer(one)
    once()
    return Run(once, session._generator(one, session._model(one)).batch(range(images)).images.float())


def measured(images: int, rounds: int, word: str) -> dict[str, float]:
    """Ratio of the times of one image with its ends, and the PSNR of the images to the plain ones in dB."""
    room = ROOM.get(word, ())
    other, plain = loaded.__wrapped__(images, *room, word), loaded(images, *room)
    ratios = []
    for k in range(rounds):
        runs = (plain, other) if k % 2 else (other, plain)
        first, second = (seconds(run.once) for run in runs)
        ratios.append(second / first if k % 2 else first / second)
    error = float((other.images - plain.images).pow(2).mean())
    low, high = ends(rounds)
    ratios.sort()
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[low],
        "high": ratios[high],
        "psnr": math.inf if error == 0 else 10 * math.log10(255**2 / error),
    }


def seconds(once: Callable[[], float]) -> float:
    """Of this process's processor, which other processes do not add to: one thread is all that computes here."""
    before = time.process_time()
    once()
    return time.process_time() - before


def ends(rounds: int) -> tuple[int, int]:
    """Which of so many sorted values hold their median with 95 %: the binomial's, Wilcoxon's sign interval.

    >>> ends(12)
    (2, 9)
    """
    from scipy.stats import binom

    low = max(0, int(binom.ppf(0.025, rounds, 0.5)) - 1)
    return low, rounds - 1 - low


def row(word: str, found: dict[str, float]) -> str:
    psnr = "equal" if math.isinf(found["psnr"]) else f"{found['psnr']:.1f}"
    return f"| `{word}` | {found['ratio']:.2f} | {found['low']:.2f} … {found['high']:.2f} | {psnr} |"


def report(images: int, rounds: int) -> Iterator[str]:
    """The page: a row a switch, and why those that are missing cannot be here; whole again with every row."""
    from harness.measure.cost import hardware

    head = [
        "# What the switches cost and save",
        "",
        f"`python -m harness.bench.switches --images {images} --rounds {rounds}`: the embedded model as",
        f"`model=pipeline`, UniPC, 10 steps, CFG 2, fp32, one thread of {hardware('cpu')}. Time is the",
        "processor's for one image, as a ratio to the plain pipeline's in the same turn (median, 95 %); PSNR is of its",
        "images to the plain ones. Images have 64 pixels a side, for tiles 128; slices are timed in batches of four.",
        "",
        "| switch | time | 95 % | PSNR, dB |",
        "|---|---:|---|---:|",
    ]
    rows, refused = [], []
    for word in sorted(SWITCHES, key=lambda one: one in ROOM):
        try:
            rows.append(row(word, measured(images, rounds, word)))
        except InputError as error:
            refused.append(f"* `{word}`: {error}")
        yield "\n".join([*head, *rows, "", "Not here, each said before anything is loaded:", "", *refused]) + "\n"


def main() -> None:
    asked: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--images", type=int, default=16)
    asked.add_argument("--rounds", type=int, default=12)
    asked.add_argument("--out", type=Path)
    given = asked.parse_args()
    text = ""
    for text in report(given.images, given.rounds):
        if given.out is not None:
            given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(interruptible(main))
