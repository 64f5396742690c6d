"""Do our samplers do what the peers' do? `python -m harness.parity [--float64] [--stock] [--samplers dpmpp,lms]`.

Every sampler of conf/sampler is run beside every counterpart that diffusers and k-diffusion have, on the same levels,
from the same start, with the same noise and denoiser: in float64 with the peers' float32 casts taken out, and in
float32 with the peers as they are. Known faults of the peers are reproduced one by one (known_differences.py). Prints
tables, writes parquet and a figure; exit code 1 where a pair that should agree does not, a known fault is gone or a
peer is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import interruptible
from harness.parity import known_differences
from harness.parity.table import LIMITS, PASSES, STEPS, show, table, versions, write
from harness.store import layout
from reports.parity import draw_file
from samplers import registry


def main(words: Sequence[str] | None = None) -> int:
    asked = _arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 170)
    precisions = [name for name in LIMITS if getattr(asked, name)] or list(LIMITS)
    frame = table(asked.samplers, precisions, asked.steps)
    faults = [] if asked.only_samplers else known_differences.reproduce()
    show(frame, faults, console)
    path = write(frame, faults, asked.out)
    figure = draw_file(path, layout.plots(asked.out))
    verdicts = [*frame["verdict"], *(fault.verdict for fault in faults)]
    bad = [verdict for verdict in verdicts if verdict not in PASSES]
    told = ", ".join(f"{name} {value}" for name, value in versions().items())
    runs = int(frame["difference"].notna().sum())
    console.print(f"{runs} runs compared, {len(faults)} known differences; {told}", highlight=False)
    console.print(f"written: {path}, {figure}", highlight=False, soft_wrap=True)
    console.print("pass" if not bad else f"FAIL: {len(bad)} of {len(verdicts)} do not hold", highlight=False)
    return 1 if bad else 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--float64", action="store_true", help="only with the peers' float32 casts taken out")
    parser.add_argument("--stock", action="store_true", help="only the peers as they are, float32")
    parser.add_argument("--samplers", type=_words(registry.names()), help="names in conf/sampler, with commas")
    parser.add_argument("--steps", type=_numbers, default=STEPS, help="with commas (default: 1,2,3,10,20)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of results (default: results)")
    asked = parser.parse_args(words)
    asked.only_samplers = asked.samplers is not None
    asked.samplers = asked.samplers or registry.names()
    return asked


def _words(valid: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        given = [word.strip() for word in text.split(",") if word.strip()]
        unknown = [word for word in given if word not in valid]
        if unknown or not given:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or text!r} unknown; valid: {', '.join(valid)}")
        return given

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    try:
        given = tuple(int(word) for word in text.split(","))
    except ValueError:
        given = ()
    if not given or min(given) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of step counts such as 1,2,10")
    return given


if __name__ == "__main__":
    sys.exit(interruptible(main))
