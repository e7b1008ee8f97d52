"""The control API's own metrics."""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from clio_client import __version__
from clio_control_api.settings import ACTIONS

OUTCOMES = ("success", "failure", "unreachable", "timeout", "not_up", "conflict", "unknown", "error")
"""What can come of an action: exit code other than 0 and 134 is a failure; not_up: restarted, but no new
runtime came up; conflict: another was under way; unknown: a restart whose end could not be learnt; error:
ours."""

OPERATION_OUTCOMES = ("succeeded", "failed", "aborted", "interrupted")
"""What can come of an operation; interrupted: the service was not there to go on with it."""

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

    def render(self, accept: str) -> tuple[bytes, str]:
        """Exposition text and its content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
