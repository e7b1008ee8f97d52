"""An operation as server-sent events: the whole of it first, then what changes, until it has ended.

Each listener holds a thread of the web server, so their number is bounded, and so is a stream's length: a
browser asks again by itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Final

from flask import Response

from clio_control_api.errors import Unavailable
from clio_control_api.operations.model import Operation
from clio_control_api.operations.runner import OperationRunner

HEARTBEAT_S: Final = 10.0
"""Silence after which a comment is sent, by which both sides see whether the other is there."""

PAUSE_S: Final = 0.2
"""Changes within this time come as one event."""

LENGTH_S: Final = 600.0
"""How long a stream lasts at most."""

RETRY_MS: Final = 2000


class Listeners:
    """Who follows operations live: never more than a fixed number."""

    def __init__(self, runner: OperationRunner, most: int) -> None:
        self._runner = runner
        self._most = most
        self._free = threading.BoundedSemaphore(most)

    def follow(self, operation_id: str) -> Response:
        """The answer that follows an operation.

        Raises:
            NotFound: there is none of that id.
            Unavailable: too many follow operations already.
        """
        self._runner.find(operation_id)
        if not self._free.acquire(blocking=False):
            error = Unavailable(
                f"{self._most} clients follow operations already; ask for the operation itself"
            )
            error.headers["Retry-After"] = str(RETRY_MS // 1000)
            raise error
        answer = Response(self._events(operation_id), content_type="text/event-stream; charset=utf-8")
        answer.call_on_close(self._free.release)
        # nginx would hold events back until a buffer is full.
        answer.headers["X-Accel-Buffering"] = "no"
        return answer

    def _events(self, operation_id: str) -> Iterator[str]:
        end = time.monotonic() + LENGTH_S
        before: Operation | None = None
        yield f"retry: {RETRY_MS}\n\n"
        while time.monotonic() < end and not self._runner.closing:
            now = self._runner.wait(operation_id, -1 if before is None else before.revision, HEARTBEAT_S)
            if before is not None and now.revision == before.revision:
                yield ": \n\n"
                continue
            yield event(now, before)
            if not now.under_way:
                return
            before = now
            time.sleep(PAUSE_S)


def event(now: Operation, before: Operation | None) -> str:
    """One event. `nodes` are those that have changed since `before`, all where there is none."""
    document = now.document()
    if before is not None:
        changed = {a.node_id for a, b in zip(now.nodes, before.nodes, strict=True) if a != b}
        document["nodes"] = [node for node in document["nodes"] if node["node_id"] in changed]
    name = "change" if now.under_way else "end"
    return f"id: {now.revision}\nevent: {name}\ndata: {json.dumps(document)}\n\n"
