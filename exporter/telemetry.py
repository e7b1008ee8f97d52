"""The exporter's metrics about itself: build, requests, connections, process."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter import __version__
from exporter.exposition import Family, Kind, Samples, Scope, label_text
from exporter.web.stats import RequestStats

_EOF: Final = b"# EOF\n"


def _family(name: str, kind: Kind, text: str, *labels: str) -> Family:
    return Family(name, kind, text, "exporter", labels, Scope.EXPORTER)


BUILD = _family(
    "clio_exporter_build_info",
    Kind.INFO,
    "Version of the exporter and of what it runs on.",
    "version",
    "python",
)
SCRAPES = _family("clio_exporter_collections_total", Kind.COUNTER, "Collections from all nodes started.")
SHARED = _family(
    "clio_exporter_collections_shared_total",
    Kind.COUNTER,
    "Scrapes that were served by a collection under way.",
)
HTTP = _family(
    "clio_exporter_http_requests_total",
    Kind.COUNTER,
    "HTTP requests answered, by route and status.",
    "handler",
    "code",
)
HTTP_IN_FLIGHT = _family(
    "clio_exporter_http_scrapes_in_flight", Kind.GAUGE, "Scrapes and probes being served."
)
REQUESTS = _family("clio_exporter_runtime_requests_total", Kind.COUNTER, "Requests sent to runtimes.")
ANSWERS = _family(
    "clio_exporter_runtime_answers_total",
    Kind.COUNTER,
    "Answers of runtimes by fate: received in time, late, or unexpected (duplicated or unknown).",
    "fate",
)
CONNECTIONS = _family("clio_exporter_runtime_connections", Kind.GAUGE, "Runtimes connected to.")
OPENED = _family(
    "clio_exporter_runtime_connections_opened_total",
    Kind.COUNTER,
    "Connections to runtimes opened since start.",
)
RELOAD_OK = _family(
    "clio_exporter_config_last_reload_successful",
    Kind.GAUGE,
    "1 if the last reload of the settings succeeded, else 0.",
)
RELOAD_TIME = _family(
    "clio_exporter_config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    "Unix time at which the settings were last read successfully.",
)

FAMILIES: Final = (
    BUILD,
    SCRAPES,
    SHARED,
    HTTP,
    HTTP_IN_FLIGHT,
    REQUESTS,
    ANSWERS,
    CONNECTIONS,
    OPENED,
    RELOAD_OK,
    RELOAD_TIME,
)


class Telemetry:
    """Counts what the engine does and renders everything the exporter says about itself. Thread-safe."""

    def __init__(self, http: RequestStats | None = None) -> None:
        self.http = http or RequestStats()
        self._lock = threading.Lock()
        self._collections = 0
        self._shared = 0
        self._reload: tuple[bool, float] | None = None
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    def collection(self, *, shared: bool) -> None:
        """A scrape started a collection, or joined one."""
        with self._lock:
            if shared:
                self._shared += 1
            else:
                self._collections += 1

    def reloaded(self, ok: bool, now: float) -> None:
        """The settings were read at Unix time ``now``, or could not be."""
        with self._lock:
            last_success = self._reload[1] if self._reload else now
            self._reload = (ok, now if ok else last_success)

    def render(self, openmetrics: bool, transport: Mapping[str, int]) -> Iterator[bytes]:
        """Exposition text, without ``# EOF``; ``transport`` is `Transport.counters`."""
        yield from self._samples(transport).render(openmetrics)
        generate: Callable[[CollectorRegistry], bytes] = (
            generate_openmetrics if openmetrics else generate_latest
        )
        yield generate(self._process).removesuffix(_EOF)

    def _samples(self, transport: Mapping[str, int]) -> Samples:
        samples = Samples(FAMILIES)
        samples.add(BUILD, label_text({"version": __version__, "python": platform.python_version()}), 1)
        with self._lock:
            samples.add(SCRAPES, "", self._collections)
            samples.add(SHARED, "", self._shared)
            if self._reload is not None:
                samples.add(RELOAD_OK, "", self._reload[0])
                samples.add(RELOAD_TIME, "", self._reload[1])
        for (handler, code), count in sorted(self.http.requests().items()):
            samples.add(HTTP, label_text({"handler": handler, "code": str(code)}), count)
        samples.add(HTTP_IN_FLIGHT, "", self.http.in_flight)
        samples.add(REQUESTS, "", transport.get("requests_sent", 0))
        for fate in ("received", "late", "unexpected"):
            samples.add(ANSWERS, label_text({"fate": fate}), transport.get(f"answers_{fate}", 0))
        samples.add(CONNECTIONS, "", transport.get("connections_open", 0))
        samples.add(OPENED, "", transport.get("connections_opened", 0))
        return samples


def process_families() -> Iterable[str]:
    """Names of the families prometheus_client adds: process_*, python_*."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return (metric.name for metric in registry.collect())
