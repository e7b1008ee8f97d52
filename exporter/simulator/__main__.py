"""``python -m exporter.simulator``."""

from __future__ import annotations

import argparse
import sys

from exporter.simulator.command import add_arguments, run


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m exporter.simulator")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
