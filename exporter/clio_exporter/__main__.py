"""`python -m clio_exporter` is `clio-exporter`."""

import sys

from clio_exporter.cli import main

sys.exit(main())
