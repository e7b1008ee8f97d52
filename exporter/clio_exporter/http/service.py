"""What the HTTP endpoints need from the scrape engine, as protocols.

The web package depends on these shapes only, so that it can be tested without a runtime and the
engine can change behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class NodeState:
    """A node as the landing page shows it; `state` is up, down or unknown, `reason` why it is down."""

    node_id: int
    target: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class ClusterSummary:
    """One configured cluster, as the landing page shows it.

    `up` is the number of nodes that answered the latest collection, None when there was none yet.
    `source` says where the membership comes from (a hostfile's path, the runtime, a setting). `states`
    are its nodes, those that are down first; `label` is its name in metrics, empty when it has none.
    """

    name: str
    nodes: int
    up: int | None
    source: str
    label: str = ""
    states: tuple[NodeState, ...] = ()


class Exposition(Protocol):
    """The result of one collection, ready to be written in either text format."""

    def render(self, openmetrics: bool) -> Iterator[bytes]:
        """Yield the exposition text in chunks: OpenMetrics if asked, else Prometheus text 0.0.4."""
        ...

    def report(self) -> Iterator[str]:
        """Yield lines for people: who was asked, what came back and how long it took."""
        ...


class UnknownTarget(LookupError):  # noqa: N818 - named after the condition, like LookupError
    """A probe of a node that is not a member; the message says which target and the remedy."""


class MetricsService(Protocol):
    """The scrape engine as the web layer sees it. All methods are safe to call from any thread."""

    @property
    def collectors(self) -> tuple[str, ...]:
        """Names of the enabled collectors."""
        ...

    def scrape(self, collectors: frozenset[str] | None, timeout: float) -> Exposition:
        """Collect from every node within `timeout` seconds; None means all enabled collectors.

        Concurrent calls share one collection.
        """
        ...

    def probe(self, target: str, collectors: frozenset[str] | None, timeout: float) -> Exposition:
        """Collect from one node (`host:port`) within `timeout` seconds. Raises UnknownTarget."""
        ...

    def target_groups(self) -> list[dict[str, Any]]:
        """The nodes in the form of Prometheus's HTTP service discovery."""
        ...

    def ready(self) -> bool:
        """Whether scrapes can be served."""
        ...

    def reload(self) -> None:
        """Read configuration and membership again. Raises clio_client.config.errors.ConfigError."""
        ...

    def summary(self) -> list[ClusterSummary]:
        """The clusters for the landing page, from memory, without asking a runtime."""
        ...

    def config(self) -> dict[str, Any]:
        """The settings in force, with the keys of the settings file; nothing in it is secret."""
        ...
