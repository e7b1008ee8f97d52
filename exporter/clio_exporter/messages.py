"""What subcommands say on standard error."""

from __future__ import annotations

import sys


def failed(text: object, status: int) -> int:
    """Say why the command ends; returns its exit status."""
    sys.stderr.write(f"clio-exporter: {text}\n")
    return status
