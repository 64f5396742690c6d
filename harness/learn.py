"""`python -m harness.learn model=embedded cfg=3 nfe=5,6,8`: a door to harness/search/learn.py."""

import sys

from harness.errors import interruptible
from harness.search.learn import main

if __name__ == "__main__":
    from reports.learned import draw

    sys.exit(interruptible(lambda: main(sys.argv[1:], draw)))
