"""Which alerts fire, as a Prometheus server tells it."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
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


def firing_alerts(prometheus_url: str, timeout: float = TIMEOUT_S) -> tuple[Alert, ...]:
    """The alerts that fire now, of all clusters.

    Raises:
        AlertsError: it cannot be asked, or its answer is none.
    """
    query = urllib.parse.urlencode({"query": _QUERY})
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(f"{prometheus_url.rstrip('/')}/api/v1/query?{query}", timeout=timeout) as answer:
            body = answer.read(_MAX_ANSWER + 1)
        if len(body) > _MAX_ANSWER:
            raise AlertsError(f"the answer of Prometheus is longer than {_MAX_ANSWER} bytes")
        return read_alerts(json.loads(body))
    except urllib.error.HTTPError as error:
        error.close()
        raise AlertsError(f"Prometheus cannot be asked: {error}") from None
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise AlertsError(f"Prometheus cannot be asked: {reason}") from None


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
