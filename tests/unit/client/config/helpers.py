from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings

from clio_client.config.errors import ConfigError

# Examples are quick, but the machine may be busy: no deadline an example.
unhurried = settings(deadline=None)

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | ConfigError:
    """What `call` returns or the ConfigError it raises; any other exception fails the test."""
    try:
        return call()
    except ConfigError as error:
        return error
