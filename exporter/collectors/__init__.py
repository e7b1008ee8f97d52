"""Collectors: one module a subsystem. `COLLECTORS` lists them in the order of the exposition."""

from __future__ import annotations

from typing import Final

from exporter.collectors.base import Collector
from exporter.collectors.bdev import BdevCollector
from exporter.collectors.config import ConfigCollector
from exporter.collectors.cte import CteCollector
from exporter.collectors.node import NodeCollector
from exporter.collectors.pool import PoolCollector
from exporter.collectors.worker import WorkerCollector

COLLECTORS: Final[tuple[Collector, ...]] = (
    NodeCollector(),
    WorkerCollector(),
    BdevCollector(),
    PoolCollector(),
    CteCollector(),
    ConfigCollector(),
)

__all__ = ["COLLECTORS", "Collector"]
