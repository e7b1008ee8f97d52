"""Collectors: one module a subsystem, and its name in the list here, in the order of the exposition."""

from __future__ import annotations

import importlib
from typing import Final

from clio_exporter.collectors.base import Collector


def load(name: str) -> Collector:
    """The collector of the module of this name in this package."""
    module = importlib.import_module(f"{__name__}.{name}")
    (collector,) = (
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Collector) and thing.__module__ == module.__name__
    )
    return collector()


_MODULES = ("node", "worker", "bdev", "pool", "cost", "cte", "config")

COLLECTORS: Final[tuple[Collector, ...]] = tuple(map(load, _MODULES))

__all__ = ["COLLECTORS", "Collector", "load"]
