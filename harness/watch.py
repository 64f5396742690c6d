"""`python -m harness.watch DIR`: a door to reports/web/serve.py."""

import sys

from harness.errors import interruptible
from reports.web.serve import main

if __name__ == "__main__":
    sys.exit(interruptible(main))
