"""The dashboards, one a module; each has a function ``board``."""

from __future__ import annotations

from grafana.generator.board import Board
from grafana.generator.boards import config, exporter, health, node, pools, scheduler, storage, topology


def all_boards(control_api: str) -> tuple[Board, ...]:
    """Every dashboard; `control_api` is the base URL at which browsers reach the control API."""
    return (
        topology.board(control_api),
        node.board(control_api),
        pools.board(),
        config.board(),
        scheduler.board(),
        storage.board(),
        health.board(),
        exporter.board(),
    )
