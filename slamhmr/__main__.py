"""`python -m slamhmr` is the command `slamhmr`."""

import sys

from slamhmr.cli import main

if __name__ == "__main__":
    sys.exit(main())
