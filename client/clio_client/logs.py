"""Logging of a library: through `logging`, under this package's names, with fields as `extra`.

Nothing is configured here: who uses the library decides where its events go, and without a decision
they go nowhere.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

logging.getLogger("clio_client").addHandler(logging.NullHandler())


def get_logger(name: str) -> Any:
    """A bound logger for a module: `get_logger(__name__)`; fields are keyword arguments of its methods."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        cache_logger_on_first_use=False,
    )
