"""Where `top` has its frames from: the nodes themselves, or an exporter that runs; a job's: `saved.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from clio_exporter.engine import Engine
from clio_exporter.service_client import Service
from clio_exporter.settings import Settings
from clio_exporter.telemetry import Telemetry
from clio_exporter.top.frame import COLLECTORS, Frame, Key, read_frame

SECONDS: Final = 5.0
"""What a frame may take; then what has arrived is what there is."""


class SourceError(Exception):
    """There is no frame now; the text says why."""


class Source(Protocol):
    """Tells how things are."""

    def frame(self, before: Frame | None, /) -> Frame:
        """The frame to show now; `before` is the one shown last. Raises `SourceError`."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Player(Protocol):
    """Where time can be chosen: what a source of the past has beside its frames."""

    @property
    def ended(self) -> bool:
        """Whether the last moment is shown, and no later one will come."""
        ...

    def move(self, seconds: float) -> None:
        """Go to another moment, so many seconds later or earlier, as far as there are any."""
        ...

    def curves(self, key: Key, at: float, step: float, count: int) -> Sequence[Sequence[float]]:
        """A node's processor, memory and tasks a second: `count` points `step` seconds apart, until a moment.

        Raises `SourceError`.
        """
        ...


class Nodes:
    """The nodes, asked as in a scrape."""

    def __init__(self, settings: Settings, env: Mapping[str, str], home: Path) -> None:
        """Raises `ConfigError` and `TransportUnavailableError` as the exporter does at its start."""
        self._engine = Engine(lambda: settings, env, home, Telemetry(silent=True), role="top")

    def frame(self, before: Frame | None) -> Frame:
        """One scrape, with rates since the frame before."""
        text = b"".join(self._engine.scrape(COLLECTORS, SECONDS).render(openmetrics=False)).decode()
        return read_frame(text, time.monotonic(), before)

    def close(self) -> None:
        """Close the connections."""
        self._engine.close()


class Remote:
    """An exporter, asked over HTTP."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def frame(self, before: Frame | None) -> Frame:
        """One scrape, with rates since the frame before. Raises `SourceError`."""
        answer = self._service.get("/metrics", **{"collect[]": sorted(COLLECTORS)})
        if not answer.ok:
            raise SourceError(f"{self._service.url}: {answer}")
        return read_frame(answer.body.decode(errors="replace"), time.monotonic(), before)

    def close(self) -> None:
        """Nothing is held."""
