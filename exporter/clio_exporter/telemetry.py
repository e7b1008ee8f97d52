"""The exporter's metrics about itself: build, requests, connections, process; by prometheus_client."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from clio_client import __version__
from clio_exporter.exposition import Family, Kind, Scope

_EOF: Final = b"# EOF\n"


# The time a counter was made is that of the process's start, which there is a metric of.
disable_created_metrics()  # type: ignore[no-untyped-call]


def _family(name: str, kind: Kind, text: str, *labels: str) -> Family:
    return Family(name, kind, text, "exporter", labels, Scope.EXPORTER)


BUILD = _family(
    "clio_exporter_build_info",
    Kind.INFO,
    "Version of the exporter and of what it runs on.",
    "version",
    "python",
)
POLLS = _family("clio_exporter_collections_total", Kind.COUNTER, "Collections from all nodes started.")
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
CERTIFICATE = _family(
    "clio_exporter_web_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    "Unix time at which the certificate that the exporter serves TLS with ends; absent without TLS.",
)

FAMILIES: Final = (
    BUILD,
    POLLS,
    SHARED,
    HTTP,
    HTTP_IN_FLIGHT,
    REQUESTS,
    ANSWERS,
    CONNECTIONS,
    OPENED,
    RELOAD_OK,
    RELOAD_TIME,
    CERTIFICATE,
)


class Telemetry:
    """Counts what the engine and its endpoints do, and writes what the exporter says of itself. Thread-safe.

    With ``silent`` it counts and writes nothing.

    Attributes:
        transport: tells `Transport.counters`; to be set by whoever has the transport.
        certificate: tells when the certificate in use ends (Unix time), None: there is none; to be set by
            whoever has the web server.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self.transport: Callable[[], Mapping[str, int]] = dict
        self.certificate: Callable[[], float | None] = lambda: None
        self._registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._in_flight = 0
        Info(BUILD.base_name, BUILD.help, registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._polls = _counter(POLLS, registry)
        self._shared = _counter(SHARED, registry)
        self._requests = _counter(HTTP, registry)
        # There from the first scrape, which is counted after it: else a rate misses it, and the series are
        # one more from the second on (Prometheus guideline: avoid missing metrics).
        self._requests.labels("/metrics", "200")
        _gauge(HTTP_IN_FLIGHT, registry).set_function(lambda: self._in_flight)
        registry.register(_TransportCollector(self))
        registry.register(_CertificateCollector(self))
        self._reload_ok = _gauge(RELOAD_OK, registry)
        self._reload_time = _gauge(RELOAD_TIME, registry)
        _register_process(registry)

    def polled(self, *, shared: bool) -> None:
        """A scrape polled the nodes, or joined a poll under way."""
        (self._shared if shared else self._polls).inc()

    def reloaded(self, ok: bool, now: float) -> None:
        """The settings were read at Unix time ``now``, or could not be."""
        self._reload_ok.set(ok)
        if ok:
            self._reload_time.set(now)

    def answered(self, handler: str, code: int) -> None:
        """A request was answered; ``handler`` is a route's pattern, so that the series are few."""
        self._requests.labels(handler, str(code)).inc()

    def enter(self, limit: int) -> bool:
        """Take a place for a scrape, until `leave`; False when ``limit`` are taken (0: no limit)."""
        with self._lock:
            if limit and self._in_flight >= limit:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._in_flight -= 1

    def render(self, openmetrics: bool, labels: Mapping[str, str] | None = None) -> bytes:
        """Exposition text, without ``# EOF``; none where it is to be silent. ``labels``: on every sample."""
        if self._silent:
            return b""
        generate: Callable[[CollectorRegistry], bytes] = (
            generate_openmetrics if openmetrics else generate_latest
        )
        registry = self._registry
        if labels:
            registry = CollectorRegistry()
            registry.register(_Labelled(self._registry, labels))
        return generate(registry).removesuffix(_EOF)


class _Labelled(Collector):
    """Another registry's metrics with more labels on each sample."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._registry = registry
        self._labels = dict(labels)

    def describe(self) -> Iterable[Metric]:
        return ()  # so that it is not collected to find out its names

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s._replace(labels={**self._labels, **s.labels}) for s in metric.samples]
            yield metric


class _TransportCollector(Collector):
    """The transport's own counts."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        counts = self._telemetry.transport()
        yield CounterMetricFamily(REQUESTS.base_name, REQUESTS.help, counts.get("requests_sent", 0))
        answers = CounterMetricFamily(ANSWERS.base_name, ANSWERS.help, labels=ANSWERS.labels)
        for fate in ("received", "late", "unexpected"):
            answers.add_metric((fate,), counts.get(f"answers_{fate}", 0))
        yield answers
        yield GaugeMetricFamily(CONNECTIONS.name, CONNECTIONS.help, counts.get("connections_open", 0))
        yield CounterMetricFamily(OPENED.base_name, OPENED.help, counts.get("connections_opened", 0))


class _CertificateCollector(Collector):
    """When the certificate in use ends; nothing where there is none."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(CERTIFICATE.name, CERTIFICATE.help)

    def collect(self) -> Iterable[Metric]:
        not_after = self._telemetry.certificate()
        if not_after is not None:
            yield GaugeMetricFamily(CERTIFICATE.name, CERTIFICATE.help, not_after)


def _counter(family: Family, registry: CollectorRegistry) -> Counter:
    return Counter(family.base_name, family.help, family.labels, registry=registry)


def _gauge(family: Family, registry: CollectorRegistry) -> Gauge:
    return Gauge(family.name, family.help, family.labels, registry=registry)


def _register_process(registry: CollectorRegistry) -> None:
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def process_families() -> Iterable[str]:
    """Names of the families prometheus_client adds: process_*, python_*."""
    return (metric.name for metric in _process_metrics())


def process_labels() -> frozenset[str]:
    """Names of the labels these have."""
    return frozenset(
        name for metric in _process_metrics() for sample in metric.samples for name in sample.labels
    )


def _process_metrics() -> Iterable[Metric]:
    registry = CollectorRegistry()
    _register_process(registry)
    return registry.collect()
