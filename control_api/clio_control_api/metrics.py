"""The control API's own metrics."""

from __future__ import annotations

import platform
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from clio_client import __version__
from clio_control_api.settings import ACTIONS

OUTCOMES = ("success", "failure", "unreachable", "timeout", "not_up", "conflict", "unknown", "error")
"""What can come of an action: exit code other than 0 and 134 is a failure; not_up: restarted, but no new
runtime came up; conflict: another was under way; unknown: a restart whose end could not be learnt; error:
ours."""

OPERATION_OUTCOMES = ("succeeded", "failed", "aborted", "interrupted")
"""What can come of an operation; interrupted: the service was not there to go on with it."""

_VERSIONS = re.compile(r"\bversion=([^;,]*)")
_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,2}\s*", re.ASCII)
_SHOWN = 64
_SHOWN_S = 900.0
_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)


class RecentActions(Collector):
    """When actions of late began, with who, why and from where: marks on the time axis of dashboards.

    Each is shown for a while only; Prometheus keeps it.
    """

    LABELS = ("action", "cluster", "node_id", "hostname", "actor", "reason", "client")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: deque[tuple[float, tuple[str, ...]]] = deque(maxlen=_SHOWN)

    def add(self, labels: tuple[str, ...]) -> None:
        """One has begun; `labels` are in the order of `LABELS`."""
        with self._lock:
            self._begun.append((time.time(), labels))

    def collect(self) -> Iterator[Metric]:
        """The family, for the registry."""
        family = GaugeMetricFamily(
            "clio_control_action_begin_timestamp_seconds",
            "When an action of the last 15 minutes began, by who asked for it, why and from where.",
            labels=self.LABELS,
        )
        with self._lock:
            # The last of several with the same labels counts.
            shown = {labels: at for at, labels in self._begun if time.time() - at < _SHOWN_S}
        for labels, at in shown.items():
            family.add_metric(labels, at)
        yield family


class _Certificate(Collector):
    """When the certificate in use ends; nothing where there is none."""

    def __init__(self, not_after: Callable[[], float | None]) -> None:
        self._not_after = not_after

    def collect(self) -> Iterator[Metric]:
        not_after = self._not_after()
        if not_after is not None:
            yield GaugeMetricFamily(
                "clio_control_web_certificate_expiry_timestamp_seconds",
                "Unix time at which the certificate that the control API serves TLS with ends.",
                not_after,
            )


class Metrics:
    """Counters of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.actions = Counter(
            "clio_control_actions",
            "Shutdowns and restarts that were asked for, by outcome.",
            ("action", "outcome"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "clio_control_action_duration_seconds",
            "Time from the request of an action until its outcome was known.",
            ("action",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "clio_control_http_requests",
            "HTTP requests answered, by route and status code.",
            ("handler", "code"),
            registry=self.registry,
        )
        self.refused_tokens = Counter(
            "clio_control_refused_tokens",
            "Tokens that were shown and did not count, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.running = Gauge("clio_control_actions_running", "Actions under way now.", registry=self.registry)
        self.operations = Counter(
            "clio_control_operations",
            "Rolling restarts and shutdowns that have ended, by outcome.",
            ("action", "outcome"),
            registry=self.registry,
        )
        self.operations_running = Gauge(
            "clio_control_operations_running",
            "Rolling restarts and shutdowns that have not ended.",
            registry=self.registry,
        )
        self.alert_decisions = Counter(
            "clio_control_alert_decisions",
            "Decisions on alerts that Alertmanager told of, by the action that is configured for them.",
            ("action", "verdict"),
            registry=self.registry,
        )
        self.recent_actions = RecentActions()
        self.registry.register(self.recent_actions)
        self.build_info = Gauge(
            "clio_control_api_build_info",
            "1, with the version of the control API and of Python.",
            ("version", "python_version"),
            registry=self.registry,
        )
        self.build_info.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        for reason in ("unknown", "expired", "unusable_file"):
            self.refused_tokens.labels(reason)
        # Present from the start, so that the first failure is an increase and not a new series.
        for action in ACTIONS:
            self.duration.labels(action)
            for outcome in OUTCOMES:
                self.actions.labels(action, outcome)
            for outcome in OPERATION_OUTCOMES:
                self.operations.labels(action, outcome)

    def watch_tokens(self, counts: Callable[[], tuple[int, int, int, bool]]) -> None:
        """Tell at every scrape what `TokenStore.counts` says."""
        tokens = Gauge(
            "clio_control_tokens",
            "Tokens of the tokens file, by state: those that hold and those that have expired.",
            ("state",),
            registry=self.registry,
        )
        tokens.labels("valid").set_function(lambda: counts()[0])
        tokens.labels("expired").set_function(lambda: counts()[1])
        Gauge(
            "clio_control_tokens_bad_lines",
            "Lines of the tokens file that do not count; the log names them.",
            registry=self.registry,
        ).set_function(lambda: counts()[2])
        Gauge(
            "clio_control_tokens_file_usable",
            "1 while the tokens file can be used, 0 while no token counts because it cannot.",
            registry=self.registry,
        ).set_function(lambda: counts()[3])

    def watch_certificate(self, not_after: Callable[[], float | None]) -> None:
        """Tell at every scrape when the certificate in use ends (Unix time); nothing while it is None."""
        self.registry.register(_Certificate(not_after))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Exposition text and its content type, in the format that `accept` asks for."""
        # prometheus_client raises for a version that is none (version=x).
        known = all(_VERSION.fullmatch(version) for version in _VERSIONS.findall(accept))
        encode, content_type = choose_encoder(accept if known else "")
        return encode(self.registry), content_type
