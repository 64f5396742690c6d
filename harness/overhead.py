"""`python -m harness.overhead`: a door to harness/parity/overhead.py."""

import sys

from harness.errors import interruptible
from harness.parity.overhead import main

if __name__ == "__main__":
    sys.exit(interruptible(main))
