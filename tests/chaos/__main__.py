"""The command of `make chaos`."""

import sys

from tests.chaos.running import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
