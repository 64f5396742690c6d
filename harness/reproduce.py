"""`python -m harness.reproduce`: a door to harness/compare/reproduce.py."""

import sys

from harness.compare.reproduce import main
from harness.errors import interruptible

if __name__ == "__main__":
    sys.exit(interruptible(main))
