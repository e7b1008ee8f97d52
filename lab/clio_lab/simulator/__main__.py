"""``python -m clio_lab.simulator``."""

from __future__ import annotations

import argparse
import sys

from clio_lab.simulator.command import add_arguments, run


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m clio_lab.simulator")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
