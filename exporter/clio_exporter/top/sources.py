"""Where `top` has its metrics from: the nodes themselves, or an exporter that runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from clio_exporter.engine import Engine
from clio_exporter.service_client import Service
from clio_exporter.settings import Settings
from clio_exporter.telemetry import Telemetry
from clio_exporter.top.frame import COLLECTORS, Frame, read_frame

SECONDS: Final = 5.0
"""What a frame may take; then what has arrived is what there is."""


class SourceError(Exception):
    """There is no frame now; the text says why."""


class Source(Protocol):
    """Tells how things are."""

    def text(self) -> str:
        """An exposition. Raises `SourceError`."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Nodes:
    """The nodes, asked as in a scrape."""

    def __init__(self, settings: Settings, env: Mapping[str, str], home: Path) -> None:
        """Raises `ConfigError` and `TransportUnavailableError` as the exporter does at its start."""
        self._engine = Engine(lambda: settings, env, home, Telemetry(silent=True), role="top")

    def text(self) -> str:
        """One scrape."""
        return b"".join(self._engine.scrape(COLLECTORS, SECONDS).render(openmetrics=False)).decode()

    def close(self) -> None:
        """Close the connections."""
        self._engine.close()


class Remote:
    """An exporter, asked over HTTP."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def text(self) -> str:
        """One scrape. Raises `SourceError`."""
        answer = self._service.get("/metrics", **{"collect[]": sorted(COLLECTORS)})
        if not answer.ok:
            raise SourceError(f"{self._service.url}: {answer}")
        return answer.body.decode(errors="replace")

    def close(self) -> None:
        """Nothing is held."""


def next_frame(source: Source, before: Frame | None) -> Frame:
    """The frame of now, with rates since the one before. Raises `SourceError`."""
    text = source.text()
    return read_frame(text, time.monotonic(), before)
