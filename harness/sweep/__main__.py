"""`python -m harness.sweep`: the cells that a command line asks for; an executor runs those not yet recorded.

A worker process imports this module again, so it loads nothing heavy by itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness.errors import one_line
from harness.sweep.enumerate import enumerate_cells
from harness.sweep.live import served
from harness.sweep.plots import by_hand, draw, page
from harness.sweep.run import guarded, run


def main() -> int:
    began = time.perf_counter()
    debug = any(word.replace(" ", "").lower() in ("debug=true", "+debug=true", "++debug=true") for word in sys.argv[1:])

    def work() -> int:
        words = sys.argv[1:]
        if any(word.startswith("-") for word in words):
            from harness.sweep.commandline import answer

            if answer(words):  # --help, --cfg and the like
                return 0
        asked = enumerate_cells(words)
        for note in asked.notes:
            print(one_line(f"note: {note}"))
        cells = list(asked.cells.values())
        results = Path(asked.settings.results_dir)
        with served(results, cells, asked.settings.live):
            outcome = run(cells, asked.settings)
        print(one_line(draw(results, cells, outcome.ran) if asked.settings.plots else f"next: {by_hand(results)}"))
        if asked.settings.plots:
            print(one_line(page(results, outcome.ran)))
        print(f"{time.perf_counter() - began:.1f} s in all")
        return outcome.code

    return guarded(work, debug)


if __name__ == "__main__":
    sys.exit(main())
