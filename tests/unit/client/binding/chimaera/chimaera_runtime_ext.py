"""A stand-in for the compiled binding before 2.2."""

from tests.unit.client.binding.replay import async_monitor
from tests.unit.client.binding.replay import finalize as chimaera_finalize
from tests.unit.client.binding.replay import init as chimaera_init

__all__ = ["async_monitor", "chimaera_finalize", "chimaera_init"]
