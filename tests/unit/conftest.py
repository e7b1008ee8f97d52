"""Fixtures for all unit tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Where a test sends the log (a command does, too), the next one finds it as it was at the start."""
    root, werkzeug = logging.getLogger(), logging.getLogger("werkzeug")
    handlers, level, werkzeug_level = list(root.handlers), root.level, werkzeug.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    werkzeug.setLevel(werkzeug_level)
    structlog.reset_defaults()
