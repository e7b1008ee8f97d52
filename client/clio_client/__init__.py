"""Ask a cluster of CLIO runtimes: membership, wire protocol, typed answers, the runtimes' own configuration.

`Cluster` and `AsyncCluster` are for programs (docs/python.md), the modules beside them for services that
keep their own connections. Imports nothing of the exporter or the control API, and may be used without them.
"""

from __future__ import annotations

from clio_client.api import AsyncCluster, AsyncNode, Cluster, Node, NodeResult, Options
from clio_client.config.errors import ConfigError
from clio_client.config.runtime_files import ConfigFile
from clio_client.errors import (
    ClientClosedError,
    ConnectionLostError,
    DuplicateNodeError,
    HungError,
    MalformedAnswerError,
    NotARuntimeError,
    QueryFailedError,
    RefusedError,
    RuntimeClientError,
    TransportUnavailableError,
    UnreachableError,
    UnresolvableHostError,
    UnsupportedGenerationError,
)
from clio_client.membership import Member
from clio_client.protocol.codec import Generation, RuntimeIdentity
from clio_client.protocol.records import (
    BdevStats,
    Container,
    CteStats,
    HostInfo,
    MethodModel,
    ModuleStats,
    Pool,
    PoolStats,
    SafeBdevMember,
    SafeBdevStats,
    SystemSample,
    WorkerStats,
    parse_health,
)
from clio_client.questions import NodeStatus
from clio_client.transport.interface import NodeAddress, NodeSession

__version__ = "0.1.0"
"""Version of the distribution, of which all packages are parts."""

__all__ = [
    "Cluster", "AsyncCluster", "Node", "AsyncNode", "NodeResult", "Options", "Member", "NodeAddress",
    "NodeStatus", "NodeSession", "Generation", "RuntimeIdentity", "HostInfo",
    "WorkerStats", "SystemSample",
    "Pool", "Container", "MethodModel", "PoolStats", "BdevStats", "SafeBdevStats", "SafeBdevMember",
    "CteStats", "ModuleStats", "parse_health",
    "ConfigFile", "ConfigError",
    "RuntimeClientError", "UnresolvableHostError", "RefusedError", "UnreachableError", "HungError",
    "ConnectionLostError", "NotARuntimeError", "UnsupportedGenerationError", "MalformedAnswerError",
    "QueryFailedError", "TransportUnavailableError", "DuplicateNodeError", "ClientClosedError",
]  # fmt: skip
