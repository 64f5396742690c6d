"""One door to every command: `sampler-harness sweep steps=20,30` is `python -m harness.sweep steps=20,30`.

`sampler-harness` (where the project is installed, as `uv run` does) and `python -m harness` are the same. Without a
word it lists the commands. A command runs as the program it is, so a sweep's workers and Ctrl-C do what they always do.
"""

from __future__ import annotations

import runpy
import sys

from harness.errors import nearest

COMMANDS = {  # word: (module, what it does)
    "sweep": ("harness.sweep", "run the cells of a command line that are not yet recorded"),
    "against": ("harness.sweep.against", "two models, or with and without something, on the same prompts and noise"),
    "plot": ("reports.plot", "tables and figures of the records"),
    "page": ("reports.page", "one HTML file of all records: trade-offs, images, comparisons"),
    "status": ("harness.status", "what runs where, how far it is, what failed and why, and how to go on"),
    "watch": ("harness.watch", "the same page on this machine while a sweep runs"),
    "pick": ("reports.pick", "the cells within a budget that nothing beats, and what ties with them"),
    "compare-cells": ("reports.compare", "two cells, or two values of an axis, with paired differences"),
    "check": ("reports.check", "two folders of records: same work, same images, same quality?"),
    "compare": ("harness.compare", "is this checkout slower than another commit?"),
    "reproduce": ("harness.reproduce", "run a recorded cell again and compare bit for bit"),
    "pilot": ("harness.sweep.pilot", "what a node of a cluster runs of a job's folder (executor=slurm starts it)"),
    "store": ("harness.store", "list, compact or repair records"),
    "show": ("samplers.show", "a sampler's table of coefficients and its order"),
    "tableaux": ("samplers.tableaux", "the Runge-Kutta tableaux and their orders"),
    "parity": ("harness.parity", "every sampler beside diffusers and k-diffusion"),
    "parity-figure": ("reports.parity", "the figure of a recorded parity run"),
    "parity-pipeline": ("harness.parity_pipeline", "whole pipelines beside those of diffusers"),
    "overhead": ("harness.overhead", "the arithmetic of a step beside the peers'"),
    "gits": ("harness.gits", "a model's reference trajectory for the gits schedule"),
    "learn": ("harness.learn", "plans fitted to a model, beside the best that is made by hand"),
    "learned-figure": ("reports.learned", "the figure of a recorded learning run"),
    "diagnose": (
        "harness.diagnose",
        "where on the way a sampler's error arises, and what it feels of each coefficient",
    ),
    "diagnosis-figure": ("reports.diagnosis", "the figure of a recorded diagnosis"),
    "race": ("harness.race", "a sweep in rounds of images, in which cells that are beaten stop"),
    "train": ("harness.embedded.train", "train the embedded model again"),
    "train-classifier": ("harness.embedded.classifier", "train the classifier that guides the embedded model again"),
    "evaluate": ("harness.embedded.evaluate", "the figures of the embedded model's card"),
    "bench.fake_cells": ("harness.bench.fake_cells", "a sweep of cells that compute nothing and break when asked"),
    "bench.inversion": ("harness.bench.inversion", "how well samplers run backwards, where the truth is known"),
    "bench.kills": ("harness.bench.kills", "what a sweep survives when it is killed at random"),
    "bench.metrics": ("harness.bench.metrics", "what FID, KID, precision and recall of 30,000 images cost"),
    "bench.page": ("harness.bench.page", "what the page of 5,000 cells costs to build, to open and to filter"),
    "bench.pipeline": ("harness.bench.pipeline", "whole generations beside diffusers' own pipeline, timed"),
    "bench.records_gate": ("harness.bench.records_gate", "does `check` find injected errors and nothing else?"),
    "bench.ruler": ("harness.bench.ruler", "does the embedded world tell samplers apart, as photographs do?"),
    "bench.scale": (
        "harness.bench.scale",
        "what 10⁵ cells cost to enumerate and record, and a thousand workers to feed",
    ),
    "bench.speed_gate": ("harness.bench.speed_gate", "does `compare` find slowdowns and nothing else?"),
    "bench.store": ("harness.bench.store", "how fast many records are written, read and compacted"),
    "bench.sweep": ("harness.bench.sweep", "what a sweep costs beside its cells"),
    "bench.switches": (
        "harness.bench.switches",
        "what a pipeline's switches cost and save, in time, memory and images",
    ),
    "bench.timing": ("harness.bench.timing", "can latencies of one sitting be trusted on this machine?"),
}


def main() -> int | None:
    """Run the command that the first word names with the other words; exit code 2 for a word that names none."""
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h"):
        print(_listed())
        return 0
    if word not in COMMANDS:
        print(f"error: unknown command {word!r}: {nearest(word, COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv[1:] = rest
    runpy.run_module(COMMANDS[word][0], run_name="__main__", alter_sys=True)  # ends with the command's exit code
    return 0


def _listed() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {word:<{width}}  {does}" for word, (_, does) in COMMANDS.items()]
    return "\n".join(["usage: sampler-harness COMMAND ...   (COMMAND --help says what it takes)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
