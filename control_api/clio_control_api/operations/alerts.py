"""Which alerts fire, as a Prometheus server tells it."""

from __future__ import annotations

import functools
import http.client
import io
import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from clio_control_api.operations.gates import Alert

TIMEOUT_S: Final = 5.0
_QUERY: Final = 'ALERTS{alertstate="firing"}'
_MAX_ANSWER: Final = 8 * 1024 * 1024
_OWN: Final = "Clio"
"""How the names of this project's alerts begin: without a cluster's name to go by, only these count."""


class AlertsError(Exception):
    """Prometheus did not tell; the text says why."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Leave the answer as it is: the address is the operator's, not that server's, to choose."""


class _Reader(io.RawIOBase):
    """Reads a socket until a moment: its own timeout bounds each read, not a slow answer as a whole."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._raw = raw
        self._sock = sock
        self._until = until

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come, or wait for it as long as there is time."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Close the socket's reader too."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, until: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, until))


class _Until:
    """A handler of urllib that reads answers, head and body, until a moment."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def do_open(self, http_class: Callable[..., Any], req: Any, **args: Any) -> Any:
        """Open the connection with such a reader."""

        def connection(host: str, **more: Any) -> Any:
            made = http_class(host, **more)
            made.response_class = functools.partial(_Response, until=self._until)
            return made

        return super().do_open(connection, req, **args)  # type: ignore[misc]


class _Http(_Until, urllib.request.HTTPHandler):
    pass


class _Https(_Until, urllib.request.HTTPSHandler):
    pass


def firing_alerts(prometheus_url: str, timeout: float = TIMEOUT_S) -> tuple[Alert, ...]:
    """The alerts that fire now, of all clusters.

    Args:
        timeout: seconds for connecting and, from the same moment on, for the whole answer.

    Raises:
        AlertsError: it cannot be asked, or its answer is none.
    """
    query = urllib.parse.urlencode({"query": _QUERY})
    until = time.monotonic() + timeout
    opener = urllib.request.build_opener(_NoRedirect(), _Http(until), _Https(until))
    try:
        with opener.open(f"{prometheus_url.rstrip('/')}/api/v1/query?{query}", timeout=timeout) as answer:
            body = answer.read(_MAX_ANSWER + 1)
        if len(body) > _MAX_ANSWER:
            raise AlertsError(f"the answer of Prometheus is longer than {_MAX_ANSWER} bytes")
        return read_answer(body)
    except urllib.error.HTTPError as error:
        error.close()
        raise AlertsError(f"Prometheus cannot be asked: {error}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise AlertsError(f"Prometheus cannot be asked: {reason}") from None


def read_answer(body: bytes) -> tuple[Alert, ...]:
    """The alerts that the body of an answer tells of. Raises `AlertsError`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AlertsError(f"the answer of Prometheus is no JSON: {error}") from None
    return read_alerts(document)


def read_alerts(document: Any) -> tuple[Alert, ...]:
    """The alerts of an answer to an instant query for ALERTS; those about the control API itself left out.

    Raises:
        AlertsError: it is none.
    """
    try:
        if document["status"] != "success" or document["data"]["resultType"] != "vector":
            raise AlertsError("Prometheus answered without a vector")
        metrics = [dict(row["metric"]) for row in document["data"]["result"]]
    except (KeyError, TypeError, ValueError):
        raise AlertsError("Prometheus answered something else than a vector") from None
    return tuple(
        alert
        for metric in metrics
        if metric.get("scope") != "control" and (alert := _alert(metric)) is not None
    )


def _alert(metric: dict[str, Any]) -> Alert | None:
    name, cluster = str(metric.get("alertname", "")), str(metric.get("cluster", ""))
    if not cluster and not name.startswith(_OWN):
        return None
    labels = {k: v for k, v in metric.items() if k not in ("__name__", "alertname", "alertstate")}
    text = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    node = str(metric.get("node_id", ""))
    number = int(node) if node.isascii() and node.isdigit() and len(node) < 10 else None
    return Alert(name, f"{name}({text})"[:500], cluster, number)
