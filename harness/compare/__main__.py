"""`python -m harness.compare`: is this checkout slower than another commit? See harness/compare/two_checkouts.py."""

import sys

from harness.compare.two_checkouts import main
from harness.errors import interruptible

if __name__ == "__main__":
    sys.exit(interruptible(main))
