"""`python -m harness.race sampler=euler,dpmpp,unipc nfe=5,8,10`: a door to harness/search/race.py."""

import sys

from harness.errors import interruptible
from harness.search.race import main

if __name__ == "__main__":
    sys.exit(interruptible(lambda: main(sys.argv[1:])))
