"""`python -m clio_control_api`."""

import sys

from clio_control_api.cli import main

if __name__ == "__main__":
    sys.exit(main())
