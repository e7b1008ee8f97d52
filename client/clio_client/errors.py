"""What can go wrong between the exporter and a runtime, one class per cause.

``reason`` is a short, stable word: it becomes the ``reason`` label of
``clio_node_down_info`` and the ``outcome`` label of the request counter.
"""

from __future__ import annotations

from typing import ClassVar, Final

_POOL_NOT_FOUND: Final = 3


class RuntimeClientError(Exception):
    """Base of every error this package raises for a node; ``str()`` is fit for a log line."""

    reason: ClassVar[str] = "error"


class UnresolvableHostError(RuntimeClientError):
    """The node's host name has no IPv4 address."""

    reason = "unresolvable"


class RefusedError(RuntimeClientError):
    """Nothing listens on the node's client port: the runtime is not running."""

    reason = "refused"


class UnreachableError(RuntimeClientError):
    """TCP got no answer: host down, no route, or a firewall that drops."""

    reason = "unreachable"


class HungError(RuntimeClientError):
    """The node accepts connections but does not answer in time."""

    reason = "hung"


class ConnectionLostError(RuntimeClientError):
    """The connection ended while an answer was awaited."""

    reason = "connection_lost"


class NotARuntimeError(RuntimeClientError):
    """Something listens on the port, but it does not speak ZeroMQ."""

    reason = "not_a_runtime"


class UnsupportedGenerationError(RuntimeClientError):
    """A ZeroMQ server that answers none of the protocol generations that can be asked safely."""

    reason = "unsupported"


class MalformedAnswerError(RuntimeClientError):
    """The answer does not follow the protocol or a field has an impossible value."""

    reason = "malformed"


class QueryFailedError(RuntimeClientError):
    """The runtime answered with a non-zero return code (wire protocol, section 3).

    Attributes:
        return_code: the code as unsigned 32 bit integer; 2 malformed ``pool_stats://``.
    """

    reason = "query_failed"

    def __init__(self, message: str, return_code: int) -> None:
        super().__init__(message)
        self.return_code = return_code

    @property
    def unknown_pool(self) -> bool:
        """Whether the runtime does not know the pool it was asked for: it may have been retired."""
        return self.return_code == _POOL_NOT_FOUND


class TransportUnavailableError(RuntimeClientError):
    """The chosen transport cannot be used on this machine (binding not installed, port not bindable)."""

    reason = "transport_unavailable"


class DeadlineError(RuntimeClientError):
    """The scrape had to be answered before the node was, or could even be asked."""

    reason = "deadline"


class DuplicateNodeError(RuntimeClientError):
    """Two members lead to the same runtime."""

    reason = "duplicate"


class ClientClosedError(RuntimeClientError):
    """The client was closed while, or before, the call was made."""

    reason = "client_closed"
