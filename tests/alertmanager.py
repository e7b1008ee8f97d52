"""A real Alertmanager as a child process, and a webhook receiver for its notifications.

    with Receiver() as receiver, Alertmanager(tmp_path, config) as alertmanager:
        receiver.wait_for(lambda alert: alert["status"] == "firing")

Tests that use it are marked `needs_system("prometheus-alertmanager")`.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.exporter_process import free_port
from tests.server_process import ServerProcess

_STOP_SECONDS = 20.0


class Receiver:
    """An HTTP server that keeps every alert of every notification, in order of arrival.

    Each alert is as in Alertmanager's webhook format, with the notification's `groupLabels` and `receiver`.
    """

    def __init__(self) -> None:
        self._alerts: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver._take(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STOP_SECONDS)

    @property
    def url(self) -> str:
        """Address for `webhook_configs`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """What has arrived so far."""
        with self._changed:
            return list(self._alerts)

    def wait_for(
        self, what: str, accept: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """The first accepted alert of those that have arrived or will; AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = next(filter(accept, self._alerts), None)
                if found is not None:
                    return found
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    names = [(a["status"], a["labels"]) for a in self._alerts]
                    raise AssertionError(f"not within {seconds} s: {what}; received: {names}")

    def _take(self, notification: Mapping[str, Any]) -> None:
        more = {key: notification[key] for key in ("groupLabels", "receiver")}
        with self._changed:
            self._alerts.extend({**alert, **more} for alert in notification["alerts"])
            self._changed.notify_all()


class Alertmanager(ServerProcess):
    """Alertmanager with this configuration on a free port of 127.0.0.1, ready when constructed."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        own = directory / "alertmanager"
        own.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"
        config_path = own / "alertmanager.yml"
        config_path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        arguments = [
            f"--config.file={config_path}",
            f"--storage.path={own / 'data'}",
            f"--web.listen-address={self.address}",
            # Alone: without this it opens a port for other Alertmanagers.
            "--cluster.listen-address=",
        ]
        super().__init__("prometheus-alertmanager", arguments, own, f"http://{self.address}")

    def alerts(self, *matchers: str) -> list[dict[str, Any]]:
        """Alerts it knows, also those held back, with `status.state` and `status.inhibitedBy`."""
        query = urllib.parse.urlencode([("filter", matcher) for matcher in matchers])
        found: list[dict[str, Any]] = json.loads(self._call(f"alerts?{query}"))
        return found

    def send(self, labels: Sequence[Mapping[str, str]]) -> None:
        """Fire alerts with these labels, as Prometheus would."""
        self._call("alerts", json.dumps([{"labels": dict(each)} for each in labels]).encode())

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {error.read().decode()}") from None
