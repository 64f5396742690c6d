"""`python -m harness.status [RESULTS]`: a door to harness/sweep/status.py."""

import sys

from harness.errors import interruptible
from harness.sweep.status import main

if __name__ == "__main__":
    sys.exit(interruptible(main))
