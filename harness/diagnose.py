"""`python -m harness.diagnose sampler=unipc steps=8`: a door to harness/search/diagnose.py."""

import sys

from harness.errors import interruptible
from harness.search.diagnose import main

if __name__ == "__main__":
    from reports.diagnosis import draw

    sys.exit(interruptible(lambda: main(sys.argv[1:], draw)))
