"""What can go wrong in the demo; every message names the thing and the remedy."""

from __future__ import annotations


class DemoError(Exception):
    """A condition the user can act on. The message is one line: what is wrong, then the remedy."""


class ProcessFailedError(DemoError):
    """A process ended, or did not become ready in time. The message ends with its last log lines."""


class InterruptedStartError(DemoError):
    """Starting was given up because the demo was told to stop."""
