"""Two models, or one with and without something, on the same prompts and noise: a sweep of both and their paired table.

    python -m harness.sweep.against model.path=/base model.path=/tuned -- model=sdxl data=folder data.path=/my/coco
    python -m harness.sweep.against adapter_scale=0 adapter_scale=1 -- model=pipeline … adapters.style.kind=lora …

What stands before `--` is what differs, a word or several in one pair of quotes; what stands behind is what both share,
lists included. Cells that are recorded already are not run again; then `reports/compare.py` prints a table a pair.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from harness.errors import InputError, interruptible, one_line
from harness.paths import ROOT
from harness.sweep.enumerate import Asked, enumerate_cells

USAGE = "write A B -- WORDS, as in model.path=/base model.path=/tuned -- model=sdxl data=folder data.path=/my/coco"


def sides(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of either side's sweep. InputError where they are not told apart.

    >>> sides(["cfg=1", "cfg=3 seed=1", "--", "steps=5"])
    (['steps=5', 'cfg=1'], ['steps=5', 'cfg=3', 'seed=1'])
    """
    words = list(given)
    if "--" not in words or words.index("--") != 2:
        raise InputError(f"two sides are compared: {USAGE}")
    a, b = ([*words[3:], *shlex.split(side)] for side in words[:2])
    return a, b


def main(given: Sequence[str] | None = None) -> int:
    """The exit code: 2 where the words cannot be, else the sweeps' or the table's."""
    given = sys.argv[1:] if given is None else given
    try:
        words = sides(given)
        asked = [enumerate_cells(side) for side in words]
    except InputError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    for side in words:
        code = subprocess.run([sys.executable, "-m", "harness.sweep", *side, "plots=false"], cwd=None).returncode
        if code:
            return code
    print(f"A is {given[0]}, B is {given[1]}", flush=True)
    return max((_table(asked[0], a, b) for a, b in zip(asked[0].cells, asked[1].cells, strict=True)), default=0)


def _table(asked: Asked, a: str, b: str) -> int:
    command = [sys.executable, str(ROOT / "reports" / "compare.py"), a, b, "--results", asked.settings.results_dir]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(interruptible(main))
