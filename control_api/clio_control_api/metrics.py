"""The control API's own metrics."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from clio_client import __version__
from clio_control_api.settings import ACTIONS

OUTCOMES = ("success", "failure", "unreachable", "timeout", "not_up", "conflict", "error")
"""What can come of an action: exit code other than 0 and 134 is a failure; not_up: restarted, but the
runtime did not answer within the time the caller waited; conflict: another was under way; error: ours."""

_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)


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
            "Time from the request of an action to its outcome.",
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
        self.running = Gauge("clio_control_actions_running", "Actions under way now.", registry=self.registry)
        self.build_info = Gauge(
            "clio_control_api_build_info",
            "1, with the version of the control API and of Python.",
            ("version", "python_version"),
            registry=self.registry,
        )
        self.build_info.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        # Present from the start, so that the first failure is an increase and not a new series.
        for action in ACTIONS:
            self.duration.labels(action)
            for outcome in OUTCOMES:
                self.actions.labels(action, outcome)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Exposition text and its content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
