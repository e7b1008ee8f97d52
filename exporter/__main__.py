"""`python -m exporter` is `clio-exporter`."""

import sys

from exporter.cli import main

sys.exit(main())
