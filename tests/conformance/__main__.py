"""The command of `make conformance`."""

import sys

from tests.conformance.running import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
