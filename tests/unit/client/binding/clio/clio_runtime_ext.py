"""A stand-in for the compiled binding of 2.2 and newer."""

from tests.unit.client.binding.replay import async_monitor
from tests.unit.client.binding.replay import finalize as clio_finalize
from tests.unit.client.binding.replay import init as clio_init

__all__ = ["async_monitor", "clio_finalize", "clio_init"]
