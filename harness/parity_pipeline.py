"""`python -m harness.parity_pipeline`: a door to harness/parity/pipeline.py."""

import sys

from harness.errors import interruptible
from harness.parity.pipeline import main

if __name__ == "__main__":
    sys.exit(interruptible(main))
