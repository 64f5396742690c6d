"""`python -m harness.gits`: a door to harness/search/gits.py."""

import sys

from harness.errors import interruptible
from harness.search.gits import main

if __name__ == "__main__":
    sys.exit(interruptible(main))
