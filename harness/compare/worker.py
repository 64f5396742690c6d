"""One side of a comparison: a process that runs the cells of one checkout when it is told to.

`python -P compare_worker.py ROOT RESULTS` imports everything from the checkout at ROOT, so that the same file serves an
older commit. It reads a JSON object a line and answers with one: {"do": "cells", "words": […]} → labels,
{"do": "prepare", "cell": k} → denoiser calls and FLOPs, {"do": "time", "cell": k} → seconds,
{"do": "memory", "cell": k} → MiB.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

# Where this commit has what a worker needs, and where older ones do.
SESSIONS = ("harness.measure.session:Session", "harness.run:Session")
ENUMERATORS = ("harness.sweep.enumerate:enumerate_cells", "harness.sweep:enumerate_cells")


def first_of(*places: str) -> Any:
    """What the first of these places ("module:name") that the checkout has holds."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as error:
            missing = getattr(error, "name", None)
            if isinstance(error, ModuleNotFoundError) and not (missing and module.startswith(missing)):
                raise  # something else is not installed
    raise ImportError(f"none of {', '.join(places)} is in this checkout")


class Side:
    """What a worker remembers: the cells asked for, and of each how it is run."""

    def __init__(self, results_dir: str) -> None:
        self.session = first_of(*SESSIONS)(results_dir)
        self.cells: list[Any] = []

    def do_cells(self, words: list[str]) -> dict[str, Any]:
        enumerate_cells = first_of(*ENUMERATORS)
        sys.argv[1:] = words  # where an older commit looks for them
        self.cells = list(enumerate_cells(words).cells.values())
        names = [cell.label for cell in self.cells]
        # Not everything is in a label (the schedule is not): the second of a name answers the second of the other side.
        seen = [names[:k].count(name) for k, name in enumerate(names)]
        return {"labels": [f"{name} ({n + 1})" if n else name for name, n in zip(names, seen, strict=True)]}

    def do_prepare(self, cell: int) -> dict[str, Any]:
        """Load what the cell needs and run it twice, so that nothing is timed that happens once."""
        self.timer = self.session.timer(self.cells[cell])
        self.timer()
        self.timer()
        return self.session.cost(self.cells[cell])

    def do_time(self, cell: int) -> dict[str, Any]:
        return {"seconds": self.timer()}

    def do_memory(self, cell: int) -> dict[str, Any]:
        return {"mib": self.session.peak_mib(self.cells[cell])}


def main(root: str, results_dir: str) -> int:
    sys.path.insert(0, root)
    os.chdir(root)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    side = Side(results_dir)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(side, f"do_{asked.pop('do')}")(**asked)
        except Exception as error:  # the other side goes on; the parent decides what a failure means
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
